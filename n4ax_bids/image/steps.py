"""The steps of `correct`: load the image, find its region, solve, divide, finish as ANTs does."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids import methods
from n4ax_bids.arguments import is_among, shown
from n4ax_bids.core.arrays import NothingSampled
from n4ax_bids.core.call import NAMES, without_logarithm
from n4ax_bids.core.division import division, limits
from n4ax_bids.core.estimator import Automatic, Estimate, Given, Solve
from n4ax_bids.image.record import FieldNumbers
from n4ax_bids.image.request import CallArguments
from n4ax_bids.image.rescale import NOT_RESCALED, rescaled, restored
from n4ax_bids.io import geometry, volume
from n4ax_bids.io.finite import extremes, has_contrast, require_finite
from n4ax_bids.io.volume import Volume
from n4ax_bids.masks.brain_programs import TOOLS
from n4ax_bids.masks.region import LEAVE_OUT, Region
from n4ax_bids.masks.region import region as find_region
from n4ax_bids.masks.skull_strip import Means
from n4ax_bids.runtime import device as devices
from n4ax_bids.runtime import sharing
from n4ax_bids.runtime.timing import timed

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """An image and the region in which its field is estimated."""

    image: Volume
    shift: float
    """value that was subtracted from every voxel"""
    region: Region


@dataclass
class Made:
    """What was computed from an image."""

    estimate: Estimate
    corrected: np.ndarray
    """float32"""
    bias: np.ndarray
    """float32, the field"""
    numbers: FieldNumbers
    scale: tuple[float, float] | None = None
    """slope and intercept of the rescaling; None without it"""
    notes: tuple[str, ...] = ()


def find(asked: CallArguments, image: Volume, means: Means) -> Region:
    """Read or find mask and weight."""
    region = find_region(
        image,
        mask_image=asked.mask_image,
        auto_mask=asked.auto_mask,
        weight_image=asked.weight_image,
        mask_transform=asked.mask_transform,
        weight_transform=asked.weight_transform,
        means=means,
    )
    if region.mask_values is not None and asked.rescale_intensities:
        # The range for rescaling counts all of the mask, whatever the weight.
        require_finite(image.path, image.data, region.mask, LEAVE_OUT)
    return region


def solve(
    asked: CallArguments, found: Found, where: jax.Device, seconds: dict[str, float]
) -> Made:
    """Estimate the field on the device and divide the image by it."""
    image, _, region = found
    with _naming(image.path, region.name):
        with timed(seconds, "mask"):
            run = _prepare(asked, image, region)
        # Only the computation on the device holds it; other threads read and write meanwhile.
        estimate, took = sharing.solved(run, where, asked.report)
        seconds["solve"] = seconds.get("solve", 0.0) + took
        with timed(seconds, "divide"), devices.one_thread():
            done = division(image.data, estimate.log_field, region.inside, asked.field_scale)
            if not done.usable:
                raise _not_usable(*limits(image.data.shape, done.log_field))
    numbers = FieldNumbers(
        n_voxels_mask=done.numbers.n_inside,
        non_positive=done.numbers.non_positive,
        field_min=done.numbers.lowest,
        field_max=done.numbers.highest,
        field_cv=done.numbers.variation,
    )
    estimate = estimate._replace(log_field=done.log_field)
    return Made(estimate, done.corrected, done.bias, numbers)


def _not_usable(low: float, high: float) -> ValueError:
    """Return the error for a field that is not finite or not above 0, or overflows the image."""
    return ValueError(
        f"no usable field: its logarithm goes from {low:.3g} to {high:.3g} (intensities <= 0 "
        "inside the mask enter the estimate as they are; use a mask or shift the image)"
    )


def finish(asked: CallArguments, found: Found, made: Made) -> None:
    """With a mask file, restore the voxels outside it and rescale those inside, as ANTs does.

    `made` is changed, so that memory holds no more versions of the image than needed.
    """
    values, mask = found.image.data, found.region.mask_values
    if mask is None:
        return
    if not asked.correct_outside:
        made.corrected = restored(made.corrected, values, mask)
    if asked.rescale_intensities:
        made.corrected, made.scale = rescaled(made.corrected, values, mask)
        made.notes = () if made.scale else (f"{found.region.name}: {NOT_RESCALED}",)


def all_notes(found: Found, made: Made) -> tuple[str, ...]:
    """Return the notes on image, region and result."""
    image, _, region = found
    dark = without_logarithm(
        made.numbers["non_positive"],
        made.numbers["n_voxels_mask"],
        masked=region.inside is not None,
    )
    others = () if dark is None else (dark,)
    return (*image.notes, *region.notes, *made.notes, *made.estimate.notes, *others)


def load_image(asked: CallArguments) -> tuple[Volume, float]:
    """Load the image; return it with the value that was subtracted to remove negative ones."""
    path, dimension = asked.input_image, asked.dimension
    image = volume.load(path)
    n_axes, shape = image.data.ndim, image.data.shape
    if not (dimension is None or is_among(dimension, (2, 3))):
        raise ValueError(f"{path}: dimension is {shown(dimension)}; expected 2 or 3")
    if dimension is not None and dimension != n_axes:
        raise ValueError(f"{path}: shape {shape} has {n_axes} axes; dimension is {dimension}")
    if not (image.finite is image.data and has_contrast(image.data)):
        _require_contrast(image)
    for note in image.notes:
        _log.info(note)
    return volume.lifted(image) if asked.shift_negative else (image, 0.0)


def _require_contrast(image: Volume) -> None:
    """Refuse an image without numbers, or with a single one."""
    low, high = extremes(image.data)
    if math.isnan(low):
        raise ValueError(f"{image.path}: every voxel is NaN or infinite; expected numbers")
    if low == high:
        raise ValueError(
            f"{image.path}: constant image, every voxel is {low:g}; expected contrast"
        )


@contextmanager
def _naming(path: Path, mask: str) -> Iterator[None]:
    """Prefix errors of the array functions, which know no file, with the image's name."""
    try:
        yield
    except NothingSampled as error:
        raise ValueError(f"{path}: {error.found} (mask: {mask}); try --shrink-factor 1") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _prepare(asked: CallArguments, image: Volume, region: Region) -> Solve:
    """Prepare the solve, with the geometry and the sampled voxels that ITK finds."""
    place = geometry.read_geometry(image.path, image.data.ndim)
    headers = {
        "image": image.path,
        "mask": region.mask_header,
        "weight": region.weight_header,
    }

    def sampling(role: str, padded: Any, factors: Any, lower: Any) -> tuple[int, ...] | None:
        path = headers[role]
        if path is None:
            return None
        if path == image.path:
            return geometry.shrink_start(place, padded, factors, lower)
        return geometry.itk_shrink_start(path, padded, factors, lower)

    automatic = None
    if region.name in TOOLS:
        automatic = Automatic(f"{TOOLS[region.name].name}'s", cause="")
    elif region.mask is not None and region.mask_values is None:
        automatic = Automatic(NAMES[region.name])
    given = Given(
        image.data,
        region.mask,
        region.weight,
        place.spacing,
        automatic=automatic,
        sampling=sampling,
    )
    return methods.load(asked.method.prepare)(given, asked.options)
