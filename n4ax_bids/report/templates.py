"""HTML from templates, which escape all values and load nothing from the network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from n4ax_bids.report import measures

FOLDER = Path(__file__).parents[1] / "data" / "report"


class Assets(NamedTuple):
    """The parts at the head and at the foot of a page."""

    head: Markup
    """policy and style; the policy allows only our own script"""
    script: Markup


@cache
def environment() -> Environment:
    """Return the environment of the templates, where an undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["number"] = measures.text
    made.filters["percent"] = measures.percent
    return made


def assets(generator: str, state: str = "", beside: str = "") -> Assets:
    """Return style and script of a page.

    Parameters
    ----------
    generator : the program and its version
    state : digest of the page's content
    beside : names of the pages before and after this one
    """
    css, script = ((FOLDER / name).read_text("utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head = environment().get_template("head.html")
    filled = head.render(
        css=Markup(css),
        digest=Markup(f"sha256-{digest}"),
        generator=generator,
        state=state,
        beside=beside,
    )
    return Assets(Markup(filled), Markup(f"<script>{script}</script>"))
