"""Images for a GPU day, read and made with numpy alone."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np

from benchmarks.gpu.day import ROOT
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.phantoms import phantom

PHANTOM = "phantom 96³"
REAL = {
    "head T1w, shrink 4": ("head-philips3t_T1w.nii.gz", (4, 4, 4), (3, 1, 2)),
    "kidney GRE, in-plane 2": ("kidney-ge3t_GRE.nii.gz", (2, 2, 1), (1, 1, 0)),
    "2D slice T1w": ("slice2d-ixi002/T1w.nii.gz", (1, 1), (0, 0)),
    "spine T2*w, in-plane 4": ("spine-sct_T2starw.nii.gz", (4, 4, 1), (2, 1, 0)),
    "IXI T1w, shrink 3": (
        "bids-small/sub-ixi012/anat/sub-ixi012_T1w.nii",
        (3, 3, 3),
        (1, 1, 1),
    ),
}
"""cases of `benchmarks.parity`: file, shrink factors, and the first voxel that ITK's shrinking
takes by the file's header"""
DATA_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""of NIfTI, by the code in its header"""


def head(
    shape: tuple[int, int, int], semi_axes: tuple[float, float, float], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of an ellipsoid of three tissues under a smooth field, with noise."""
    rng = np.random.default_rng(seed)
    x, y, z = (
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) / half
        for n, half in zip(shape, semi_axes, strict=True)
    )
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    mask = x**2 + y**2 + z**2 <= 1
    phase = 0.1 * seed
    tissue = np.sin(9 * x + phase) * np.sin(7 * y) + np.sin(8 * z - phase) * np.cos(6 * x)
    level = np.where(tissue > 0.35, 1.0, np.where(tissue > -0.45, 0.7, 0.3)).astype(np.float32)
    field = np.exp(0.35 * (x * y - 0.6 * z**2 + 0.4 * x - 0.3 * y)).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    image = 500 * (level * field * mask + 0.03 * np.abs(noise) + 0.02 * mask * (1 + noise))
    return np.asfortranarray(image.astype(np.float32)), np.asfortranarray(mask)


def reference_case(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return image and mask of a case whose lattice is stored; None where its file is missing."""
    if name == PHANTOM:
        made = phantom((96, 96, 96), seed=0, field="polynomial", amplitude=0.4, noise=0.02)
        return made.image, made.mask
    file, factors, first = REAL[name]
    folder = data_folder()
    if folder is None or not (folder / file).exists():
        return None
    values = read_nifti(folder / file)
    mask = otsu_mask(values)
    at = tuple(slice(f, None, k) for f, k in zip(first, factors, strict=True))
    sizes = [max(1, n // k) for n, k in zip(values.shape, factors, strict=True)]
    cut = tuple(slice(0, n) for n in sizes)
    return values[at][cut], mask[at][cut]


def data_folder() -> Path | None:
    """Return the folder of the real images: inside the checkout or beside it."""
    places = [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    if chosen := os.environ.get("N4AX_TEST_DATA"):
        places.insert(0, Path(chosen))
    return next((folder for folder in places if folder.is_dir()), None)


def read_nifti(path: Path) -> np.ndarray:
    """Return the values of a NIfTI-1 file as float32, axes as in the file."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    order = "<" if struct.unpack("<i", data[:4])[0] == 348 else ">"
    dim = struct.unpack(order + "8h", data[40:56])
    data_type = DATA_TYPES[struct.unpack(order + "h", data[70:72])[0]]
    offset, slope, intercept = struct.unpack(order + "3f", data[108:120])
    shape = dim[1 : dim[0] + 1]
    flat = np.frombuffer(data, order + data_type, int(np.prod(shape)), int(offset))
    values = flat.reshape(shape, order="F").astype(np.float32, order="F")
    if slope != 0 and np.isfinite(slope) and (slope, intercept) != (1.0, 0.0):
        values = np.float32(slope) * values + np.float32(intercept)
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    return values
