"""The command line of the ANTs program for one image: flags to settings.

The grammar is that of ANTs' programs: `-f value` or `--flag value`, with several values in
brackets, `[a,b]`, where blanks are allowed inside and around; numbers per axis or level are joined
by `x`. If a flag is given twice or has two values, the last one is used. Two differences: two
values of a flag that names a file are an error, and so is a word that begins with a dash which
only looks like a hyphen, because the program would use such a word as a file's name. Words that
the program ignores silently are ignored here too, with a note.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from n4ax_bids.arguments import odd_dash


class Flag(NamedTuple):
    """One flag of the program."""

    short: str
    """one letter, or empty"""
    read: Callable[[str], dict[str, Any]]
    """converts the written value to settings: fields of N4Options, or arguments of `correct`"""
    alone: str | None = "1"
    """value of the flag if it is given without one; None: a value is required"""
    unbracketed: str | None = None
    """for a value that needs brackets: used instead of a value without them; empty: the default"""
    names_files: bool = False
    """whether the value is a file's name; only one value is allowed then"""


class Words(NamedTuple):
    """The content of a command line."""

    settings: dict[str, dict[str, Any]]
    """for each given flag, by its long name, its settings"""
    notes: tuple[str, ...]
    """notes on words without effect"""


def parse(words: str | Sequence[str], *, only: Collection[str] | None = None) -> Words:
    """Parse the command line of ANTs' `N4BiasFieldCorrection`.

    Parameters
    ----------
    words : a command line without the program's name, as one text or as words
    only : long names of the flags that are accepted; all of them if not given

    Returns
    -------
    Words, with settings such as
        {"bspline-fitting": {"n_control_points": (4, 5, 4), "bspline_order": 3}}

    Raises
    ------
    ValueError
        For an unknown flag, or a value that does not fit its flag; the message names it.
    """
    flags = {name: flag for name, flag in FLAGS.items() if only is None or name in only}
    names = {spelling: name for name in flags for spelling in _spellings(name)}
    words = _grouped(shlex.split(words) if isinstance(words, str) else words)
    for word in words:
        _require_hyphen(word, names)
    settings: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    while words:
        spelling = words.pop(0)
        if not _is_flag(spelling) or spelling in ("-", "--"):
            notes.append(f"{spelling!r} belongs to no flag; it has no effect")
            continue
        if spelling not in names:
            known = ", ".join(_spellings(name)[0] for name in flags)
            raise ValueError(
                f"{spelling!r} is not an argument known here; expected one of {known}"
            )
        values = []
        while words and not _is_flag(words[0]):
            values.append(words.pop(0))
        name = names[spelling]
        if len(values) > 1 and FLAGS[name].names_files:
            raise ValueError(
                f"{spelling} has the values {' '.join(values)}; expected one "
                f"{'name, or [corrected,field]' if name == 'output' else 'name'} (put quotes "
                "around a name with blanks)"
            )
        if len(values) > 1:
            notes.append(f"{spelling} has the values {' '.join(values)}; the last one counts")
        settings[name] = _read(spelling, FLAGS[name], values[-1:], notes)
    return Words(settings, tuple(notes))


def _spellings(name: str) -> list[str]:
    """Return the spellings of a flag, the usual one first; the program accepts --s for -s too."""
    short = FLAGS[name].short
    single = [f"-{short}", f"--{short}"] if short else []
    return single if name == short else [*single, f"--{name}"]


def _read(spelling: str, flag: Flag, values: list[str], notes: list[str]) -> dict[str, Any]:
    value = values[0] if values else flag.alone
    if value is None:
        raise ValueError(f"{spelling} has no value; expected one")
    if flag.unbracketed is not None and "[" not in value:
        instead = flag.unbracketed or "the default"
        notes.append(f"{spelling} {value}: not read, as it has no brackets; {instead} counts")
        return flag.read(flag.unbracketed) if flag.unbracketed else {}
    try:
        return flag.read(value)
    except ValueError as error:
        raise ValueError(f"{spelling} {value}: {error}") from error


def _is_flag(word: str) -> bool:
    if not word.startswith("-"):
        return False
    try:
        return float(word) == 0
    except ValueError:
        return True


def _require_hyphen(word: str, names: Collection[str]) -> None:
    """Refuse a word that looks like a flag but begins with another dash or an invisible character.

    Word processors and web pages replace hyphens and spaces by en dashes and no-break spaces. Such
    a word would be read as a value and override the one before it.
    """
    found = odd_dash(word)
    if found is None:
        return
    likely = [name for name in names if name.lstrip("-") == found.bare]
    remedy = f"did you mean {likely[0]}?" if likely else "a file of this name needs ./ before it"
    raise ValueError(f"{word!r} begins with {found.sign}, not with a hyphen; {remedy}")


