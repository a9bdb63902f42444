"""The page of a participant: sections that consist of pieces of HTML."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from markupsafe import escape

from n4ax_bids.report import templates

_FACTS = ("BiasCorrection", "MotionCorrection")
"""keys of a sidecar for what was done"""
_NOT_OF_THE_SOURCE = (*_FACTS, "Sources", "Description", "SkullStripped")
"""keys of a corrected image's sidecar that do not come from the source's"""


KEPT = "outputs of an earlier run are kept"
"""beginning of the message of an image that has been corrected before"""


class Failure(NamedTuple):
    """An image that could not be corrected."""

    name: str
    message: str
    """one line"""
    text: str
    """the crash file"""
    page: str = ""
    """name of the page that shows it; "" for the participant in its name"""


@dataclass(frozen=True)
class Image:
    """What the page shows about one image."""

    record: Mapping[str, Any]
    """numbers and remarks"""
    sidecar: Mapping[str, Any]
    """of the corrected image"""
    figures: Mapping[str, str]
    """addresses relative to the page"""
    files: Sequence[tuple[str, str]] = ()
    """(name, address relative to the page) of the image's outputs"""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the sidecar says of how the image was made."""
        found: Mapping[str, Any] = next(self.sidecar[key] for key in _FACTS if key in self.sidecar)
        return found

    @property
    def is_motion(self) -> bool:
        """Whether the image is a series that was realigned."""
        return "MotionCorrection" in self.sidecar and "BiasCorrection" not in self.sidecar

    @property
    def options(self) -> list[tuple[str, str]]:
        """Names and values of the options."""
        options = self.facts["Options"]
        return [(name, _plain(value)) for name, value in options.items()]

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Names and values from the source's sidecars."""
        return [
            (name, _plain(value))
            for name, value in sorted(self.sidecar.items())
            if name not in _NOT_OF_THE_SOURCE
        ]


def address(path: Path, page: Path) -> str:
    """Return a file's address relative to a page."""
    return "./" + quote(Path(os.path.relpath(path, page.parent)).as_posix())


def html(
    subject: str,
    images: Sequence[Image],
    *,
    failed: Sequence[Failure] = (),
    skipped: Sequence[tuple[str, str]] = (),
    applied: Sequence[tuple[str, str]] = (),
    participant: Sequence[tuple[str, str]] = (),
    methods: str = "",
    generator: str,
    digest: str = "",
    neighbours: tuple[str, str] = ("", ""),
) -> str:
    """Return a participant's page.

    Parameters
    ----------
    subject : name of the participant, "sub-01"
    images : corrected images
    failed : images that could not be corrected
    skipped : (file, reason) of images that were left out
    applied : (file, field) of images that got the field of another one
    participant : (column, value) of the participant's line in participants.tsv
    methods : text in Markdown: paragraphs, headings and lists
    generator : the program and its version
    digest : digest of the page's content, which is stored in it
    neighbours : names of the participants before and after this one; "" for none
    """
    pieces: Any = templates.environment().get_template("pieces.html").module
    sections = {
        "Summary": [pieces.summary(subject, images, failed, participant)],
        "Failed": [pieces.failed(failed)] if failed else [],
        "Images": [
            pieces.motion(image) if image.is_motion else pieces.image(image) for image in images
        ],
        "Fields of others": [pieces.applied(applied)] if applied else [],
        "Skipped": [pieces.skipped(skipped)] if skipped else [],
        "Methods": [pieces.methods(_blocks(methods))] if methods else [],
    }
    head, script = templates.assets(generator, digest, " | ".join(neighbours))
    template = templates.environment().get_template("subject.html")
    shown = {name: filled for name, filled in sections.items() if filled}
    return template.render(
        subject=subject, sections=shown, head=head, script=script, neighbours=neighbours
    )


def beside_in_head(neighbours: tuple[str, str]) -> str:
    """Return the part of a page's head that contains the names of its neighbours."""
    return f'name="beside" content="{escape(" | ".join(neighbours))}"'


def _blocks(markdown: str) -> list[tuple[str, str]]:
    """Split the methods text, in simple Markdown, into blocks without its title."""
    blocks = []
    for part in markdown.split("\n\n"):
        for text in part.strip().split("\n- ") if part.strip().startswith("- ") else [part]:
            text = " ".join(text.split())
            if text.startswith("# ") or not text:
                continue
            if text.startswith("## "):
                blocks.append(("heading", text.removeprefix("## ")))
            elif part.strip().startswith("- "):
                blocks.append(("item", text.removeprefix("- ")))
            else:
                blocks.append(("text", text))
    return blocks


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
