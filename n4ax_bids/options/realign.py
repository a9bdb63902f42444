"""The options of realignment."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from n4ax_bids.arguments import is_among, is_bool, shown, suggesting
from n4ax_bids.options.base import number, option, require, whole

MOST = 10**6
"""steps; far more than any search takes"""


@dataclass(frozen=True)
class RealignOptions:
    """The options of a rigid realignment; most defaults are those of SPM12.

    Raises
    ------
    ValueError
        If a value is outside its range; the message gives the name, the value and the range.
    """

    reference: int | Literal["middle", "mean"] = option(
        0,
        "volume to which the others are realigned, counted from 0; or the middle one, or the mean "
        "of the series",
    )
    register_to_mean: bool = option(
        True, "realign a second time, to the mean of the volumes realigned to the reference"
    )
    form: Literal["reference", "forward"] = option(
        "reference",
        "take the gradient from the reference, once, or from the moving volume at each step",
        choices=("reference", "forward"),
    )
    separation: float = option(4.0, "distance of the samples", unit="mm")
    fwhm: float | None = option(
        None,
        "width of the Gaussian that smooths both images first; default: 5 mm, or 1.6 times the "
        "largest voxel size if that is more",
        unit="mm",
    )
    degree: int = option(3, "degree of the spline during the estimate, 1 to 7")
    quality: float = option(
        0.9,
        "drop the samples that tell least, until this part of the determinant of the normal "
        "equations is left; 1 keeps all",
    )
    jitter: bool = option(True, "move each sample by a random part of a voxel, always the same")
    max_iterations: int = option(64, "most steps for a volume")
    tolerance: float = option(
        1e-8, "end three steps after the mean squared residual falls by less than this part"
    )
    damping: float = option(1.0, "part of each step that is taken, above 0, at most 1")
    sequential: bool = option(
        False, "start each volume from the motion of the one before, one after the other"
    )
    start_shrink: float = option(1.2, "divide that motion by this, 1 to 2.5; only with sequential")
    boundary: Literal["reflect", "wrap"] = option(
        "reflect",
        "what is assumed beyond the grid: mirrored, or repeated",
        choices=("reflect", "wrap"),
    )
    write_degree: int = option(4, "degree of the spline that resamples the volumes, 0 to 7")
    write_mask: bool = option(
        False, "set voxels to 0 in all volumes that lie outside the grid of any of them"
    )

    def __post_init__(self) -> None:
        if not isinstance(self.reference, str):
            object.__setattr__(self, "reference", whole("reference", self.reference))
        reference: Any = self.reference
        require(
            reference in ("middle", "mean") or (not isinstance(reference, str) and reference >= 0),
            "reference",
            reference,
            "the number of a volume, middle or mean",
        )
        for name in ("degree", "write_degree", "max_iterations"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.fwhm is not None:
            object.__setattr__(self, "fwhm", number("fwhm", self.fwhm))
            require(0 <= self.fwhm < 1e3, "fwhm", self.fwhm, "0 mm or more")
        for name in ("separation", "quality", "tolerance", "damping", "start_shrink"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name in ("register_to_mean", "jitter", "sequential", "write_mask"):
            value = getattr(self, name)
            require(is_bool(value), name, value, "True or False")
        self._require_ranges()

    def _require_ranges(self) -> None:
        for name in ("degree", "write_degree"):
            require(0 <= getattr(self, name) <= 7, name, getattr(self, name), "0 to 7")
        require(self.degree > 0, "degree", self.degree, "1 to 7, for a gradient")
        require(
            0 < self.max_iterations <= MOST, "max_iterations", self.max_iterations, f"1 to {MOST}"
        )
        require(0 < self.separation < 1e3, "separation", self.separation, "above 0 mm")
        require(0 < self.quality <= 1, "quality", self.quality, "above 0, at most 1")
        require(0 <= self.tolerance < 1, "tolerance", self.tolerance, "0 or more, below 1")
        require(0 < self.damping <= 1, "damping", self.damping, "above 0, at most 1")
        require(1 <= self.start_shrink <= 2.5, "start_shrink", self.start_shrink, "1 to 2.5")
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata["choices"]
            if choices:
                require(is_among(value, choices), item.name, value, " or ".join(choices))


# A misspelled option gets a suggestion; the signature stays that of the dataclass.
RealignOptions.__init__ = suggesting("RealignOptions")(  # type: ignore[method-assign]
    RealignOptions.__init__
)


def require_options(options: Any) -> RealignOptions:
    """Return options, the default ones for None.

    Raises
    ------
    TypeError
        If they are something else.
    """
    if options is None:
        return RealignOptions()
    if not isinstance(options, RealignOptions):
        raise TypeError(f"options is {shown(options)}; expected RealignOptions(...)")
    return options
