"""ANTs' own words for one image: command-line flags to options.

The grammar is that of ANTs' programs: `-f value` or `--flag value`, with several values in
brackets, `[a,b]`, around which and in which blanks may stand; numbers per axis or level are
joined by `x`. Where a flag is given twice the last one counts.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """One flag of the ANTs program."""

    short: str
    read: Callable[[str], dict[str, Any]]
    """value as written to settings: fields of N4Options, or arguments of `correct`"""


def parse(words: str | Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read flags of ANTs' `N4BiasFieldCorrection`.

    Parameters
    ----------
    words : a command line without the program's name, as one text or in words

    Returns
    -------
    dict, for each flag that was given (its long name) the settings it stands for, e.g.
    {"bspline-fitting": {"n_control_points": (4, 5, 4), "bspline_order": 3}}

    Raises
    ------
    ValueError
        For a flag that is not known, or a value that does not fit it; the message names it.
    """
    words = _grouped(shlex.split(words) if isinstance(words, str) else words)
    found: dict[str, dict[str, Any]] = {}
    while words:
        flag = words.pop(0)
        name = _NAMES.get(flag)
        if name is None:
            known = ", ".join(_NAMES)
            raise ValueError(f"{flag!r} is not an argument known here; expected one of {known}")
        values = []
        while words and not _is_flag(words[0]):
            values.append(words.pop(0))
        if len(values) > 1:
            raise ValueError(f"{flag} has the values {' '.join(values)}; expected one")
        value = values[0] if values else "1"  # ANTs takes a bare flag so
        try:
            found[name] = FLAGS[name].read(value)
        except ValueError as error:
            raise ValueError(f"{flag} {value}: {error}") from error
    return found


def _is_flag(word: str) -> bool:
    if not word.startswith("-"):
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _grouped(words: Sequence[str]) -> list[str]:
    """Join words that stand within one pair of brackets; (, { and < are brackets too."""
    brackets = str.maketrans("({<)}>", "[[[]]]")
    grouped: list[str] = []
    is_open = False
    for word in words:
        word = word.translate(brackets)
        if is_open:
            grouped[-1] += word
        else:
            grouped.append(word)
        is_open = grouped[-1].count("[") > grouped[-1].count("]")
    if is_open:
        raise ValueError(f"{grouped[-1]!r}: a bracket is not closed")
    return grouped


def _parameters(value: str, most: int) -> list[str]:
    """Split "[a,b]" at its commas."""
    inner = value.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        raise ValueError("expected brackets, [...]")  # ANTs takes no notice of a bare value
    parameters = [part.strip() for part in inner[1:-1].split(",")]
    if len(parameters) > most or not all(parameters):
        raise ValueError(f"expected 1 to {most} values in the brackets")
    return parameters


def _number(text: str, kind: Callable[[str], Any] = float) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{text!r} is not {what}") from error


def _bspline(value: str) -> dict[str, Any]:
    """[mm,order] or [AxBxC,order]: one number is a distance, several are a mesh."""
    parameters = _parameters(value, 2)
    order = _number(parameters[1], int) if len(parameters) == 2 else 3
    mesh = [_number(text) for text in parameters[0].split("x")]
    if len(mesh) == 1:
        return {"bspline_fitting_distance": mesh[0], "bspline_order": order}
    return {"n_control_points": tuple(int(n) + order for n in mesh), "bspline_order": order}


def _convergence(value: str) -> dict[str, Any]:
    parameters = _parameters(value, 2)
    return {
        "n_iterations": tuple(_number(text, int) for text in parameters[0].split("x")),
        "convergence_threshold": _number(parameters[1]) if len(parameters) == 2 else 0.0,
    }


def _histogram(value: str) -> dict[str, Any]:
    parameters = _parameters(value, 3)
    sharpening: list[Any] = [0.15, 0.01, 200]
    for i, text in enumerate(parameters):
        sharpening[i] = _number(text, type(sharpening[i]))
    return {"histogram_sharpening": tuple(sharpening)}


def _switch(name: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if value not in ("0", "1"):
            raise ValueError("expected 0 or 1")
        return {name: value == "1"}

    return read


FLAGS: dict[str, Flag] = {
    "rescale-intensities": Flag("r", _switch("rescale_intensities")),
    "shrink-factor": Flag("s", lambda value: {"shrink_factor": _number(value, int)}),
    "convergence": Flag("c", _convergence),
    "bspline-fitting": Flag("b", _bspline),
    "histogram-sharpening": Flag("t", _histogram),
    "verbose": Flag("v", _switch("verbose")),
}
"""The flags understood, by long name."""

_NAMES = {
    spelling: name for name, flag in FLAGS.items() for spelling in (f"-{flag.short}", f"--{name}")
}
