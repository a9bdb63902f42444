"""The images that are timed: a real head where there is one, else a phantom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import ROOT, has
from n4ax_bids.phantoms import make_log_field, mni152, mni152_affine, phantom

DATA = Path(os.environ.get("N4AX_TEST_DATA") or ROOT.parent / "shared" / "data")
HEAD = "head-philips3t_T1w.nii.gz"
SHAPE = (197, 233, 189)
"""of the MNI152 template, 1 mm"""
QUICK = (36, 32, 28)


class Image(NamedTuple):
    """An image and what a page says of it."""

    values: np.ndarray
    """float32"""
    zooms: tuple[float, ...]
    """mm"""
    affine: np.ndarray
    name: str


def usual(given) -> Image:
    """Return the image that the flags ask for, or the best there is."""
    if given.image:
        values = np.load(given.image).astype(np.float32)
        return Image(values, (1.0,) * values.ndim, np.eye(4), f"`{given.image.name}`")
    if given.quick:
        return synthetic(QUICK)
    if has("nibabel") and (DATA / HEAD).exists():
        import nibabel as nb

        read = nb.load(DATA / HEAD)
        zooms = tuple(map(float, read.header.get_zooms()[:3]))
        return Image(np.asarray(read.dataobj, np.float32), zooms, read.affine, f"`{HEAD}`")
    if has("nibabel", "nilearn"):
        made = mni152("T1w", field="coils", amplitude=0.5).image
        name = f"phantom of the MNI152 template, for want of `{HEAD}`"
        return Image(made, (1.0,) * 3, mni152_affine(), name)
    return synthetic(SHAPE)


def synthetic(shape: tuple[int, ...]) -> Image:
    """Return an ellipsoid of blobs, made with numpy and scipy alone."""
    made = phantom(shape, seed=0).image
    name = "synthetic ellipsoid (`n4ax_bids.phantoms.phantom`)"
    return Image(made, (1.0,) * len(shape), np.eye(4), name)


def variants(image: np.ndarray, n: int) -> list[np.ndarray]:
    """Return n images like one, each with a field of its own."""
    everywhere = np.ones(image.shape, bool)
    return [
        image * np.exp(make_log_field(everywhere, "coils", amplitude=0.2, seed=seed))
        for seed in range(n)
    ]


def block_means(array: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Return the means of blocks of voxels; what is left over at the end of an axis is dropped."""
    whole = array[tuple(slice(n // b * b) for n, b in zip(array.shape, blocks, strict=True))]
    shape = [m for n, b in zip(whole.shape, blocks, strict=True) for m in (n // b, b)]
    return whole.reshape(shape).mean((1, 3, 5), dtype=np.float64).astype(np.float32)
