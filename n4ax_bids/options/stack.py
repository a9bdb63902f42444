"""The options of a stack of sections."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from n4ax_bids.arguments import is_among, suggesting
from n4ax_bids.options.base import number, option, require, whole, whole_numbers
from n4ax_bids.options.n4 import N4Options

MODES = ("two_pass", "per_section", "global")


@dataclass(frozen=True)
class StackOptions:
    """The options of a stack of sections, in the order of the steps.

    Raises
    ------
    ValueError
        If a value is outside its range; the message gives the name, the value and the range.
    """

    sections: int | tuple[int, ...] | None = option(
        1, "number of sections, or the first plane of each; None: every plane is a section"
    )
    mask_sigma: float = option(
        2.0, "tissue mask: Gaussian in the plane before Otsu's threshold", unit="pixels"
    )
    mask_sigma_z: float = option(1.0, "tissue mask: the same across planes", unit="planes")
    mask_closing: int = option(
        3, "tissue mask: radius of the disk that closes gaps in a plane; 0 = none", unit="pixels"
    )
    mask_closing_z: int = option(
        2, "tissue mask: half length that closes gaps across planes; 0 = none", unit="planes"
    )
    match: Literal["section", "plane", "none"] = option(
        "section",
        "match the histogram of each section, or of each plane, to that of the stack",
        choices=("section", "plane", "none"),
    )
    tissue_threshold: float = option(
        0.0, "intensities above this are tissue when histograms are matched and profiles smoothed"
    )
    profile_sigma: float = option(
        0.0, "Gaussian that smooths the mean intensity along Z; 0 = none", unit="planes"
    )
    mode: Literal["two_pass", "per_section", "global"] = option(
        "two_pass",
        "correct each section on its own, the whole stack, or both in this order",
        choices=MODES,
    )
    section_spline_mm: float = option(
        2.0, "distance of knots at the first level within a section", unit="mm"
    )
    global_spline_mm: float = option(
        10.0, "distance of knots at the first level in the whole stack", unit="mm"
    )
    shrink_factor: int = option(4, "estimate the field on every n-th voxel of each axis")
    sampling: Literal["mean", "itk"] = option(
        "mean",
        "samples: the means of blocks of voxels, at their centres, or the voxels that ITK's "
        "shrinking takes, at the positions that ITK gives them",
        choices=("mean", "itk"),
    )
    n_iterations: tuple[int, ...] = option(
        (50, 50, 50, 50), "most iterations at each fitting level; one number per level"
    )
    convergence_threshold: float = option(
        0.001, "end a level when the coefficient of variation of the change is not above this"
    )
    histogram_sharpening: tuple[float, float, int] = option(
        (0.15, 0.01, 200),
        "full width at half maximum of the field's histogram (ln of intensity), noise of the "
        "Wiener filter, number of histogram bins",
    )
    scale: Literal["common", "trend", "none"] = option(
        "common",
        "scale of the sections after each was corrected on its own: their medians become equal, "
        "follow a trend that is smooth along Z, or stay as N4 leaves them",
        choices=("common", "trend", "none"),
    )
    scale_sigma: float = option(2.0, "Gaussian of that trend", unit="sections")
    strength: float = option(1.0, "share of the correction, 0 to 1")
    zero_outside: bool = option(True, "set what is outside the mask to 0")

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.type == "float":
                object.__setattr__(self, item.name, number(item.name, getattr(self, item.name)))
            elif item.type == "int":
                object.__setattr__(self, item.name, whole(item.name, getattr(self, item.name)))
            choices = item.metadata["choices"]
            value = getattr(self, item.name)
            if choices:
                require(is_among(value, choices), item.name, value, " or ".join(choices))
        if self.sections is not None:
            several = whole_numbers("sections", self.sections)
            one = not isinstance(self.sections, tuple | list) and len(several) == 1
            object.__setattr__(self, "sections", several[0] if one else several)
        for name, low, high in RANGES:
            value = getattr(self, name)
            holds = math.isfinite(value) and low <= value <= high
            require(holds, name, value, f"{low:g} to {high:g}")
        require(isinstance(self.zero_outside, bool), "zero_outside", self.zero_outside, "a bool")
        checked = self.n4()  # refuses what N4's options refuse
        for name in ("n_iterations", "histogram_sharpening"):
            object.__setattr__(self, name, getattr(checked, name))

    def n4(self, **more: Any) -> N4Options:
        """Return the options of N4 that these contain."""
        return N4Options(
            shrink_factor=self.shrink_factor,
            n_iterations=self.n_iterations,
            convergence_threshold=self.convergence_threshold,
            histogram_sharpening=self.histogram_sharpening,
            **more,
        )


RANGES = (
    ("mask_sigma", 0, 1e4),
    ("mask_sigma_z", 0, 1e4),
    ("mask_closing", 0, 1e3),
    ("mask_closing_z", 0, 1e3),
    ("tissue_threshold", -1e38, 1e38),
    ("profile_sigma", 0, 1e6),
    ("section_spline_mm", 1e-6, 1e9),
    ("global_spline_mm", 1e-6, 1e9),
    ("scale_sigma", 1e-3, 1e6),
    ("strength", 0, 1),
)
"""lowest and highest value of an option"""

# A misspelled option gets a suggestion; the signature stays that of the dataclass.
StackOptions.__init__ = suggesting("StackOptions")(  # type: ignore[method-assign]
    StackOptions.__init__
)
