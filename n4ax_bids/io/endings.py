"""Endings of the names of images, and what is written for each."""

from __future__ import annotations

NIFTI = (".nii.gz", ".nii")
PLANES = (".ome.zarr", ".ome.tif", ".ome.btf", ".tif", ".png")
"""stacks of planes in BIDS; .ome.zarr is a folder"""
WRITTEN = {".nii": ".nii.gz", ".png": ".tif"}
"""ending of an output by that of its source, where it is another one; PNG holds no float32"""
LATTICES = ".npz"
"""the lattices of a stack, which has one for each section"""


def split(name: str) -> tuple[str, str]:
    """Return a name without its ending, and the ending of an image; "" if it has none."""
    for ending in (*NIFTI, *PLANES, LATTICES):
        if name.endswith(ending):
            return name.removesuffix(ending), ending
    return name, ""


def stem(name: str) -> str:
    """Return the name of an image without its ending."""
    return split(name)[0]
