"""The numbers of an image: their names, their meaning, and which of them are outliers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 5
"""smallest number of images among which there can be outliers"""
WHISKER = 1.5
"""interquartile ranges from the box to outliers (Tukey 1977), as in the plots of MRIQC"""


class Measure(NamedTuple):
    """A number that every image has or may have."""

    name: str
    """column of the table"""
    label: str
    """its name on the pages"""
    meaning: str
    plotted: bool = True


COMMON = (
    Measure("field_min", "field, lowest", "lowest value of the field inside the mask", False),
    Measure("field_max", "field, highest", "highest value of the field inside the mask", False),
    Measure("field_ratio", "field ratio", "highest / lowest value of the field in the mask"),
    Measure("field_cv", "field CV", "coefficient of variation of the field inside the mask"),
    Measure("cv_before", "CV before", "coefficient of variation of the image inside the mask"),
    Measure("cv_after", "CV after", "the same of the corrected image"),
    Measure("white_cv_before", "white CV before", "coefficient of variation of white matter"),
    Measure("white_cv_after", "white CV after", "the same, in the corrected image"),
    Measure("grey_cv_before", "grey CV before", "coefficient of variation of grey matter"),
    Measure("grey_cv_after", "grey CV after", "the same, in the corrected image"),
    Measure(
        "cjv_before",
        "CJV before",
        "coefficient of joint variation: (SD of white + SD of grey) / distance of their means",
    ),
    Measure("cjv_after", "CJV after", "the same, in the corrected image"),
    Measure("mask_ml", "mask, ml", "volume of the mask"),
    Measure(
        "non_positive",
        "values ≤ 0",
        "voxels inside the mask with an intensity of 0 or less",
        False,
    ),
)


class Box(NamedTuple):
    """The five numbers of a box plot."""

    low: float
    """end of the lower whisker: the lowest value that is not an outlier"""
    first: float
    median: float
    third: float
    high: float

    def holds(self, value: float) -> bool:
        """Return whether a value lies between the ends of the whiskers."""
        return self.low <= value <= self.high


def box(values: Sequence[float]) -> Box | None:
    """Return quartiles and whiskers of values; None if there are too few."""
    array = np.asarray(values, float)
    if array.size < FEWEST:
        return None
    first, median, third = (float(q) for q in np.percentile(array, (25, 50, 75)))
    reach = WHISKER * (third - first)
    inside = array[(array >= first - reach) & (array <= third + reach)]
    return Box(float(inside.min()), first, median, third, float(inside.max()))


def number(values: Mapping[str, object], name: str) -> float | None:
    """Return a finite number of a record; None if there is none."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def percent(ratio: float) -> str:
    """Return how far a ratio is from 1, in percent, as text such as "−12.5 %"."""
    return f"{100 * (ratio - 1):+.3g} %".replace("-", "−")


def text(value: float | None) -> str:
    """Return a number as text: three digits; whole and large numbers without decimals."""
    if value is None:
        return "n/a"
    whole = isinstance(value, int) or 1e3 <= abs(value) < 1e9
    return f"{value:.0f}" if whole else f"{value:.3g}"
