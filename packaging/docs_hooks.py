"""Adapts pages for the site: they also have to read well in the repository itself.

Links to folders and to files that are not part of the site become the names of these files,
because the repository has no public address yet. The page on contributing gets the text of
CONTRIBUTING.md.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a page as the site shows it."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    if page.file.src_uri == "contributing.md":
        markdown = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        markdown, folder = markdown.replace("](docs/", "]("), "docs"

    def shown(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        path = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
        is_page = path.startswith("docs/") and not target.endswith("/")
        if ":" in target or target.startswith("#") or is_page:
            return link[0]
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(shown, markdown)
