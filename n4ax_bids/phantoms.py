"""Images whose bias field is known: for the demo, the tests and the benchmarks.

`phantom` needs no file and nothing but numpy and scipy. `mni152` takes its anatomy from the
ICBM 152 template and tissue maps that the nilearn package carries; nothing is downloaded.
`make_dataset` writes a BIDS dataset: `python -m n4ax_bids.phantoms DIR`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

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

    Tissue changes over about a twentieth of the object, the field over the whole of it, and
    without noise image / exp(log_field) takes the values of `TISSUE_LEVELS` alone.

    Parameters
    ----------
    shape : voxels per axis, 2 or 3 axes
    seed : int, of blobs, field and noise
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
    mask = sum(x**2 for x in _coordinates(shape)) < 0.85**2
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

    affine = nb.load(_template_path("t1")).affine.copy()
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
    seed : int, of coefficients and places

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
    """Each axis from -1 to 1, shaped to broadcast; 0 on one of fewer than three voxels."""
    lines = [np.linspace(-1, 1, n) if n > 2 else np.zeros(n) for n in shape]
    return np.meshgrid(*lines, indexing="ij", sparse=True)


def _polynomial(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Products of Legendre polynomials of total degree 1 to 3, weaker the higher."""
    total = np.zeros(np.broadcast_shapes(*(axis.shape for axis in x)))
    for degrees in product(range(4), repeat=len(x)):
        if 1 <= sum(degrees) <= 3:
            term = rng.standard_normal() / sum(degrees)
            for axis, degree in zip(x, degrees, strict=True):
                term = term * np.polynomial.Legendre.basis(degree)(axis)
            total += term
    return total


