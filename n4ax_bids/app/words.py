"""Single words of the command line, read and checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any


def positive(kind: type) -> Callable[[str], Any]:
    """Return a reader of numbers above 0."""

    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}; expected a number above 0")
        return value

    number.__name__ = kind.__name__  # argparse shows it
    return number


def memory(text: str) -> float:
    """Read a number of GB, or one with its unit."""
    found = re.fullmatch(r"(.*?)\s*([KMGT]?)B?", text, flags=re.IGNORECASE)
    number, unit = found.groups() if found else (text, "")
    try:
        value = positive(float)(number)
    except ValueError:
        value = None
    if value is None:
        raise argparse.ArgumentTypeError(f"{text}; expected GB, or a number with K, M, G or T")
    return value * 1000.0 ** ("KMGT".index(unit.upper() or "G") - 2)


def label(prefix: str) -> Callable[[str], str]:
    """Return a reader of labels with or without a prefix."""
    return lambda text: text.removeprefix(prefix)


def desc(text: str) -> str:
    """Read a label for the corrected images."""
    if not re.fullmatch(r"[0-9a-zA-Z+]+", text) or text in ("biasfield", "biaslattice"):
        raise argparse.ArgumentTypeError(
            f"{text}; expected letters and digits, and neither biasfield nor biaslattice"
        )
    return text


def device(text: str) -> str:
    """Read a device's name."""
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}; expected auto, cpu, gpu or gpu:N")
    return text
