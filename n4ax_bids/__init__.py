"""Bias field correction of MR images in JAX with the numbers of ITK's and ANTs' N4.

The names below are loaded at their first use: importing this package imports neither
jax nor nipype. `correct` corrects one image file and `realign` realigns one with a series; they
are the modules `n4ax_bids.correct` and `n4ax_bids.realign`, which can be called as their functions
of the same name.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from n4ax_bids import first_use

if TYPE_CHECKING:
    from n4ax_bids.apply import apply_field
    from n4ax_bids.arrays import correct_array
    from n4ax_bids.core.call import N4Warning
    from n4ax_bids.core.interpolate import BSpline
    from n4ax_bids.core.mask.auto_mask import auto_mask
    from n4ax_bids.core.mask.brain_mask import brain_mask
    from n4ax_bids.core.mask.head_mask import head_mask
    from n4ax_bids.core.n4.call import n4, n4_batch
    from n4ax_bids.core.stack.call import correct_stack
    from n4ax_bids.core.threshold import otsu_mask
    from n4ax_bids.core.tissue.call import tissue, tissue_batch, tissue_joint
    from n4ax_bids.core.tissue_mask import compute_tissue_mask
    from n4ax_bids.core.zero_dce.call import zero_shot, zero_shot_batch
    from n4ax_bids.correct import correct
    from n4ax_bids.linumpy import (
        apply_bias_field,
        n4_correct,
        n4_correct_gpu,
        n4_correct_per_section,
        sharpen_residual,
    )
    from n4ax_bids.options import N4Options, StackOptions, TissueOptions, ZeroShotOptions, preset
    from n4ax_bids.options.realign import RealignOptions
    from n4ax_bids.realign import Realign
    from n4ax_bids.series.outputs import show
    from n4ax_bids.stacks.streaming import stream

__all__ = [
    "BSpline",
    "N4Options",
    "N4Warning",
    "Realign",
    "RealignOptions",
    "StackOptions",
    "TissueOptions",
    "ZeroShotOptions",
    "apply_bias_field",
    "apply_field",
    "auto_mask",
    "brain_mask",
    "compute_tissue_mask",
    "correct",
    "correct_array",
    "correct_stack",
    "head_mask",
    "n4",
    "n4_batch",
    "n4_correct",
    "n4_correct_gpu",
    "n4_correct_per_section",
    "otsu_mask",
    "preset",
    "realign",
    "sharpen_residual",
    "show",
    "stream",
    "tissue",
    "tissue_batch",
    "tissue_joint",
    "zero_shot",
    "zero_shot_batch",
]

_HOMES = {
    "BSpline": "n4ax_bids.core.interpolate",
    "N4Options": "n4ax_bids.options",
    "N4Warning": "n4ax_bids.core.call",
    "Realign": "n4ax_bids.realign",
    "RealignOptions": "n4ax_bids.options.realign",
    "StackOptions": "n4ax_bids.options",
    "TissueOptions": "n4ax_bids.options",
    "ZeroShotOptions": "n4ax_bids.options",
    "apply_bias_field": "n4ax_bids.linumpy",
    "apply_field": "n4ax_bids.apply",
    "auto_mask": "n4ax_bids.core.mask.auto_mask",
    "brain_mask": "n4ax_bids.core.mask.brain_mask",
    "compute_tissue_mask": "n4ax_bids.core.tissue_mask",
    "correct": "n4ax_bids.correct",
    "correct_array": "n4ax_bids.arrays",
    "correct_stack": "n4ax_bids.core.stack.call",
    "head_mask": "n4ax_bids.core.mask.head_mask",
    "n4": "n4ax_bids.core.n4.call",
    "n4_batch": "n4ax_bids.core.n4.call",
    "n4_correct": "n4ax_bids.linumpy",
    "n4_correct_gpu": "n4ax_bids.linumpy",
    "n4_correct_per_section": "n4ax_bids.linumpy",
    "otsu_mask": "n4ax_bids.core.threshold",
    "preset": "n4ax_bids.options",
    "realign": "n4ax_bids.realign",
    "sharpen_residual": "n4ax_bids.linumpy",
    "show": "n4ax_bids.series.outputs",
    "stream": "n4ax_bids.stacks.streaming",
    "tissue": "n4ax_bids.core.tissue.call",
    "tissue_batch": "n4ax_bids.core.tissue.call",
    "tissue_joint": "n4ax_bids.core.tissue.call",
    "zero_shot": "n4ax_bids.core.zero_dce.call",
    "zero_shot_batch": "n4ax_bids.core.zero_dce.call",
}

try:
    __version__ = version("n4ax-bids")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


__getattr__, __dir__ = first_use.names(__name__, _HOMES)
