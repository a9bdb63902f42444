"""Declaration of options and checks of their values, for every method.

Command-line flags, Nipype traits and sidecar keys are read from the dataclasses that are declared
with `option`, so that names, defaults and help texts are written only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

from n4ax_bids.arguments import is_bool, shown

FIELD_SCALES = ("as-is", "mean", "median")
"""what may be 1 inside the mask: nothing, the mean or the median of the field"""
MASK_WORDS = ("otsu", "auto", "head", "brain")
"""Words for masks that are found in the image itself."""
MASK_PROGRAMS = ("synthstrip", "hd-bet")
"""Words for masks that programs of other packages find in an image file."""


def option(
    default: Any, help: str, *, unit: str | None = None, choices: tuple[Any, ...] = ()
) -> Any:
    """Declare a dataclass field with its help text, unit and choices."""
    return field(default=default, metadata={"help": help, "unit": unit, "choices": choices})


def _n_axes(value: Any) -> int:
    return int(getattr(value, "ndim", 0))


def whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    """Return whole numbers as a tuple; a single number becomes a tuple of one."""
    if isinstance(value, str | bytes | bytearray):
        raise ValueError(f"{name} is {shown(value)}; expected whole numbers such as (50, 50)")
    if isinstance(value, Sequence) or _n_axes(value):
        return tuple(whole(name, v) for v in value)
    return (whole(name, value),)


def whole(name: str, value: Any) -> int:
    """Return a whole number; a ValueError names the option."""
    try:
        if is_bool(value) or _n_axes(value):
            raise ValueError
        found = int(value)
        if found != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {shown(value)}; expected a whole number") from None
    return found


def number(name: str, value: Any) -> float:
    """Return a number as a float; a ValueError names the option."""
    try:
        if is_bool(value) or isinstance(value, str | bytes | bytearray) or _n_axes(value):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {shown(value)}; expected a number") from None


def require(holds: bool, name: str, value: Any, expected: str) -> None:
    """Raise a ValueError with option, value and expectation, unless the condition holds."""
    if not holds:
        raise ValueError(f"{name} is {shown(value)}; expected {expected}")
