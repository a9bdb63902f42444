"""Stacks of sections with a known field."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.stack.call import StackResult, correct_stack
from n4ax_bids.options import StackOptions

OPTIONS = StackOptions(
    sections=2,
    shrink_factor=2,
    n_iterations=(15, 15),
    section_spline_mm=14.0,
    global_spline_mm=28.0,
)
"""tests share these, because each other lattice is compiled anew"""
PLAIN = {
    "match": "none",
    "scale": "none",
    "zero_outside": False,
    "shrink_factor": 2,
    "n_iterations": (15, 15),
    "section_spline_mm": 14.0,
    "global_spline_mm": 28.0,
}
"""options of a stack that is divided by its field, and nothing else"""


class Known(NamedTuple):
    image: np.ndarray
    field: np.ndarray
    mask: np.ndarray
    """somewhat larger than the object"""
    inner: np.ndarray
    """the object"""


def ellipsoid(shape=(28, 56, 56), amplitude=0.4, seed=0, radius=1.2) -> Known:
    """An ellipsoid with a smooth field: 1.0 inside, 0.3 outside, semi-axes of a third."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    distance = (z**2 + y**2 + x**2) * 1.5**2
    a, b, c = rng.uniform(-1, 1, 3)
    ramp = a * z + b * y + c * x + 0.5 * (x**2 - y * z)
    field = np.exp(amplitude * ramp / np.abs(ramp).max())
    tissue = np.where(distance <= 1, 1.0, 0.3) + rng.normal(0, 0.02, shape)
    image = (tissue * field).astype(np.float32)
    return Known(image, field.astype(np.float32), distance <= radius**2, distance <= 1)


@cache
def solved() -> StackResult:
    """The ellipsoid corrected with `OPTIONS`, once for all tests of a process."""
    return correct_stack(ellipsoid().image, options=OPTIONS)


def cv(values: np.ndarray) -> float:
    return float(values.std() / values.mean())
