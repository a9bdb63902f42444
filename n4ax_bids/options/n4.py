"""The options of N4, their presets, and the check of arguments that should be options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from n4ax_bids.arguments import is_among, shown, suggesting
from n4ax_bids.options.base import number, option, require, whole, whole_numbers

NO_STOP = 1e-6
"""A float32 field cannot reach a threshold of this or less: every iteration is run."""


@dataclass(frozen=True)
class N4Options:
    """The options of N4; the defaults are those of the ANTs program.

    Raises
    ------
    ValueError
        If a value is outside its range; the message gives the name, the value and the range.
    """

    shrink_factor: int = option(4, "estimate the field on every n-th voxel of each axis")
    shrink_mm: float | None = option(
        None,
        "in place of shrink_factor: on each axis the n that brings samples closest to this far "
        "apart; an axis keeps 32 samples, or as many as shrink_factor leaves it",
        unit="mm",
    )
    n_iterations: tuple[int, ...] = option(
        (50, 50, 50, 50), "most iterations at each fitting level; one number per level"
    )
    convergence_threshold: float = option(
        0.0,
        "end a level when the coefficient of variation of the field's change is not above this",
    )
    bspline_fitting_distance: float | None = option(
        None, "knot spacing of the first level; the image is padded to whole spans", unit="mm"
    )
    bspline_order: int = option(3, "order of the B-spline, 1 to 9")
    n_control_points: tuple[int, ...] | None = option(
        None, "control points of the first level on each axis; default 4, at least order + 1"
    )
    histogram_sharpening: tuple[float, float, int] = option(
        (0.15, 0.01, 200),
        "full width at half maximum of the field's histogram (ln of intensity), noise of the "
        "Wiener filter, number of histogram bins",
    )
    over_relaxation: float = option(
        1.0, "factor on each iteration's update; above 1 fewer iterations are needed"
    )
    refine: bool = option(True, "double the number of spans from one level to the next")
    convergence_statistic: Literal["itk", "exact"] = option(
        "itk",
        "stop on ITK's running float32 statistic, or on the exact coefficient of variation",
        choices=("itk", "exact"),
    )
    itk_version: Literal["5", "6"] = option(
        "5",
        "follow released ITK 5 (ANTs 2.6, SimpleITK 2.5), whose histogram can miss the minimum, "
        "or ITK 6",
        choices=("5", "6"),
    )
    shrink_start: tuple[int, ...] | None = option(
        None, "first voxel used on each axis when shrinking; default: the one that ITK takes"
    )
    adapt: bool = option(
        False,
        "in place of shrink_factor and bspline_fitting_distance: about 30,000 samples in the "
        "mask, and a first knot spacing of 1.8 times the mask's length; meant with "
        "over_relaxation 1.8, as in the preset adaptive",
    )
    precision: Literal["float32", "float64"] = option(
        "float32", "arithmetic of the solve; ITK's is float32", choices=("float32", "float64")
    )

    def __post_init__(self) -> None:
        for name in ("n_iterations", "n_control_points", "shrink_start"):
            value = getattr(self, name)
            if value is not None or name == "n_iterations":
                object.__setattr__(self, name, whole_numbers(name, value))
        require(
            isinstance(self.histogram_sharpening, Sequence)
            and not isinstance(self.histogram_sharpening, str | bytes | bytearray)
            and len(self.histogram_sharpening) == 3,
            "histogram_sharpening",
            self.histogram_sharpening,
            "a width, a noise and a number of bins",
        )
        fwhm, noise, n_bins = self.histogram_sharpening
        sharpening = (
            number("width of histogram sharpening", fwhm),
            number("noise of histogram sharpening", noise),
            whole("number of histogram bins", n_bins),
        )
        object.__setattr__(self, "histogram_sharpening", sharpening)
        for name in (
            "convergence_threshold",
            "over_relaxation",
            "bspline_fitting_distance",
            "shrink_mm",
        ):
            may_be_none = name in ("bspline_fitting_distance", "shrink_mm")
            if getattr(self, name) is not None or not may_be_none:
                object.__setattr__(self, name, number(name, getattr(self, name)))
        for name in ("n_control_points", "shrink_start"):
            require(getattr(self, name) != (), name, (), "one number for each axis")
        for name in ("refine", "adapt"):
            require(
                isinstance(getattr(self, name), bool), name, getattr(self, name), "True or False"
            )
        object.__setattr__(self, "shrink_factor", whole("shrink_factor", self.shrink_factor))
        object.__setattr__(self, "bspline_order", whole("bspline_order", self.bspline_order))

        self._require_ranges()

    def _require_ranges(self) -> None:
        require(self.shrink_factor >= 1, "shrink_factor", self.shrink_factor, "at least 1")
        require(
            0 < len(self.n_iterations)
            and self.n_iterations[0] >= 1
            and min(self.n_iterations) >= 0
            and max(self.n_iterations) < 2**31,
            "n_iterations",
            self.n_iterations,
            "one number per level, the first at least 1, none negative or above 2147483647",
        )
        require(
            self.shrink_mm is None or 1e-6 <= self.shrink_mm <= 1e6,
            "shrink_mm",
            self.shrink_mm,
            "a positive number of mm, 1e-6 to 1e6",
        )
        threshold = self.convergence_threshold
        require(
            math.isfinite(threshold) and threshold >= 0, "convergence_threshold", threshold, ">= 0"
        )
        distance = self.bspline_fitting_distance
        require(
            distance is None or 1e-6 <= distance <= 1e9,
            "bspline_fitting_distance",
            distance,
            "a positive number of mm, 1e-6 to 1e9",
        )
        require(1 <= self.bspline_order <= 9, "bspline_order", self.bspline_order, "1 to 9")
        points = self.n_control_points
        require(
            points is None or min(points) > self.bspline_order,
            "n_control_points",
            points,
            f"at least order + 1 = {self.bspline_order + 1} on each axis",
        )
        require(
            points is None or distance is None,
            "n_control_points",
            points,
            "not given together with bspline_fitting_distance",
        )
        others = ("shrink_mm", "bspline_fitting_distance", "n_control_points")
        for name in others if self.adapt else ():
            value = getattr(self, name)
            require(value is None, name, value, "not given together with adapt")
        fwhm, noise, n_bins = self.histogram_sharpening
        require(
            1e-6 <= fwhm <= 1e6 and 1e-12 <= noise <= 1e12 and 2 <= n_bins <= 2**16,
            "histogram_sharpening",
            self.histogram_sharpening,
            "a width of 1e-6 to 1e6, a noise of 1e-12 to 1e12 and 2 to 65536 bins",
        )
        relaxation = self.over_relaxation
        require(0 < relaxation < 2, "over_relaxation", relaxation, "between 0 and 2")
        for item in fields(self):
            choices = item.metadata["choices"]
            if choices:
                value = getattr(self, item.name)
                require(is_among(value, choices), item.name, value, " or ".join(choices))


# A misspelled option gets a suggestion; the signature stays that of the dataclass.
N4Options.__init__ = suggesting("N4Options")(N4Options.__init__)  # type: ignore[method-assign]

PRESETS: dict[str, N4Options] = {
    "standard": N4Options(shrink_mm=4.0),
    "ants": N4Options(),
    "fmriprep": N4Options(
        n_iterations=(50,) * 5, convergence_threshold=1e-7, bspline_fitting_distance=200.0
    ),
    "mriqc": N4Options(n_iterations=(50,) * 4),
    "simpleitk": N4Options(shrink_factor=1, convergence_threshold=1e-3),
    "fast": N4Options(shrink_factor=1, n_iterations=(25, 25, 15, 10), over_relaxation=1.95),
    "n4ax": N4Options(shrink_factor=1, n_iterations=(8, 12, 12, 8), over_relaxation=1.8),
    "robust": N4Options(
        shrink_factor=1, n_iterations=(50, 50, 30, 20), convergence_threshold=1.5e-3
    ),
    "adaptive": N4Options(adapt=True, over_relaxation=1.8),
}
"""Named sets of options; `ants` is `N4Options()`."""

DEFAULT_PRESET = "standard"
"""The preset of `n4ax-bids`; the replacements of ANTs' program and node have ANTs' defaults."""

PRESET_HELP: dict[str, str] = {
    "standard": "as ants, with samples about 4 mm apart on each axis: shrink 4 at 1 mm, 1 at 4 mm",
    "ants": "the ANTs program's defaults: shrink 4, 4 x 50 iterations, all of them run",
    "fmriprep": "fMRIPrep's final N4: 5 x 50 iterations, knots 200 mm apart. Made for a "
    "white-matter weight image: without one its fifth level mistakes tissue contrast for field",
    "mriqc": "MRIQC's N4 after skull stripping: 4 x 50 iterations, all of them run",
    "simpleitk": "SimpleITK's defaults: full resolution, 4 x 50 iterations, threshold 0.001",
    "fast": "full resolution, 25, 25, 15, 10 over-relaxed iterations: nearly the field of 50, 50, "
    "30, 20 plain ones",
    "n4ax": "n4ax's fast set: full resolution, 8, 12, 12, 8 over-relaxed iterations",
    "robust": "n4ax's robust set: full resolution, 50, 50, 30, 20 iterations, threshold 0.0015",
    "adaptive": "4 x 50 over-relaxed iterations, samples and knots that follow the size of the "
    "object in the mask: for rodents, infants, bodies, thick slices",
}

WHY_NOT_FMRIPREP = """\
Why fmriprep is not the default: fMRIPrep gives its last N4 a white-matter weight image. Without
that weight (--weight WM), the preset's fifth level mistakes tissue contrast for field: grey and
white matter end up closer together than the scanner left them.
"""


def sloppy(options: N4Options) -> N4Options:
    """Return options for quick trials: at most two levels of five iterations, shrink 4 or more.

    Their fields are not valid results.
    """
    return replace(
        options,
        shrink_factor=max(4, options.shrink_factor),
        shrink_mm=None,
        n_iterations=tuple(min(n, 5) for n in options.n_iterations[:2]),
    )


def require_options(options: Any) -> N4Options:
    """Return options; for None, the ANTs program's defaults.

    Raises
    ------
    TypeError
        If they are anything else, such as the name of a preset or a dictionary.
    """
    if options is None:
        return N4Options()
    if isinstance(options, N4Options):
        return options
    if isinstance(options, type) and issubclass(options, N4Options):
        remedy = "N4Options()"
    elif isinstance(options, str) and options in PRESETS:
        remedy = f"preset({options!r})"
    elif isinstance(options, dict):
        remedy = "N4Options(**options)"
    else:
        remedy = "N4Options(...) or preset('fast')"
    raise TypeError(f"options is {shown(options)}; expected N4Options: pass {remedy}")


def preset(name: str, **changes: Any) -> N4Options:
    """Return the named set of options with some of them changed.

    Raises
    ------
    ValueError
        If there is no such preset; the message lists all presets.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset is {shown(name)}; expected one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
