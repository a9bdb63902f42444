"""One log field, applied to other images of the same scan: other contrasts, grids and series.

The field is evaluated at the place in space of each voxel, so the image may have another
resolution, orientation or field of view than the one in which the field was estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.field import LogField
from n4ax_bids.core.placed_field import at_voxels, of_samples
from n4ax_bids.io import lattice, volume
from n4ax_bids.io.atomic import require_writable, same_place
from n4ax_bids.io.header import load_header
from n4ax_bids.io.volumes import Volumes, open_volumes, writing


class Field(NamedTuple):
    """A log field and where it lies."""

    path: Path
    """the file that was read"""
    log_field: LogField
    affine: np.ndarray
    """4×4 of the image in which it was estimated, voxel to mm, RAS+"""


class Applied(NamedTuple):
    """What was done to one image."""

    image: Path
    output: Path
    field: Path
    """the file with the field"""
    n_outside: int
    """voxels outside the field's domain, of one volume"""
    n_voxels: int
    """of one volume"""
    n_volumes: int
    notes: tuple[str, ...]
    """what a user should know"""


def apply_field(
    image: str | Path,
    field: str | Path | Field,
    output_image: str | Path,
    *,
    bias_image: str | Path | None = None,
    multiply: bool = False,
) -> Applied:
    """Divide an image, or every volume of a series, by a field that was estimated before.

    Parameters
    ----------
    image : NIfTI file of two axes or more; all its volumes get the same field
    field : what `load_field` reads, or its result
    output_image : name of the result, .nii or .nii.gz; float32
    bias_image : name for the field b on the grid of `image`; default: it is not written
    multiply : multiply by the field instead, which undoes a division

    Returns
    -------
    Applied

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written; one line that names it. Then there is no output.

    Notes
    -----
    Outside the field's domain the value at its nearest point is used, and a note says so. Only one
    volume is in memory at a time.
    """
    given = field if isinstance(field, Field) else load_field(field)
    volumes = open_volumes(image)
    _require_names(volumes, given, [each for each in (output_image, bias_image) if each])
    placed = at_voxels(
        given.log_field, np.linalg.inv(given.affine) @ volumes.affine, volumes.shape
    )
    with np.errstate(over="ignore"):
        bias = np.exp(placed.log_bias)
    if not (np.isfinite(bias).all() and bias.all()):
        raise ValueError(f"{given.path}: its field is too large to divide by")
    with writing(output_image, volumes) as append:
        for each in volumes:
            with np.errstate(over="ignore", invalid="ignore"):
                append(each * bias if multiply else each / bias)
        if bias_image:
            with writing(bias_image, _one_volume(volumes)) as append_bias:
                append_bias(bias)
    notes = _notes(volumes, placed.n_outside, bias.size)
    output = Path(output_image)
    counts = (placed.n_outside, bias.size, volumes.n_volumes)
    return Applied(volumes.path, output, given.path, *counts, notes)


def _one_volume(volumes: Volumes) -> Volumes:
    header = volumes.header.copy()
    header.set_data_shape(header.get_data_shape()[:3])
    return Volumes(volumes.path, header, volumes.affine, volumes.shape, 1)


def _notes(volumes: Volumes, n_outside: int, n_voxels: int) -> tuple[str, ...]:
    if not n_outside:
        return ()
    return (
        f"{volumes.path}: {n_outside} of {n_voxels} voxels lie outside the image in which the "
        "field was estimated; the field's value at its nearest point was used for them",
    )


def _require_names(volumes: Volumes, field: Field, outputs: Sequence[str | Path]) -> None:
    """Check the names of outputs before any work is done."""
    for i, path in enumerate(outputs):
        volume.require_name(path)
        require_writable(path)
        inputs = {"image": volumes.path, "field": field.path}
        for kind, other in inputs.items():
            if same_place(path, other):
                raise ValueError(f"{path}: is the {kind} itself; expected another name")
        if any(same_place(path, other) for other in outputs[:i]):
            raise ValueError(f"{path}: two outputs have this name; expected different ones")


def load_field(path: str | Path) -> Field:
    """Read a field from a file with its lattice, from an image of it, or from beside an image.

    Parameters
    ----------
    path : one of

        - a lattice (`desc-biaslattice`): the field is evaluated exactly
        - an image of b (`desc-biasfield`, or any positive NIfTI image, such as the second output
          of ANTs' N4): the cubic spline through ln b is evaluated
        - a corrected image of this package (`desc-biascorr`): the lattice beside it, or its field

    Raises
    ------
    OSError, ValueError
        If it is none of these; one line that names the file.
    """
    path = Path(path)
    if "_desc-biascorr_" in path.name:
        path = _beside(path)
    header = load_header(path)
    if any(lattice.KIND.encode() in each.get_content() for each in header.extensions):
        numbers = lattice.load_lattice(path)
        parts = {name: numbers[name] for name in LogField._fields}
        return Field(path, LogField(**parts), numbers["affine"])
    image = volume.load(path)
    lowest, highest = float(image.data.min()), float(image.data.max())
    if not (lowest > 0 and np.isfinite(highest)):
        raise ValueError(
            f"{path}: values from {lowest:g} to {highest:g}; expected a field, which is positive "
            "and finite everywhere, or a lattice (desc-biaslattice)"
        )
    return Field(path, of_samples(np.log(image.data)), image.affine)


def _beside(path: Path) -> Path:
    """Return the file with the field of a corrected image."""
    names = [
        path.with_name(path.name.replace("_desc-biascorr_", f"_desc-{label}_"))
        for label in ("biaslattice", "biasfield")
    ]
    for each in names:
        if each.exists():
            return each
    raise ValueError(
        f"{path}: neither {names[0].name} nor {names[1].name} is beside it; expected one of them"
    )
