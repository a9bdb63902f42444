"""Lets the reference show parameters as their docstrings say them.

Here a parameter's line may go on in the next one: `image : array (I, J), intensities;` and more.
The parser of numpydoc would take the first line for the type and the rest for the description. So
all of it becomes the description, and the type comes from the annotation.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

HEADED = re.compile(r"^(\w[\w, *]*) : (.+)$")


class WholeDescriptions(Extension):
    """Moves the text behind the colon of each parameter to its description."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of a function or class before it is parsed."""
        if obj.docstring and "Parameters\n---" in obj.docstring.value:
            obj.docstring.value = with_whole_descriptions(obj.docstring.value)


def with_whole_descriptions(text: str) -> str:
    """Return a docstring whose parameters have descriptions alone."""
    found, inside = [], False
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if set(line) == {"-"}:
            inside = lines[number - 1] == "Parameters"
        headed = HEADED.match(line) if inside else None
        found += [headed[1], f"    {headed[2]}"] if headed else [line]
    return "\n".join(found)
