"""The options of the tissue method, its presets, and its sentences for the methods text."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from n4ax_bids.arguments import is_among, shown, suggesting
from n4ax_bids.options.base import number, option, require, whole

CONTRASTS: dict[str, tuple[str, ...]] = {
    "unknown": ("class1", "class2", "class3"),
    "T1w": ("CSF", "GM", "WM"),
    "T2w": ("WM", "GM", "CSF"),
    "PDw": ("WM", "GM", "CSF"),
    "FLAIR": ("CSF", "WM", "GM"),
}
"""Tissues from dark to bright in each contrast."""

MISFIT = "sd over regions of 25 mm of what classes and field leave, ln of intensity"


@dataclass(frozen=True)
class TissueOptions:
    """The options of the tissue method; the defaults are the preset `default`.

    Raises
    ------
    ValueError
        If a value is outside its range; the message gives the name, the value and the range.
    """

    block_mm: float = option(
        2.0, "size of the blocks of voxels whose mean the estimate uses", unit="mm"
    )
    n_classes: int = option(6, "Gaussian classes of the logarithm of the intensity, 3 to 16")
    least_sd: float = option(0.01, "smallest standard deviation of a class, ln of intensity")
    homogeneity: float = option(
        1.0, "how strongly blocks that differ from their neighbours lose weight; 0 for not at all"
    )
    balance: float = option(
        0.3, "power by which frequent intensities lose weight, so that no tissue rules alone"
    )
    knots: float = option(60.0, "distance of the knots of the field", unit="mm")
    stiffness: float = option(
        1e10, "weight of the mean square third derivative of the field (mm^6)"
    )
    softening: float = option(
        6.0,
        "power by which the stiffness falls where ln of the field varies by more than 0.16 (sd); "
        "0 for no change",
    )
    most_rounds: int = option(25, "most rounds of classes and field")
    convergence: float = option(
        6e-4, "a round that changes ln of the field by less than this (sd) is the last"
    )
    largest_misfit: float = option(
        0.04,
        "misfit above which the result is replaced by that of a coarse N4: sd of what regions of "
        "25 mm differ from their classes and the field, ln of intensity",
    )
    contrast: Literal["unknown", "T1w", "T2w", "PDw", "FLAIR"] = option(
        "unknown",
        "contrast of the image, by which tissues are named in posterior maps",
        choices=tuple(CONTRASTS),
    )
    posteriors: bool = option(False, "make maps of three tissues: the probability at each voxel")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "int":
                object.__setattr__(self, item.name, whole(item.name, value))
            elif item.type == "float":
                object.__setattr__(self, item.name, number(item.name, value))
            elif item.type == "bool":
                require(isinstance(value, bool), item.name, value, "True or False")
            else:
                choices = item.metadata["choices"]
                require(is_among(value, choices), item.name, value, " or ".join(choices))
        for name, low, high in (
            ("block_mm", 0.01, 1000),
            ("n_classes", 3, 16),
            ("least_sd", 1e-4, 1),
            ("homogeneity", 0, 8),
            ("balance", 0, 1),
            ("knots", 0.1, 1e6),
            ("stiffness", 0, 1e20),
            ("softening", 0, 100),
            ("most_rounds", 1, 1000),
            ("convergence", 0, 1),
        ):
            value = getattr(self, name)
            require(low <= value <= high, name, value, f"{low:g} to {high:g}")
        misfit = self.largest_misfit
        require(0 <= misfit < math.inf, "largest_misfit", misfit, "at least 0")

    @property
    def tissues(self) -> tuple[str, ...]:
        """Labels of the posterior maps, from the darkest tissue to the brightest."""
        return CONTRASTS[self.contrast]


# A misspelled option gets a suggestion; the signature stays that of the dataclass.
TissueOptions.__init__ = suggesting("TissueOptions")(  # type: ignore[method-assign]
    TissueOptions.__init__
)

PRESETS: dict[str, TissueOptions] = {"default": TissueOptions()}
"""Named sets of options; `default` is `TissueOptions()`."""

PRESET_HELP: dict[str, str] = {"default": "for brains and heads of any contrast"}


def sloppy(options: TissueOptions) -> TissueOptions:
    """Return options for quick trials: blocks of twice the size, three rounds."""
    return replace(options, block_mm=2 * options.block_mm, most_rounds=min(3, options.most_rounds))


def has_map(options: TissueOptions, label: str) -> bool:
    """Return whether a solve with these options makes the posterior map of a tissue."""
    return options.posteriors and label in options.tissues


def require_options(options: Any) -> TissueOptions:
    """Return options; for None, the preset `default`.

    Raises
    ------
    TypeError
        If they are anything else, such as the name of a preset or a dictionary.
    """
    if options is None:
        return TissueOptions()
    if isinstance(options, TissueOptions):
        return options
    remedy = "TissueOptions(**options)" if isinstance(options, dict) else "TissueOptions(...)"
    raise TypeError(f"options is {shown(options)}; expected TissueOptions: pass {remedy}")


def paragraph(o: TissueOptions, preset: str, changed: bool) -> str:
    """Return sentences that state every option; [@key] is a citation."""
    some = ", some of them changed" if changed else ""
    maps = ""
    if o.posteriors:
        maps = f" Posterior maps of {', '.join(o.tissues)} (contrast: {o.contrast}) were written."
    return (
        f"The options were those of the preset {preset}{some}. The logarithm of means of "
        f"{o.block_mm:g} mm blocks was modelled as {o.n_classes} Gaussian classes (standard "
        f"deviation at least {o.least_sd:g}) and a uniform class of outliers, seen through a "
        f"smooth field [@wells; @vanleemput; @unified]. Blocks counted less where they differ "
        f"from their neighbours (power {o.homogeneity:g}) and where their intensity is frequent "
        f"(power {o.balance:g}). The field was a cubic B-spline with knots {o.knots:g} mm apart "
        f"and a penalty of {o.stiffness:g} mm^6 on its mean square third derivative, "
        f"lowered with the power {o.softening:g} of its strength where it is strong. Classes and "
        f"field were estimated in turn in at most {o.most_rounds} rounds, until one changed the "
        f"field by less than {o.convergence:g}. Where the misfit exceeded {o.largest_misfit:g}, "
        f"the field is that of N4 with a coarse spline [@n4].{maps}"
    )


CITATIONS: dict[str, dict[str, str]] = {
    "wells": {
        "cite": "Wells et al., 1996",
        "text": "Wells WM, Grimson WEL, Kikinis R, Jolesz FA. Adaptive segmentation of MRI data. "
        "IEEE Trans Med Imaging 15(4), 1996. doi 10.1109/42.511747.",
        "bib": "@article{wells,\n  author = {Wells, W. M. and Grimson, W. E. L. and Kikinis, R. "
        "and Jolesz, F. A.},\n  title = {Adaptive segmentation of {MRI} data},\n  journal = {IEEE "
        "Transactions on Medical Imaging},\n  volume = {15},\n  number = {4},\n  year = {1996},\n"
        "  doi = {10.1109/42.511747}\n}",
    },
    "vanleemput": {
        "cite": "Van Leemput et al., 1999",
        "text": "Van Leemput K, Maes F, Vandermeulen D, Suetens P. Automated model-based bias "
        "field correction of MR images of the brain. IEEE Trans Med Imaging 18(10), 1999. "
        "doi 10.1109/42.811268.",
        "bib": "@article{vanleemput,\n  author = {Van Leemput, K. and Maes, F. and Vandermeulen, "
        "D. and Suetens, P.},\n  title = {Automated model-based bias field correction of {MR} "
        "images of the brain},\n  journal = {IEEE Transactions on Medical Imaging},\n  volume = "
        "{18},\n  number = {10},\n  year = {1999},\n  doi = {10.1109/42.811268}\n}",
    },
    "unified": {
        "cite": "Ashburner and Friston, 2005",
        "text": "Ashburner J, Friston KJ. Unified segmentation. NeuroImage 26(3), 2005. "
        "doi 10.1016/j.neuroimage.2005.02.018.",
        "bib": "@article{unified,\n  author = {Ashburner, John and Friston, Karl J.},\n  title = "
        "{Unified segmentation},\n  journal = {NeuroImage},\n  volume = {26},\n  number = {3},\n"
        "  year = {2005},\n  doi = {10.1016/j.neuroimage.2005.02.018}\n}",
    },
}
"""The papers of the method, by citation key."""
