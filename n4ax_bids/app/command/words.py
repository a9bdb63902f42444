"""Reads and checks single words of the command line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from n4ax_bids.app.machine.limits import all_memory
from n4ax_bids.arguments import same_number


def positive(kind: type) -> Callable[[str], Any]:
    """Return a reader of numbers above 0."""

    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}; expected a number above 0")
        return value

    number.__name__ = kind.__name__  # argparse shows it
    return number


def whole(text: str) -> int:
    """Read a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}; expected a whole number of at least 0")
    return value


whole.__name__ = "int"  # argparse and the descriptor show it


def series(kind: type) -> Callable[[str], list[Any]]:
    """Return a reader of one or several numbers, such as 50x50x30 (as in ANTs) or 50,50,30."""

    def numbers(text: str) -> list[Any]:
        parts = text.strip("[]").lower().replace(",", "x").split("x")
        return [kind(part) for part in parts]

    numbers.__name__ = kind.__name__  # argparse and the descriptor show it
    return numbers


class Joined(argparse.Action):
    """Join the lists that `series` returns for each word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, [each for part in values for each in part])


def several(none: str) -> Callable[[str], int | None]:
    """Return a reader of whole numbers, and of a word that stands for None."""

    def number(text: str) -> int | None:
        if text == none:
            return None
        if not text.isdecimal():
            raise argparse.ArgumentTypeError(f"{text}; expected a whole number or {none}")
        return int(text)

    number.__name__ = "int"  # argparse and the descriptor show it
    return number


class OneOrSeveral(argparse.Action):
    """Keep a single value as it is, and several as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


KINDS = ("sub", "ses", "run")
"""Prefixes that a label may have by mistake, written without the hyphen."""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """Return " (did you mean …?)" if a known word resembles the given one, else "".

    The same number with other leading zeros is preferred, then the same word in another case, then
    a word that looks similar.
    """
    text, texts = str(word), [str(each) for each in known]
    near = [each for each in texts if same_number(each, text)]
    plain = text.lower()
    near += [each for each in texts if each.lower() == plain]
    near += [each for each in texts if plain in (f"{kind}{each}".lower() for kind in KINDS)]
    if not text.isdecimal():  # 3 is not a mistyped 2
        near += difflib.get_close_matches(text, texts, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near and near[0] != text else ""


def memory(text: str) -> int:
    """Read a number of MB, as in fMRIPrep, or a number with a unit; return bytes.

    K, M, G and T, with or without B, are powers of 1000. KiB, MiB, GiB and TiB are powers of 1024.
    B alone means bytes.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not a size, or more than the machine has; one line with the value as it was read.
    """
    found = re.fullmatch(r"(.*?)\s*(?:([KMGT])(iB|B)?|(B))?", text.strip(), flags=re.IGNORECASE)
    number, unit, ending, plain = found.groups() if found else (text, None, None, None)
    try:
        value = positive(float)(number)
    except ValueError:
        value = None
    if value is None:
        raise argparse.ArgumentTypeError(
            f"{text}; expected MB, or a number with its unit, as 8GB, 800M or 8GiB"
        )
    base = 1024 if (ending or "").lower() == "ib" else 1000
    power = 0 if plain else 1 + "KMGT".index((unit or "M").upper())
    n_bytes = max(1, round(value * base**power))
    there = all_memory()
    if n_bytes > there:
        read = "" if unit or plain else f", read as MB ({n_bytes / 1e9:,.1f} GB)"
        raise argparse.ArgumentTypeError(
            f"{text}{read}; the machine has {there / 1e9:,.1f} GB ({there // 10**6} MB); "
            "expected no more than that"
        )
    return n_bytes


def label(prefix: str) -> Callable[[str], str]:
    """Return a reader of labels, which may be written with a prefix."""
    return lambda text: text.removeprefix(prefix)


def desc(text: str) -> str:
    """Read the desc label of the corrected images."""
    if not re.fullmatch(r"[0-9a-zA-Z+]+", text) or text in ("biasfield", "biaslattice"):
        raise argparse.ArgumentTypeError(
            f"{text}; expected letters and digits, and neither biasfield nor biaslattice"
        )
    return text


def device(text: str) -> str:
    """Read the name of a device."""
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}; expected auto, cpu, gpu or gpu:N")
    return text


def number_or_word(text: str) -> int | str:
    """Return a whole number where the text is one, else the text; the options check both."""
    try:
        return int(text)
    except ValueError:
        return text