def _grouped(words: Sequence[str]) -> list[str]:
    """Join words within one pair of brackets; (, { and < at the ends of words count as [."""
    grouped: list[str] = []
    n_open = 0
    for word in words:
        word = word[:1].translate(_LEFT) + word[1:]
        word = word[:-1] + word[-1:].translate(_RIGHT)
        if n_open > 0:
            grouped[-1] += word
        else:
            grouped.append(word)
        n_open += word.count("[") - word.count("]")
        if n_open < 0:
            raise ValueError(f"{grouped[-1]!r}: a bracket is not opened")
    if n_open:
        raise ValueError(f"{grouped[-1]!r}: a bracket is not closed")
    return grouped


_LEFT, _RIGHT = str.maketrans("({<", "[[["), str.maketrans(")}>", "]]]")


def _parameters(value: str, most: int) -> list[str]:
    """Split "[a,b,...]" at its commas; only the first few values are used."""
    inner = value.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        raise ValueError("expected brackets, [...]")
    return [part.strip() for part in inner[1:-1].split(",")][:most]


def _number(text: str, kind: Callable[[str], Any] = float) -> Any:
    try:
        number = kind(text)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not {'a whole number' if kind is int else 'a number'}")


def _numbers(text: str, kind: Callable[[str], Any] = float) -> tuple[Any, ...]:
    return tuple(_number(part, kind) for part in text.removesuffix("x").split("x"))


def _file(name: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if not value:
            raise ValueError("expected the name of a file")
        return {name: value}

    return read


def _switch(name: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if value not in ("0", "1"):
            raise ValueError("expected 0 or 1")
        return {name: value == "1"}

    return read


def _dimension(value: str) -> dict[str, Any]:
    number = _number(value, int)
    if number == 4:
        raise ValueError("expected 2 or 3 (split the series; correct its mean, or each volume)")
    if number not in (2, 3):
        raise ValueError("expected 2 or 3")
    return {"dimension": number}


def _shrink(value: str) -> dict[str, Any]:
    return {"shrink_factor": _number(value, int) or 1}  # ITK reads 0 as 1


def _bspline(value: str) -> dict[str, Any]:
    """Read [mm,order] or [AxBxC,order]: one number is a distance, several are a mesh."""
    first, *second = _parameters(value, 2)
    order = _number(second[0], int) if second else 3
    mesh = _numbers(first)
    if len(mesh) == 1:
        return {"bspline_fitting_distance": mesh[0], "bspline_order": order}
    return {"n_control_points": tuple(int(n) + order for n in mesh), "bspline_order": order}


def _convergence(value: str) -> dict[str, Any]:
    first, *threshold = _parameters(value, 2)
    return {
        "n_iterations": _numbers(first, int),
        "convergence_threshold": _number(threshold[0]) if threshold else 0.0,
    }


def _histogram(value: str) -> dict[str, Any]:
    sharpening: list[Any] = [0.15, 0.01, 200]
    for i, text in enumerate(_parameters(value, 3)):
        sharpening[i] = _number(text, type(sharpening[i]))
    return {"histogram_sharpening": tuple(sharpening)}


def _output(value: str) -> dict[str, Any]:
    """Read out or [out,bias]; an empty name means no file."""
    files = _parameters(value, 2) if value.startswith("[") else [value.strip()]
    if not any(files):
        raise ValueError("expected the name of a file")
    return {"output_image": files[0] or None, "bias_image": (files[1:] or [""])[0] or None}


FLAGS: dict[str, Flag] = {
    "image-dimensionality": Flag("d", _dimension, alone=None),
    "input-image": Flag("i", _file("input_image"), alone=None, names_files=True),
    "mask-image": Flag("x", _file("mask_image"), alone=None, names_files=True),
    "rescale-intensities": Flag("r", _switch("rescale_intensities")),
    "weight-image": Flag("w", _file("weight_image"), alone=None, names_files=True),
    "shrink-factor": Flag("s", _shrink),
    "convergence": Flag(
        "c", _convergence, unbracketed="[50,0.001]"
    ),  # without brackets, ITK's defaults apply instead of the program's
    "bspline-fitting": Flag("b", _bspline, unbracketed=""),
    "histogram-sharpening": Flag("t", _histogram, unbracketed=""),
    "output": Flag("o", _output, alone=None, names_files=True),
    "field-scale": Flag("", lambda value: {"field_scale": value.strip()}, alone=None),
    "device": Flag("", lambda value: {"device": value}, alone=None),
    "version": Flag("", _switch("version")),
    "verbose": Flag("v", _switch("verbose")),
    "h": Flag("h", _switch("flags")),
    "help": Flag("", _switch("help")),
}
"""The flags of the program, and `field-scale` and `device`, which are ours, by long name."""
