"""Images with a known bias field, for the demo, the tests and the benchmarks.

`phantom` needs no files, only numpy and scipy. `mni152` takes its anatomy from the ICBM 152
template and the tissue maps that the nilearn package contains; nothing is downloaded.
`make_dataset` writes a BIDS dataset: `python -m n4ax_bids.phantoms DIR`.
"""

from n4ax_bids.phantoms.dataset import RECIPES, Item, make_dataset
from n4ax_bids.phantoms.images import (
    CSF,
    GREY,
    PURE,
    T2W_LEVELS,
    TISSUE_LEVELS,
    WHITE,
    FieldKind,
    Phantom,
    add_noise,
    make_log_field,
    mni152,
    mni152_affine,
    phantom,
)

__all__ = [
    "CSF",
    "GREY",
    "PURE",
    "RECIPES",
    "T2W_LEVELS",
    "TISSUE_LEVELS",
    "WHITE",
    "FieldKind",
    "Item",
    "Phantom",
    "add_noise",
    "make_dataset",
    "make_log_field",
    "mni152",
    "mni152_affine",
    "phantom",
]
