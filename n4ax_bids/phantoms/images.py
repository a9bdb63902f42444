"""Images with a known bias field: an ellipsoid, and the ICBM 152 brain."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

CSF, GREY, WHITE = 1, 2, 3
"""Values of `Phantom.labels`; 0 is anything else."""

TISSUE_LEVELS = {CSF: 0.3, GREY: 0.7, WHITE: 1.0}
"""Intensity of each tissue of `phantom`, white matter being 1."""

T2W_LEVELS = {CSF: 0.8, GREY: 0.6, WHITE: 0.4}
"""Intensity of each tissue of the T2w-like contrast of `mni152`."""

PURE = 0.9
"""A voxel of `mni152` is labelled where one tissue's share is above this."""

FieldKind = Literal["polynomial", "coils", "dome"]


class Phantom(NamedTuple):
    """An image and the truth about it: image = |tissue · exp(log_field) + noise|."""

    image: np.ndarray
    """float32, as a scanner would record it"""
    log_field: np.ndarray
    """float32, ln of the field at every voxel; mean 0 in the mask"""
    labels: np.ndarray
    """uint8: CSF, GREY, WHITE where the voxel is that tissue and nothing else"""
    mask: np.ndarray
    """bool, the object without background"""


def phantom(
    shape: Sequence[int],
    seed: int = 0,
    field: FieldKind = "polynomial",
    amplitude: float = 0.4,
    noise: float = 0.02,
) -> Phantom:
    """Make an ellipsoid filled with blobs of tissue, under a known field.

    Tissue changes over about a twentieth of the object, the field over the whole object. Without
    noise, image / exp(log_field) has only the values of `TISSUE_LEVELS` and 0.

    Parameters
    ----------
    shape : voxels per axis, 2 or 3 axes
    seed : int, for blobs, field and noise
    field : shape of the field, see `make_log_field`
    amplitude : largest |ln b| in the mask
    noise : standard deviation in each channel of the Rician noise, 1 = white matter

    Returns
    -------
    Phantom
    """
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3) or min(shape) < 1 or max(shape) < 4:
        raise ValueError(f"shape is {shape}; expected 2 or 3 numbers of voxels, some above 3")
    mask = np.asarray(sum(x**2 for x in _coordinates(shape)) < 0.85**2)
    blobs = ndimage.gaussian_filter(
        rng.standard_normal(shape, np.float32), [max(0.7, n / 24) for n in shape]
    )
    labels = np.zeros(shape, np.uint8)
    edges = np.quantile(blobs[mask], [0.1, 0.55])
    labels[mask] = 1 + np.searchsorted(edges, blobs[mask])
    levels = np.zeros(4, np.float32)
    levels[list(TISSUE_LEVELS)] = list(TISSUE_LEVELS.values())
    truth = make_log_field(mask, field, amplitude=amplitude, seed=seed)
    image = add_noise(levels[labels] * np.exp(truth), noise, seed=seed)
    return Phantom(image, truth, labels, mask)


def mni152(
    contrast: Literal["T1w", "T2w"] = "T1w",
    seed: int = 0,
    field: FieldKind = "polynomial",
    amplitude: float = 0.4,
    noise: float = 0.025,
    *,
    step: int = 1,
) -> Phantom:
    """Put the ICBM 152 brain under a known field.

    The T1w image is the template itself; the T2w-like one is the sum of the tissue maps weighted
    by `T2W_LEVELS`. White matter is 1 in the T1w image.

    Parameters
    ----------
    contrast, seed, field, amplitude : as for `phantom`
    noise : standard deviation in each channel of the Rician noise; 1 = T1w white matter
    step : voxel size in mm; above 1, blocks of voxels are averaged

    Returns
    -------
    Phantom, on the grid of `mni152_affine(step)`
    """
    if contrast not in ("T1w", "T2w"):
        raise ValueError(f"contrast is {contrast!r}; expected 'T1w' or 'T2w'")
    t1, grey, white = (_template(name, step) for name in ("t1", "gm", "wm"))
    mask = t1 > 0.15
    csf = np.where(mask, np.clip(1 - grey - white, 0, 1), 0)
    shares = {CSF: csf, GREY: grey, WHITE: white}
    labels = np.zeros(mask.shape, np.uint8)
    for label, share in shares.items():
        labels[mask & (share > PURE)] = label
    if contrast == "T1w":
        tissue = t1 / t1[labels == WHITE].mean()
    else:
        tissue = sum(T2W_LEVELS[label] * share for label, share in shares.items())
    truth = make_log_field(mask, field, amplitude=amplitude, seed=seed)
    return Phantom(add_noise(tissue * np.exp(truth), noise, seed=seed), truth, labels, mask)


