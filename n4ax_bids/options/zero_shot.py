"""The options of the zero-shot method, their presets, and their sentences for the methods text."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from n4ax_bids.arguments import is_among, shown, suggesting
from n4ax_bids.options.base import number, option, require, whole


@dataclass(frozen=True)
class ZeroShotOptions:
    """The options of the zero-shot method; the defaults are the preset `brain`.

    Raises
    ------
    ValueError
        If a value is outside its range; the message gives the name, the value and the range.
    """

    n_curves: int = option(4, "how often the tone curve is applied, 1 to 16")
    width: int = option(9, "channels of the network's inner layers; 9 gives 2964 weights")
    downsample: int = option(
        8, "the network sees the image shrunk by this on each axis; an axis keeps 4 samples"
    )
    n_steps: int = option(100, "steps of the optimiser")
    learning_rate: float = option(0.02, "step size of the optimiser Adam")
    weight_decay: float = option(1e-4, "factor on the weights that is added to their gradient")
    gradient_clip: float | None = option(None, "largest norm of a gradient; default: no limit")
    exposure: float = option(
        0.6, "brightness that each region should have in the brightened image, 0 to 1"
    )
    weight_smooth: float = option(1600.0, "weight of the smoothness of the tone map")
    weight_spatial: float = option(1.0, "weight of the contrast between neighbouring regions")
    weight_exposure: float = option(40.0, "weight of the regions' brightness")
    weight_prior: float = option(1.0, "weight of brightened image x bias map = image")
    weight_smooth_bias: float = option(1600.0, "weight of the smoothness of the bias map")
    region_spatial: int = option(
        4, "voxels on each axis of a region whose contrast to its neighbours counts"
    )
    region_exposure: int = option(16, "voxels on each axis of a region whose brightness counts")
    neighbours: Literal["faces", "corners"] = option(
        "faces",
        "neighbours of a region: those that share a face, or those that share only a corner",
        choices=("faces", "corners"),
    )
    block: int = option(
        4, "voxels on each axis that are averaged before the loss is computed, 1 to 16"
    )
    scaled: bool = option(
        True,
        "take downsample, block and regions as voxels of 1 mm: half as many voxels on an axis of "
        "2 mm, a quarter on one of 4 mm; else they are voxels of any size",
    )
    background: bool = option(
        False, "count every voxel in the loss, as the paper does, not only those in the mask"
    )
    n_levels: int = option(
        3, "tissue classes of the rounds that refine the field after the network; 0 for no rounds"
    )
    n_rounds: int = option(20, "rounds that refine the field by tissue classes")
    output: Literal["field", "curve"] = option(
        "field",
        "corrected image of the function zero_shot: image / field, or the brightened image as in "
        "the paper. Commands and nodes write the brightened image beside the other",
        choices=("field", "curve"),
    )
    field_spacing: float = option(
        100.0,
        "distance of the knots of the field; twice that before rounds by tissue classes",
        unit="mm",
    )
    seed: int = option(0, "of the random weights at the start")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "int":
                object.__setattr__(self, item.name, whole(item.name, value))
            elif item.type == "float" or (item.name == "gradient_clip" and value is not None):
                object.__setattr__(self, item.name, number(item.name, value))
            elif item.type == "bool":
                require(isinstance(value, bool), item.name, value, "True or False")
            elif item.metadata["choices"]:
                choices = item.metadata["choices"]
                require(is_among(value, choices), item.name, value, " or ".join(choices))
        self._require_ranges()

    @property
    def refines(self) -> bool:
        """Whether rounds by tissue classes follow the network."""
        return self.n_levels > 1 and self.n_rounds > 0

    def _require_ranges(self) -> None:
        for name, low, high in (
            ("n_curves", 1, 16),
            ("width", 1, 64),
            ("downsample", 1, 64),
            ("n_steps", 1, 100_000),
            ("region_spatial", 1, 256),
            ("region_exposure", 1, 256),
            ("block", 1, 16),
            ("n_levels", 0, 16),
            ("n_rounds", 0, 1000),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            require(low <= value <= high, name, value, f"{low} to {high}")
        for name in ("region_spatial", "region_exposure"):
            size = getattr(self, name)
            expected = f"a multiple of block, {self.block}"
            require(size % self.block == 0, name, size, expected)
        for name in ("learning_rate", "exposure"):
            value = getattr(self, name)
            require(0 < value <= 1, name, value, "above 0, at most 1")
        require(
            1e-6 <= self.field_spacing <= 1e6,
            "field_spacing",
            self.field_spacing,
            "a positive number of mm, 1e-6 to 1e6",
        )
        clip = self.gradient_clip
        require(clip is None or 0 < clip < math.inf, "gradient_clip", clip, "a number above 0")
        for name in ("weight_decay", *WEIGHTS):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "at least 0")


WEIGHTS = (
    "weight_smooth",
    "weight_spatial",
    "weight_exposure",
    "weight_prior",
    "weight_smooth_bias",
)
"""Options that weigh the terms of the loss, in their order."""

# A misspelled option gets a suggestion; the signature stays that of the dataclass.
ZeroShotOptions.__init__ = suggesting("ZeroShotOptions")(  # type: ignore[method-assign]
    ZeroShotOptions.__init__
)

PRESETS: dict[str, ZeroShotOptions] = {
    "brain": ZeroShotOptions(),
    "dixon": ZeroShotOptions(learning_rate=5e-4),
    "paper": ZeroShotOptions(
        learning_rate=5e-3,
        scaled=False,
        exposure=0.6,
        weight_exposure=1.0,
        region_exposure=16,
        background=True,
        n_levels=0,
        output="curve",
    ),
}
"""Named sets of options; `brain` is `ZeroShotOptions()`."""

PRESET_HELP: dict[str, str] = {
    "brain": "for heads: only the mask counts, and the image is divided by a smooth field",
    "dixon": "for water and fat images of the body: brain with the learning rate 0.0005",
    "paper": "the paper read literally: exposure weight 1, the whole image counts, no levels, and "
    "the brightened image itself. Flattens contrast; for comparison only",
}


def sloppy(options: ZeroShotOptions) -> ZeroShotOptions:
    """Return options for quick trials: ten steps, two rounds. Their fields are not valid."""
    return replace(options, n_steps=min(10, options.n_steps), n_rounds=min(2, options.n_rounds))


def require_options(options: Any) -> ZeroShotOptions:
    """Return options; for None, the preset `brain`.

    Raises
    ------
    TypeError
        If they are anything else, such as the name of a preset or a dictionary.
    """
    if options is None:
        return ZeroShotOptions()
    if isinstance(options, ZeroShotOptions):
        return options
    remedy = "ZeroShotOptions(...)"
    if isinstance(options, dict):
        remedy = "ZeroShotOptions(**options)"
    elif isinstance(options, str) and options in PRESETS:
        remedy = f"n4ax_bids.options.zero_shot.PRESETS[{options!r}]"
    raise TypeError(f"options is {shown(options)}; expected ZeroShotOptions: pass {remedy}")


def paragraph(o: ZeroShotOptions, preset: str, changed: bool) -> str:
    """Return sentences that state every option; [@key] is a citation."""
    some = ", some of them changed" if changed else ""
    counted = "every voxel" if o.background else "the voxels of the mask"
    clip = f", norms of gradients limited to {o.gradient_clip:g}" if o.gradient_clip else ""
    apart = f"{o.neighbours.removesuffix('s')} neighbours"
    curve = "; the brightened image was written as well" if o.output == "curve" else ""
    knots = (2 if o.refines else 1) * o.field_spacing
    sizes = "of 1 mm, fewer where they are larger" if o.scaled else "of any size"
    rounds = ""
    if o.refines:
        rounds = (
            f" It was refined in {o.n_rounds} rounds with knots {o.field_spacing:g} mm apart, "
            "each of which describes the histogram of the corrected image by a mixture of "
            f"{o.n_levels} normal distributions, and fits the field to the logarithm of image / "
            "mean of the tissue class."
        )
    return (
        f"The options were those of the preset {preset}{some}. A convolutional network of width "
        f"{o.width}, which saw the image shrunk by {o.downsample} on each axis (voxels {sizes}), "
        f"was fitted to the image alone [@zerodce; @zeroshot], with random weights of seed "
        f"{o.seed} and {o.n_steps} steps of Adam (learning rate {o.learning_rate:g}, weight decay "
        f"{o.weight_decay:g}{clip}). It predicted a tone curve, applied {o.n_curves} times, and a "
        f"bias map. The loss counted {counted} in means of {o.block} voxels on each axis, with "
        f"the weights {o.weight_smooth:g} for the smoothness of the curve's map, "
        f"{o.weight_smooth_bias:g} for that of the bias map, {o.weight_spatial:g} for the "
        f"contrast of {apart} among regions of {o.region_spatial} voxels, {o.weight_exposure:g} "
        f"for the brightness of regions of {o.region_exposure} voxels (wanted: {o.exposure:g}) "
        f"and {o.weight_prior:g} for the product of both maps. The field is a cubic B-spline "
        f"[@bsplines] with knots {knots:g} mm apart, fitted to the logarithm of image / "
        f"brightened image{curve}.{rounds}"
    )


CITATIONS: dict[str, dict[str, str]] = {
    "zeroshot": {
        "cite": "Yang, Timko and Fernandez, 2025",
        "text": "Yang, Timko, Fernandez. Zero-shot bias correction: efficient MR image "
        "inhomogeneity reduction without any data. arXiv 2501.12244, 2025.",
        "bib": "@misc{zeroshot,\n  author = {Yang and Timko and Fernandez},\n  title = {Zero-shot "
        "bias correction: efficient {MR} image inhomogeneity reduction without any data},\n"
        "  eprint = {2501.12244},\n  archiveprefix = {arXiv},\n  year = {2025}\n}",
    },
    "zerodce": {
        "cite": "Li, Guo and Loy, 2021",
        "text": "Li C, Guo C, Loy CC. Learning to enhance low-light image via zero-reference deep "
        "curve estimation. IEEE Trans Pattern Anal Mach Intell, 2021. arXiv 2103.00860.",
        "bib": "@article{zerodce,\n  author = {Li, Chongyi and Guo, Chunle and Loy, Chen Change},"
        "\n  title = {Learning to enhance low-light image via zero-reference deep curve "
        "estimation},\n  journal = {IEEE Transactions on Pattern Analysis and Machine "
        "Intelligence},\n  year = {2021},\n  eprint = {2103.00860}\n}",
    },
}
"""The papers of the method, by citation key."""
