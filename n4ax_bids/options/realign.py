"""The options of realignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
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
        True,
        "realign a second time, to the mean of the volumes realigned to the reference (of 48 of "
        "them, spread over the series, if there are more)",
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
        "voxel size along an axis if that is more",
        unit="mm",
    )
    degree: int = option(3, "degree of the spline during the estimate, 1 to 7")
    quality: float = option(
        0.9,
        "drop the samples that tell least, until this part of the determinant of the normal "
        "equations is left; 1 keeps all",
    )
    jitter: bool = option(
        True, "move each sample by up to a quarter of a voxel at random, always in the same way"
    )
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

    bias: Literal["none", "mean", "reference"] = option(
        "none",
        "divide all volumes by one bias field, which N4 finds in the mean of the realigned "
        "volumes or in the image to which they were realigned; the motion is estimated before",
        choices=("none", "mean", "reference"),
    )
    bias_mask: Literal["auto", "head", "brain", "otsu", "none"] = option(
        "auto",
        "where that field is estimated: in the brain or the head that is found, or in the voxels "
        "above Otsu's threshold, or in all voxels",
        choices=("auto", "head", "brain", "otsu", "none"),
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


PRESETS = {"standard": RealignOptions(), "spm": RealignOptions(fwhm=5.0, degree=2)}
PRESET_HELP = {
    "standard": "the defaults: the smoothing follows the voxel size",
    "spm": "the smoothing (5 mm) and the degree (2) of SPM12, for comparison with its results",
}
CITATIONS = {
    "realign": {
        "cite": "Friston et al., 1995",
        "text": "Friston KJ, Ashburner J, Frith CD, Poline JB, Heather JD, Frackowiak RSJ. "
        "Spatial registration and normalization of images. Human Brain Mapping 3(3), 165–189, "
        "1995. doi:10.1002/hbm.460030303",
        "bib": "@article{realign,\n  author = {Friston, K. J. and Ashburner, J. and Frith, C. D. "
        "and Poline, J. B. and Heather, J. D. and Frackowiak, R. S. J.},\n  title = {Spatial "
        "registration and normalization of images},\n  journal = {Human Brain Mapping},\n  "
        "volume = {3},\n  number = {3},\n  pages = {165--189},\n  year = {1995},\n  doi = "
        "{10.1002/hbm.460030303}\n}",
    }
}
MEASURES: tuple[tuple[str, str, str, Callable[[Mapping[str, Any]], float | int | None]], ...] = (
    ("fd_mean", "mean FD", "mean framewise displacement, mm", lambda d: d["fd_mean"]),
    ("fd_max", "largest FD", "largest framewise displacement, mm", lambda d: d["fd_max"]),
)
"""column, name on pages, meaning, and how it is found in the details"""


def sloppy(options: RealignOptions) -> RealignOptions:
    """Return options for quick trials: one pass, few steps, samples far apart."""
    return replace(
        options,
        register_to_mean=False,
        max_iterations=min(options.max_iterations, 8),
        separation=max(options.separation, 8.0),
    )


def paragraph(o: RealignOptions, preset: str, changed: bool) -> str:
    """Return sentences that state every option, for the methods text; [@key] is a citation."""
    reference = o.reference if isinstance(o.reference, str) else f"volume {o.reference}"
    passes = (
        "realigned to it and then to the mean of the volumes realigned in this way (at most 48, "
        "spread over the series)"
    )
    if not o.register_to_mean:
        passes = "realigned to it"
    smooth = "of 5 mm, or of 1.6 times the voxel size along an axis if that is more,"
    if o.fwhm is not None:
        smooth = f"of {o.fwhm:g} mm"
    gradient = "the reference" if o.form == "reference" else "the moving volume"
    order = "all volumes from no motion"
    if o.sequential:
        order = f"each volume from the motion of the one before, divided by {o.start_shrink:g}"
    masked = " Voxels outside the grid of any volume were set to 0." if o.write_mask else ""
    some = ", some of them changed" if changed else ""
    return (
        f"The options were those of the preset {preset}{some}. The reference was {reference} of "
        f"the series; the volumes were {passes}. Both images were smoothed by a Gaussian with a "
        f"full width at half maximum {smooth} and sampled every {o.separation:g} mm"
        f"{' with a random shift' if o.jitter else ''}; the least informative samples were left "
        f"out down to a quality of {o.quality:g}. The steps took their gradient from {gradient}, "
        f"began {order}, were multiplied by {o.damping:g}, and ended three steps after the mean "
        f"squared residual fell by less than {o.tolerance:g} of itself, or after "
        f"{o.max_iterations} steps. Volumes were interpolated by B-splines of degree {o.degree} "
        f"during the estimate and of degree {o.write_degree} when they were written, with the "
        f"boundary rule {o.boundary}.{masked}"
    )
