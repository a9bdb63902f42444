"""Bias field correction of MR images in JAX with the numbers of ITK's and ANTs' N4.

The names below are loaded at their first use: importing this package imports neither
jax nor nipype. `correct` corrects one image file; it is the module `n4ax_bids.correct`, which can
be called as its function of the same name.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n4ax_bids.arrays import correct_array
    from n4ax_bids.core.call import N4Warning
    from n4ax_bids.core.mask.auto_mask import auto_mask
    from n4ax_bids.core.mask.brain_mask import brain_mask
    from n4ax_bids.core.mask.head_mask import head_mask
    from n4ax_bids.core.n4.call import n4, n4_batch
    from n4ax_bids.core.threshold import otsu_mask
    from n4ax_bids.core.zero_dce.call import zero_shot, zero_shot_batch
    from n4ax_bids.correct import correct
    from n4ax_bids.options import N4Options, ZeroShotOptions, preset

__all__ = [
    "N4Options",
    "N4Warning",
    "ZeroShotOptions",
    "auto_mask",
    "brain_mask",
    "correct",
    "correct_array",
    "head_mask",
    "n4",
    "n4_batch",
    "otsu_mask",
    "preset",
    "zero_shot",
    "zero_shot_batch",
]

_HOMES = {
    "N4Options": "n4ax_bids.options",
    "N4Warning": "n4ax_bids.core.call",
    "ZeroShotOptions": "n4ax_bids.options",
    "auto_mask": "n4ax_bids.core.mask.auto_mask",
    "brain_mask": "n4ax_bids.core.mask.brain_mask",
    "correct_array": "n4ax_bids.arrays",
    "head_mask": "n4ax_bids.core.mask.head_mask",
    "n4": "n4ax_bids.core.n4.call",
    "n4_batch": "n4ax_bids.core.n4.call",
    "otsu_mask": "n4ax_bids.core.threshold",
    "preset": "n4ax_bids.options",
    "zero_shot": "n4ax_bids.core.zero_dce.call",
    "zero_shot_batch": "n4ax_bids.core.zero_dce.call",
}

try:
    __version__ = version("n4ax-bids")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "correct":
        return importlib.import_module("n4ax_bids.correct")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