def mni152_affine(step: int = 1) -> np.ndarray:
    """Return the affine of `mni152`'s images: voxel → mm, RAS+."""
    import nibabel as nb

    affine: np.ndarray = nb.Nifti1Image.from_filename(_template_path("t1")).affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.full(3, (step - 1) / 2)
    affine[:3, :3] *= step
    return affine


def make_log_field(
    mask: np.ndarray, kind: FieldKind, *, amplitude: float, seed: int = 0
) -> np.ndarray:
    """Make a smooth log field: mean 0 and largest absolute value `amplitude` in the mask.

    Parameters
    ----------
    mask : bool array (I, J[, K])
    kind : "polynomial", a random one of degree 3; "coils", the sum of squares of two receive
        coils beside the object; "dome", brightest near the middle, as at high field
    amplitude : ln of intensity
    seed : int, for coefficients and places

    Returns
    -------
    float32 array like `mask`
    """
    kinds = {"polynomial": _polynomial, "coils": _coils, "dome": _dome}
    if kind not in kinds:
        raise ValueError(f"field is {kind!r}; expected one of {', '.join(kinds)}")
    shape = kinds[kind](_coordinates(mask.shape), np.random.default_rng([seed, 1]))
    shape = shape - shape[mask].mean()
    return (amplitude / np.abs(shape[mask]).max() * shape).astype(np.float32)


def add_noise(signal: np.ndarray, sigma: float, *, seed: int = 0) -> np.ndarray:
    """Return the magnitude of a complex signal with noise in both channels (Rician)."""
    rng = np.random.default_rng([seed, 2])
    real, imaginary = (sigma * rng.standard_normal(signal.shape, np.float32) for _ in range(2))
    return np.hypot(signal + real, imaginary).astype(np.float32)


def _coordinates(shape: Sequence[int]) -> list[np.ndarray]:
    """Return each axis from -1 to 1, shaped to broadcast; 0 on an axis of one or two voxels."""
    lines = [np.linspace(-1, 1, n) if n > 2 else np.zeros(n) for n in shape]
    return list(np.meshgrid(*lines, indexing="ij", sparse=True))


def _polynomial(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Sum products of Legendre polynomials of total degree 1 to 3, with decreasing weight."""
    total = np.zeros(np.broadcast_shapes(*(axis.shape for axis in x)))
    for degrees in product(range(4), repeat=len(x)):
        if 1 <= sum(degrees) <= 3:
            term: Any = rng.standard_normal() / sum(degrees)
            for axis, degree in zip(x, degrees, strict=True):
                term = term * np.polynomial.Legendre.basis(degree)(axis)
            total += term
    return total


def _coils(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return ln of the root sum of squares of coils whose sensitivity falls as (1 + d²)^-3/2."""
    directions = rng.standard_normal((2, len(x)))
    centres = 1.3 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    strengths = rng.uniform(0.7, 1.3, 2)
    power: Any = 0
    for centre, strength in zip(centres, strengths, strict=True):
        distance: Any = sum((axis - c) ** 2 for axis, c in zip(x, centre, strict=True))
        power = power + strength**2 * (1 + distance) ** -3.0
    return np.log(power) / 2


def _dome(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return a Gaussian bump a little off the middle."""
    centre = rng.uniform(-0.15, 0.15, len(x))
    return np.exp(-sum((axis - c) ** 2 for axis, c in zip(x, centre, strict=True)))


@functools.lru_cache(maxsize=6)
def _template(name: Literal["t1", "gm", "wm"], step: int) -> np.ndarray:
    """Read one of nilearn's ICBM 152 maps, from 0 to 1, averaged over blocks of `step` voxels."""
    if step < 1:
        raise ValueError(f"step is {step}; expected a whole number of mm, at least 1")
    import nibabel as nb

    image = nb.Nifti1Image.from_filename(_template_path(name))
    data = np.asarray(image.dataobj, np.float32) / 255
    if step > 1:
        data = data[tuple(slice(n // step * step) for n in data.shape)]
        blocks = [size for n in data.shape for size in (n // step, step)]
        data = data.reshape(blocks).mean(axis=(1, 3, 5))
    data.flags.writeable = False
    return data


def _template_path(name: str) -> Path:
    found = importlib.util.find_spec("nilearn")  # importing it would take seconds
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the MNI152 phantoms take their anatomy from the nilearn package, which is not "
            "installed; install n4ax_bids[demo]"
        )
    folder = Path(found.submodule_search_locations[0], "datasets", "data")
    return folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
