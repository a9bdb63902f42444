"""Checks of arguments of public functions, and their values on one line for messages."""

from __future__ import annotations

import difflib
import functools
import inspect
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

LONGEST = 80
"""largest number of characters of a value in a message"""


def shown(value: Any) -> str:
    """Return a value for a message: its repr on one line, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def kind(value: Any) -> str:
    """Return the type of a value with an article: "an int", "a numpy.ndarray"."""
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def is_bool(value: Any) -> bool:
    """Return whether a value is a bool of Python or numpy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def require_bools(**values: Any) -> None:
    """Refuse values that are neither a bool nor 0 or 1, such as the words "no" and "False".

    Raises
    ------
    TypeError
        With the name of the argument and its value.
    """
    for name, value in values.items():
        if not (is_bool(value) or (isinstance(value, int) and value in (0, 1))):
            raise TypeError(f"{name} is {shown(value)}; expected True or False")


def is_among(value: Any, choices: Iterable[Any]) -> bool:
    """Return whether a value is one of the choices; False for an array."""
    return getattr(value, "ndim", 0) == 0 and any(bool(value == choice) for choice in choices)


def require_count(name: str, value: Any) -> None:
    """Raise a ValueError unless the value is a whole number of at least 1."""
    try:
        fits = not is_bool(value) and value.__index__() >= 1
    except (AttributeError, TypeError):
        fits = False
    if not fits:
        raise ValueError(f"{name} is {shown(value)}; expected a whole number of at least 1")


def suggesting(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that refuses unknown keywords and suggests similar ones.

    Parameters
    ----------
    what : name of the function in the message
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        known = tuple(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: Any, **keywords: Any) -> Any:
            for name in keywords:
                if name not in known:
                    raise TypeError(f"{what} takes no {name!r}{_suggestion(name, known)}")
            return function(*args, **keywords)

        return checked

    return decorate


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    similar = [other for other in known if other.startswith(name)]
    similar = similar or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""


LIKE_HYPHENS = "\N{MINUS SIGN}\N{MODIFIER LETTER MINUS SIGN}\N{HEAVY MINUS SIGN}\N{HYPHEN BULLET}"
"""characters that look like a dash, besides Unicode's dashes"""


class OddDash(NamedTuple):
    """A word of a command line that looks like a flag but does not begin with a hyphen."""

    sign: str
    """the first character, as "EN DASH (U+2013)\""""
    bare: str
    """the word without its dashes"""


def odd_dash(word: str) -> OddDash | None:
    """Find a dash other than a hyphen, or an invisible character before one, at a word's start.

    Word processors and web pages replace hyphens and spaces by en dashes and no-break spaces.
    """
    first, rest = word[:1], word
    while rest and (rest[0].isspace() or unicodedata.category(rest[0]) in ("Cf", "Zs")):
        rest = rest[1:]
    bare = rest
    while bare and (unicodedata.category(bare[0]) == "Pd" or bare[0] in LIKE_HYPHENS):
        bare = bare[1:]
    if bare == rest or first == "-":
        return None
    return OddDash(f"{unicodedata.name(first, 'a character')} (U+{ord(first):04X})", bare)


def listed(words: Iterable[object]) -> str:
    """Return words as a list in a sentence: "a, b and c"."""
    *first, last = [str(word) for word in words] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def same_number(one: str, other: str) -> bool:
    """Tell whether two texts are one whole number, with zeros in front or without.

    Python reads no more than 4300 digits as a number, so the texts are compared.
    """
    return one.isdecimal() and other.isdecimal() and one.lstrip("0") == other.lstrip("0")
