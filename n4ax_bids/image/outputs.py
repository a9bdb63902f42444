"""The output files of one image: their names are checked, and they appear together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from n4ax_bids.core.field import LogField
from n4ax_bids.io import lattice, volume
from n4ax_bids.io.atomic import replacing, require_writable, same_place
from n4ax_bids.io.volume import Volume


class Outputs(NamedTuple):
    """Absolute paths of the requested files."""

    output_image: Path | None
    bias_image: Path | None
    lattice_image: Path | None
    found_mask_image: Path | None
    further: Mapping[str, Path] = {}
    """further images of the method, by label"""


def checked(
    *paths: str | Path | None,
    inputs: Mapping[str, str | Path | None],
    further: Mapping[str, str | Path] = {},
) -> Outputs:
    """Check names and folders before any work is done; no output may overwrite an input.

    Parameters
    ----------
    paths : corrected image, field, lattice and mask; None for a file that is not wanted
    inputs : path of each input, by what it is
    further : paths of the method's own images, by label

    Returns
    -------
    Outputs

    Raises
    ------
    OSError, ValueError
        If a file cannot be written under its name, or two files have the same name.
    """
    more = {label: Path(path).absolute() for label, path in further.items()}
    given = [Path(path).absolute() for path in paths if path is not None] + [*more.values()]
    for i, path in enumerate(given):
        volume.require_name(path)
        require_writable(path)
        if any(same_place(path, other) for other in given[:i]):
            raise ValueError(f"{path}: two outputs have this name; expected different ones")
        for kind, other in inputs.items():
            if other is not None and same_place(path, other):
                raise ValueError(
                    f"{path}: is the {kind} itself, which would be overwritten; expected another "
                    "name for the output"
                )
    image, bias, lattice_image, found_mask = (
        None if path is None else Path(path).absolute() for path in paths
    )
    return Outputs(image, bias, lattice_image, found_mask, more)


def stored(path: Path | None) -> tuple[float, float]:
    """Return slope and intercept of a file's voxels."""
    slope, intercept = volume.load_header(path).get_slope_inter() if path else (None, None)
    return (1.0, 0.0) if slope is None or intercept is None else (float(slope), float(intercept))


def parametrisation(log_field: LogField, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the numbers that place a lattice on the image."""
    floats = {
        name: tuple(map(float, getattr(log_field, name))) for name in ("first", "step", "clamp")
    }
    return {"order": int(log_field.order), **floats, "shape": tuple(shape)}


def save(
    outputs: Outputs,
    image: Volume,
    corrected: np.ndarray,
    bias: np.ndarray,
    log_field: LogField,
    mask: np.ndarray | None,
    dtype: str,
    *,
    whole: bool,
    further: Mapping[str, np.ndarray] = {},
) -> None:
    """Write all outputs under hidden names, then rename them, the corrected image last.

    With `whole`, the headers keep the fields that describe the input's values (its intent and
    display range). `further` holds the method's own images by label.
    """
    with ExitStack() as stack:
        wanted = (path and stack.enter_context(replacing(path)) for path in outputs[:4])
        output_image, bias_image, lattice_image, found_mask_image = wanted
        more = {
            label: stack.enter_context(replacing(path)) for label, path in outputs.further.items()
        }
        for label, part in more.items():
            volume.write(part, further[label], image, whole=False)
        if output_image:
            volume.write(output_image, corrected, image, dtype=dtype, whole=whole)
        if bias_image:
            volume.write(bias_image, bias, image, whole=whole)
        if lattice_image:
            lattice.write_lattice(
                lattice_image,
                np.asarray(log_field.lattice),
                affine=image.affine,
                **parametrisation(log_field, image.data.shape),
            )
        if found_mask_image and mask is not None:
            values = mask.astype(np.uint8)
            volume.write(found_mask_image, values, image, dtype=np.uint8, whole=False)