def _coils(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """ln of the root sum of squares of coils whose sensitivity falls as (1 + d²)^-3/2."""
    directions = rng.standard_normal((2, len(x)))
    centres = 1.3 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    strengths = rng.uniform(0.7, 1.3, 2)
    power = 0
    for centre, strength in zip(centres, strengths, strict=True):
        distance = sum((axis - c) ** 2 for axis, c in zip(x, centre, strict=True))
        power = power + strength**2 * (1 + distance) ** -3.0
    return np.log(power) / 2


def _dome(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A Gaussian bump a little off the middle."""
    centre = rng.uniform(-0.15, 0.15, len(x))
    return np.exp(-sum((axis - c) ** 2 for axis, c in zip(x, centre, strict=True)))


@functools.lru_cache(maxsize=6)
def _template(name: Literal["t1", "gm", "wm"], step: int) -> np.ndarray:
    """Read one of nilearn's ICBM 152 maps, from 0 to 1, averaged over blocks of `step` voxels."""
    if step < 1:
        raise ValueError(f"step is {step}; expected a whole number of mm, at least 1")
    import nibabel as nb

    data = np.asarray(nb.load(_template_path(name)).dataobj, np.float32) / 255
    if step > 1:
        data = data[tuple(slice(n // step * step) for n in data.shape)]
        blocks = [size for n in data.shape for size in (n // step, step)]
        data = data.reshape(blocks).mean(axis=(1, 3, 5))
    data.flags.writeable = False
    return data


def _template_path(name: str) -> Path:
    found = importlib.util.find_spec("nilearn")  # importing it would take seconds
    if found is None:
        raise ModuleNotFoundError(
            "the MNI152 phantoms take their anatomy from the nilearn package, which is not "
            "installed; install n4ax-bids[demo]"
        )
    folder = Path(found.submodule_search_locations[0], "datasets", "data")
    return folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"


class _Recipe(NamedTuple):
    """One image of the dataset."""

    subject: str
    contrast: Literal["T1w", "T2w"]
    field: FieldKind
    amplitude: float
    extension: str
    dtype: type
    slope: float
    """stored value × slope = intensity"""
    rotation: tuple[float, float, float]
    """of the scan against the scanner's axes, degrees"""


RECIPES = (
    _Recipe("01", "T1w", "coils", 0.50, ".nii.gz", np.int16, 0.125, (0, 0, 0)),
    _Recipe("01", "T2w", "dome", 0.40, ".nii.gz", np.int16, 1.0, (0, 0, 0)),
    _Recipe("02", "T1w", "polynomial", 0.45, ".nii.gz", np.float32, 1.0, (12, -7, 4)),
    _Recipe("02", "T2w", "polynomial", 0.40, ".nii", np.int16, 1.0, (12, -7, 4)),
)
"""The images that `make_dataset` makes."""


class Item(NamedTuple):
    """Files of one image of the dataset."""

    image: Path
    log_field: Path
    """the truth: ln of the field, on the image's grid"""
    labels: Path
    """CSF, GREY, WHITE where the voxel is that tissue and nothing else"""
    mask: Path
    """the brain"""


def make_dataset(
    path: str | Path, *, step: int = 1, noise: float = 0.025, seed: int = 0
) -> list[Item]:
    """Write a BIDS dataset of two simulated subjects with a T1w and a T2w-like image each.

    The truth lies under `sourcedata/truth`, where a BIDS tool looks for nothing.

    Parameters
    ----------
    path : root of the dataset
    step : voxel size, mm
    noise : as for `mni152`
    seed : int

    Returns
    -------
    list of Item, one per image
    """
    root = Path(path)
    _write_dataset_files(root)
    items = []
    for number, recipe in enumerate(RECIPES):
        made = mni152(
            recipe.contrast,
            seed + number,
            recipe.field,
            recipe.amplitude,
            noise,
            step=step,
        )
        affine = _rotated(mni152_affine(step), recipe.rotation)
        stem = f"sub-{recipe.subject}_{recipe.contrast}"
        truth = root / "sourcedata" / "truth"
        item = Item(
            root / f"sub-{recipe.subject}" / "anat" / f"{stem}{recipe.extension}",
            *(truth / f"{stem}_{what}.nii.gz" for what in ("logfield", "labels", "mask")),
        )
        _write(item.image, 1000 * made.image, affine, dtype=recipe.dtype, slope=recipe.slope)
        _write(item.log_field, made.log_field, affine, dtype=np.float32)
        _write(item.labels, made.labels, affine, dtype=np.uint8)
        _write(item.mask, made.mask, affine, dtype=np.uint8)
        _write_json(item.image.with_name(f"{stem}.json"), _sidecar(recipe, noise))
        items.append(item)
    return items


def _rotated(affine: np.ndarray, degrees: tuple[float, float, float]) -> np.ndarray:
    """Turn an affine about the scanner's x, y and z axes in turn."""
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [d for d in range(3) if d != axis]
        rotation = np.eye(4)
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[b, a], rotation[a, b] = np.sin(angle), -np.sin(angle)
        affine = rotation @ affine
    return affine


def _write(
    path: Path, data: np.ndarray, affine: np.ndarray, *, dtype: type, slope: float = 1.0
) -> None:
    """Save a NIfTI file that stores data / slope."""
    import nibabel as nb

    if np.issubdtype(dtype, np.integer):
        data = np.rint(data / slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(data.astype(dtype), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(slope, 0)
    image.to_filename(path)


def _sidecar(recipe: _Recipe, noise: float) -> dict:
    return {
        "Modality": "MR",
        "ImageComments": (
            f"Simulated: ICBM 152 anatomy under a bias field of the kind {recipe.field}, at most "
            f"exp(±{recipe.amplitude}); Rician noise of {1000 * noise:g} in each channel"
        ),
        "SkullStripped": True,
    }


def _write_dataset_files(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Simulated brains with known bias fields",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "Authors": ["n4ax_bids contributors (simulation)", "V. S. Fonov and others (anatomy)"],
        "ReferencesAndLinks": ["https://doi.org/10.1016/S1053-8119(09)70884-5"],
    }
    _write_json(root / "dataset_description.json", description)
    subjects = sorted({recipe.subject for recipe in RECIPES})
    rows = ["participant_id", *(f"sub-{subject}" for subject in subjects)]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "README.md").write_text(README, encoding="utf-8")


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


README = """\
# Simulated brains with known bias fields

Two simulated subjects, each with a T1w and a T2w-like image, made by `n4ax_bids.phantoms`. The
anatomy is the ICBM 152 2009a nonlinear symmetric template with its tissue maps (Fonov and others
2009; copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University, which grants everyone its use, copy, change and distribution as long
as this notice stays), as the Python package nilearn carries it. Each image was multiplied by
another smooth field before noise was added.

`sourcedata/truth` holds what was put in: for each image ln of the field (`logfield`), voxels of a
single tissue (`labels`: 1 CSF, 2 grey matter, 3 white matter) and the brain (`mask`).
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the dataset that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m n4ax_bids.phantoms", description=__doc__)
    parser.add_argument("directory", type=Path, help="root of the BIDS dataset to write")
    parser.add_argument("--step", type=int, default=1, help="voxel size in mm (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of fields and noise (default: 0)")
    arguments = parser.parse_args(argv)
    for item in make_dataset(arguments.directory, step=arguments.step, seed=arguments.seed):
        print(item.image)


if __name__ == "__main__":
    main()
