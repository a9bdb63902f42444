"""A log field in one small file: the lattice as an image, its parameters in the header."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from n4ax_bids.io.atomic import replacing
from n4ax_bids.io.header import failures, load_header
from n4ax_bids.io.kinds import require_file
from n4ax_bids.io.text import parse_json
from n4ax_bids.io.volume import load, write_image

COMMENT = 6
"""NIfTI's extension code for plain text"""
KIND = "n4ax_bids log field"
MOST_POINTS = 2**25
"""largest number of control points, as in a plan"""
HIGHEST_ORDER = 9
"""highest order of the spline, as in the options"""


def save_lattice(
    path: str | Path,
    lattice: np.ndarray,
    *,
    order: int,
    first: Sequence[float],
    step: Sequence[float],
    clamp: Sequence[float],
    shape: Sequence[int],
    affine: np.ndarray,
) -> None:
    """Write a log field as a NIfTI image of its control points, instead of the full field.

    The affine puts each control point at its position: point c lies at voxel
    k = (c - (order - 1)/2 - first) / step of the image. The numbers are stored in full precision
    as JSON in a header extension.

    Parameters
    ----------
    path : final name, .nii or .nii.gz; the file appears complete or not at all
    lattice : array, control points of ln b, one axis per image axis; stored as float32
    order : order of the spline
    first, step, clamp : for each axis, t = min(max(first + step·k, 0), clamp) at voxel k
    shape : shape of the image, voxels
    affine : array (4, 4) of the image, voxel to mm, RAS+
    """
    with replacing(path) as part:
        write_lattice(
            part,
            lattice,
            order=order,
            first=first,
            step=step,
            clamp=clamp,
            shape=shape,
            affine=affine,
        )


def write_lattice(
    path: str | Path,
    lattice: np.ndarray,
    *,
    order: int,
    first: Sequence[float],
    step: Sequence[float],
    clamp: Sequence[float],
    shape: Sequence[int],
    affine: np.ndarray,
) -> None:
    """Write a log field as `save_lattice` does, but straight to `path`."""
    lattice = np.asarray(lattice, np.float32)
    to_voxel = np.eye(4)
    for d in range(lattice.ndim):
        per_point = 1 / step[d] if step[d] else 1.0  # an axis of one voxel has no step
        to_voxel[d, d] = per_point
        to_voxel[d, 3] = -((order - 1) / 2 + first[d]) * per_point
    image = nb.Nifti1Image(np.asfortranarray(lattice), np.asarray(affine) @ to_voxel)
    image.header.set_xyzt_units("mm")
    numbers = {
        "kind": KIND,
        "order": int(order),
        "first": [float(v) for v in first],
        "step": [float(v) for v in step],
        "clamp": [float(v) for v in clamp],
        "shape": [int(n) for n in shape],
        "affine": [[float(v) for v in row] for row in np.asarray(affine)],
    }
    extension = nb.nifti1.Nifti1Extension(COMMENT, json.dumps(numbers).encode())
    image.header.extensions.append(extension)
    write_image(path, image)


def load_lattice(path: str | Path) -> dict[str, Any]:
    """Read what `save_lattice` wrote.

    Returns
    -------
    dict with the keywords of `save_lattice`: lattice, order, first, step, clamp, shape, affine

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or contains no log field; one line that names it.
    """
    path = Path(path)
    require_file(path)
    with failures(path):
        return _load(path)


def _load(path: Path) -> dict[str, Any]:
    header = load_header(path)
    numbers = _numbers(path, header)
    shape = tuple(int(n) for n in header.get_data_shape())
    if math.prod(shape) > MOST_POINTS:
        claimed = " x ".join(map(str, shape))
        raise ValueError(
            f"{path}: {claimed} control points; expected at most {MOST_POINTS} in all"
        )
    n_axes = len(numbers["first"])
    if len(shape) != n_axes:
        raise ValueError(f"{path}: a log field of {n_axes} axes in an image of {len(shape)}")
    # There are fewer points than voxels of a usual image, and `load` checks the file's size.
    return {"lattice": load(path).data.reshape(shape, order="F"), **numbers}


def _numbers(path: Path, header: nb.Nifti1Header) -> dict[str, Any]:
    """Return the numbers in the header extension of a log field, checked."""
    for extension in header.extensions:
        if extension.get_code() != COMMENT:
            continue
        try:
            found = parse_json(path, bytes(extension.get_content()).rstrip(b"\0"))
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("kind") == KIND:
            break
    else:
        raise ValueError(f"{path}: holds no log field (no header extension written by n4ax_bids)")
    try:
        parts = {name: tuple(map(float, found[name])) for name in ("first", "step", "clamp")}
        affine = np.array(found["affine"], np.float64)
        shape = found["shape"]
        n_axes = len(shape)
        whole = [found["order"], *shape]
        fits = (
            all(len(part) == n_axes and np.isfinite(part).all() for part in parts.values())
            and affine.shape == (4, 4)
            and all(type(n) is int and n > 0 for n in whole)
            and found["order"] <= HIGHEST_ORDER
        )
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if not fits:
        raise _damaged(path)
    return {"order": found["order"], **parts, "shape": tuple(shape), "affine": affine}


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path}: its log field is damaged (order, first, step, clamp, shape or affine is missing "
        "or out of range); expected a file as n4ax_bids wrote it"
    )
