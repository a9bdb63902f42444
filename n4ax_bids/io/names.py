"""Names of files from unknown sources: shown so that they cannot forge output, or refused."""

from __future__ import annotations

import re
from pathlib import PurePath

UNFIT = "\\x00-\\x1f\\x7f-\\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\\ud800-\\udfff"
"""Characters that the names of input files must not have, for a class of a regular expression.

Control characters, characters that end a line or change the direction of text, and Python's codes
for bytes that are not UTF-8.
"""
_UNFIT = re.compile(f"[{UNFIT}]")


def printable(text: object) -> str:
    """Return a text for a terminal, a log or a table: one line, the rest as in `\\x1b`."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def printable_lines(text: str, *paths: PurePath) -> str:
    """Return a text of several lines, each treated as in `printable`.

    Parameters
    ----------
    text : for example a traceback
    paths : paths that the text may contain; a line break in one of them does not end a line
    """
    for path in paths:
        text = text.replace(str(path), printable(path))
    return "\n".join(map(printable, text.split("\n")))


def why_unfit(name: str | PurePath) -> str | None:
    """Return why a file or folder of this name cannot be used; None if it can."""
    found = _UNFIT.search(str(name))
    if found is None:
        return None
    if "\ud800" <= found[0] <= "\udfff":
        return f"its name is not UTF-8 (byte {_escaped(found[0])}); rename it"
    return f"its name has the control character {_escaped(found[0])}; rename it"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
