"""Correct one image file: load, mask, estimate, divide, save."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from n4ax_bids import arguments, compilation
from n4ax_bids import device as devices
from n4ax_bids.arguments import is_among, require_bools, shown, suggesting
from n4ax_bids.core.field import divide
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.call import NAMES
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import Plan, padding, plan, shrink_factors
from n4ax_bids.core.n4.remarks import remarks, without_logarithm
from n4ax_bids.core.n4.take import NothingSampled
from n4ax_bids.io import geometry, placement, volume
from n4ax_bids.io.finite import extremes, require_finite
from n4ax_bids.io.volume import Volume
from n4ax_bids.options import MASK_WORDS, N4Options, require_options
from n4ax_bids.outputs import checked, parametrisation, save, stored
from n4ax_bids.region import LEAVE_OUT, Region
from n4ax_bids.region import region as find_region
from n4ax_bids.rescale import NOT_RESCALED, rescaled, restored

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Correction:
    """What was done to an image."""

    output_image: Path | None
    bias_image: Path | None
    lattice_image: Path | None
    found_mask_image: Path | None
    mask: str
    """"none", the word of an automatic mask ("otsu", "auto", ...), or the mask's path"""
    mask_found: dict[str, str | int | float | None]
    """for "auto", "head" and "brain", empty for others: kind, share of the image's voxels, rounds,
    confidence, and otsu_covers, the share of the mask that Otsu's threshold alone would find"""
    n_voxels_mask: int
    """voxels inside the mask and of positive weight, full grid"""
    n_voxels_used: int
    """those of the shrunk grid that the estimate saw"""
    shift: float
    """subtracted from every voxel first: the lowest value where that is negative, else 0"""
    non_positive: int
    """voxels inside the mask with an intensity <= 0; they enter the estimate without logarithm"""
    device: str
    n_iterations: tuple[int, ...]
    convergence: tuple[float, ...]
    converged: tuple[bool, ...]
    shrink_factors: tuple[int, ...]
    shrink_start: tuple[int, ...]
    """first sample on each axis; negative in the padding of a spline distance"""
    n_control_points: tuple[int, ...]
    """of the first level"""
    lattice: dict[str, int | tuple[float, ...]]
    """order, first, step and clamp of the log field, and the shape of the image"""
    rescaled: bool
    """whether any voxel was: those where the mask is 1, if rescaling is asked for"""
    rescale_slope: float
    rescale_intercept: float
    """u = slope·v/b + intercept where the mask is 1; 1 and 0 without rescaling"""
    stored_slope: float
    stored_intercept: float
    """u = slope·voxel + intercept for the voxels of the corrected file; 1 and 0 if it is float"""
    field_min: float
    field_max: float
    field_cv: float
    """coefficient of variation of b; like its range, inside the mask"""
    notes: tuple[str, ...]
    """what a person should know about the inputs"""
    sha256: dict[str, str]
    """of the input files, as they were when they were read, by the names of `correct`'s inputs"""
    seconds: dict[str, float] = dataclasses.field(compare=False)
    """wall time of decode, mask, solve, divide and encode; not that of waiting for the device"""


@suggesting("correct")
def correct(
    input_image: str | Path,
    output_image: str | Path | None,
    *,
    bias_image: str | Path | None = None,
    lattice_image: str | Path | None = None,
    mask_image: str | Path | None = None,
    auto_mask: Literal["otsu", "auto", "head", "brain"] | None = None,
    weight_image: str | Path | None = None,
    options: N4Options | None = None,
    rescale_intensities: bool = True,
    output_dtype: Literal["float32", "source"] = "float32",
    copy_header: bool = False,
    device: str = "auto",
    dimension: int | None = None,
    report: Callable[[int, int, float], None] | None = None,
    shift_negative: bool = False,
    correct_outside: bool = False,
    mask_transform: str | Path | None = None,
    weight_transform: str | Path | None = None,
    found_mask_image: str | Path | None = None,
) -> Correction:
    """Correct the bias field of one image as the ANTs program `N4BiasFieldCorrection` does.

    Without a mask every voxel counts. With a mask *file* only its non-zero voxels are corrected
    (the others keep their values) and, where it is 1, rescaled to the range that the image had
    inside it. With `auto_mask` the mask serves the estimate only: corrected × field = input
    everywhere; `correct_outside` does the same for a mask file. The outputs appear together,
    once everything else has gone well.

    Voxels that are NaN or infinite are refused where they are used, and stay as they are
    elsewhere: outside a mask file, or where the weight is 0.

    Parameters
    ----------
    input_image : NIfTI file
    mask_image, weight_image : NIfTI files on the image's voxels, in any order of the axes
    output_image, bias_image, lattice_image : .nii or .nii.gz, None for no such file; the folders
        must exist
    auto_mask : "otsu" for the voxels above Otsu's threshold; "head", "brain", or "auto" for the
        brain where one is found, else the head, else Otsu's mask
    weight_image : confidence; voxels with a weight <= 0 take no part
    options : N4Options, the ANTs program's defaults where not given
    rescale_intensities : ANTs' option -r; acts with a mask file only
    output_dtype : type of the corrected voxels in the file, or "source" for the input's own
    copy_header : keep the input's intent and display range in the headers of the outputs too, as
        nipype's input of that name does; ANTs leaves them out, for they are of the input's values
    device : "auto", "cpu", "gpu" or "gpu:N"
    dimension : 2 or 3 if the image must have so many axes
    report : called after each iteration, as `n4ax_bids.core.n4.estimate` does
    shift_negative : if the lowest value is negative, bring it to 0 first, and leave it there
    correct_outside : with a mask file, correct the voxels outside it as well
    mask_transform, weight_transform : ITK transform files that take images from the image's
        space to that of the mask or weight, which is then resampled onto the image's grid
    found_mask_image : .nii or .nii.gz, where the mask that `auto_mask` finds is written as 0 and 1

    Raises
    ------
    TypeError
        If a file is no path but, say, an image of nibabel, or `options` are no N4Options.
    OSError, ValueError
        If an input, an option or the device does not fit; one line that names the file. No file
        has been written then.
    """
    options = require_options(options)
    _require_paths(
        input_image=input_image,
        output_image=output_image,
        bias_image=bias_image,
        lattice_image=lattice_image,
        mask_image=mask_image,
        weight_image=weight_image,
        found_mask_image=found_mask_image,
    )
    _require_paths(
        "an ITK transform", mask_transform=mask_transform, weight_transform=weight_transform
    )
    require_bools(
        rescale_intensities=rescale_intensities,
        copy_header=copy_header,
        shift_negative=shift_negative,
        correct_outside=correct_outside,
    )
    _require_words(output_dtype, auto_mask, report)
    for name, transform, file in (
        ("mask", mask_transform, mask_image),
        ("weight", weight_transform, weight_image),
    ):
        if transform is not None and file is None:
            raise ValueError(f"{transform}: {name}_transform without {name}_image; expected both")
    if found_mask_image is not None and auto_mask is None:
        raise ValueError(
            f"{found_mask_image}: no mask is found without auto_mask; expected it too"
        )
    outputs = checked(
        output_image,
        bias_image,
        lattice_image,
        found_mask_image,
        inputs={"input image": input_image, "mask": mask_image, "weight": weight_image},
    )
    where = devices.resolve(device)
    seconds: dict[str, float] = {}
    with _timed(seconds, "decode"):
        image = _load_image(input_image, dimension)
        for note in image.notes:
            _log.info(note)
        shift = 0.0
        if shift_negative:
            image, shift = volume.lifted(image)
    with _timed(seconds, "mask"):
        region = find_region(
            image,
            mask_image=mask_image,
            auto_mask=auto_mask,
            weight_image=weight_image,
            mask_transform=mask_transform,
            weight_transform=weight_transform,
        )
        if region.mask_values is not None and rescale_intensities:  # the range counts all of it
            require_finite(image.path, image.data, region.mask, LEAVE_OUT)
    with _naming(image.path, region.name):
        solve = _plan(image, region, options)
        with _timed(seconds, "mask"):
            doubt = _doubt(image, region, solve)
        # Only what computes on the device holds it; other threads read and write meanwhile.
        with devices.use(where), compilation.kept(), _timed(seconds, "solve"):
            result = estimate(image.data, region.mask, region.weight, plan=solve, report=report)
        with _timed(seconds, "divide"), devices.few_threads():
            # The image is on the host, and so is what it is divided into.
            divided = divide(image.data, result.log_field)
            corrected, log_bias = cast(tuple[np.ndarray, np.ndarray], divided)
            bias = _field(image.data, corrected, log_bias)

    with _timed(seconds, "divide"):
        scale, notes = None, region.notes
        if region.mask_values is not None:
            if not correct_outside:
                corrected = restored(corrected, image.data, region.mask_values)
            if rescale_intensities:
                corrected, scale = rescaled(corrected, image.data, region.mask_values)
                notes += () if scale else (f"{region.name}: {NOT_RESCALED}",)
        statistics = _statistics(image.data, bias, region.inside)
    with _timed(seconds, "encode"):
        save(
            outputs,
            image,
            corrected,
            bias,
            result.log_field,
            region.mask,
            output_dtype,
            whole=copy_header,
        )
    slope, intercept = scale or (1.0, 0.0)
    stored_slope, stored_intercept = stored(outputs.output_image)
    return Correction(
        *outputs,
        mask=region.name,
        mask_found=dict(region.facts),
        n_voxels_used=result.n_voxels,
        shift=shift,
        device=devices.describe(where),
        n_iterations=tuple(result.n_iterations),
        convergence=tuple(float(value) for value in result.convergence),
        converged=tuple(bool(value) for value in result.converged),
        shrink_factors=solve.shrink_factors,
        shrink_start=solve.image_start,
        n_control_points=solve.n_control_points,
        lattice=parametrisation(result.log_field, image.data.shape),
        rescaled=scale is not None,
        rescale_slope=slope,
        rescale_intercept=intercept,
        stored_slope=stored_slope,
        stored_intercept=stored_intercept,
        notes=(
            *image.notes,
            *notes,
            *remarks(result, solve, doubt),
            *filter(None, [_without_logarithm(region, statistics)]),
        ),
        sha256={"input_image": image.sha256} | region.sha256,
        seconds=seconds,
        **cast(dict[str, Any], statistics),
    )


def _require_words(output_dtype: object, auto_mask: object, report: object) -> None:
    if not is_among(output_dtype, ("float32", "source")):
        raise ValueError(f"output_dtype is {shown(output_dtype)}; expected float32 or source")
    if not (auto_mask is None or is_among(auto_mask, MASK_WORDS)):
        words = ", ".join(MASK_WORDS)
        raise ValueError(f"auto_mask is {shown(auto_mask)}; expected one of {words} or None")
    if not (report is None or callable(report)):
        raise TypeError(f"report is {shown(report)}; expected a function or None")


def _require_paths(what: str = "a NIfTI file", /, **files: str | Path | None) -> None:
    """Refuse arrays and images where a path belongs; all but the input may be None."""
    for name, value in files.items():
        if not (isinstance(value, str | os.PathLike) or (value is None and name != "input_image")):
            raise TypeError(
                f"{name} is {arguments.kind(value)}; expected the path of {what} "
                "(for arrays call n4ax_bids.n4)"
            )
        if isinstance(value, str) and not value:
            raise ValueError(f"{name} is ''; expected the path of a file")


def _doubt(image: Volume, region: Region, solve: Plan) -> str | None:
    """Check an automatic mask; return what is odd about it."""
    if region.mask is None or region.mask_values is not None:
        return None
    return check_automatic_mask(image.data, region.mask, solve, NAMES[region.name])


def memory_needed(input_image: str | Path, options: N4Options) -> int:
    """Return about how many bytes `correct` takes at most for an image, from its header alone.

    Measured: 20 bytes a voxel of the image, and 40 for each that the estimate sees at shrink 1.

    Raises
    ------
    OSError, ValueError
        If the file has no header that can be read; one line that names it.
    """
    header = volume.load_header(input_image)
    factors: tuple[int, ...] = (options.shrink_factor,) * 3
    if options.shrink_mm is not None:
        shape = header.get_data_shape()[:3]
        factors = shrink_factors(options, shape, placement.zooms(header, len(shape)))
    return math.prod(header.get_data_shape()) * (24 + 40 // math.prod(factors))


def axes(input_image: str | Path) -> int:
    """Return how many axes `correct` sees in an image, 2 or 3, from its header alone.

    Raises
    ------
    OSError, ValueError
        If the file has no header that can be read; one line that names it.
    """
    shape = volume.load_header(input_image).get_data_shape()
    return 2 if math.prod(shape[2:]) == 1 else 3


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that the block takes to that of a stage."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def _load_image(path: str | Path, dimension: int | None) -> Volume:
    image = volume.load(path)
    n_axes, shape = image.data.ndim, image.data.shape
    if not (dimension is None or is_among(dimension, (2, 3))):
        raise ValueError(f"{path}: dimension is {shown(dimension)}; expected 2 or 3")
    if dimension is not None and dimension != n_axes:
        raise ValueError(f"{path}: shape {shape} has {n_axes} axes; dimension is {dimension}")
    low, high = extremes(image.data)
    if math.isnan(low):
        raise ValueError(f"{path}: every voxel is NaN or infinite; expected numbers")
    if low == high:
        raise ValueError(f"{path}: constant image, every voxel is {low:g}; expected contrast")
    return image


@contextmanager
def _naming(path: Path, mask: str) -> Iterator[None]:
    """Put the image's name before what the array functions, which know none, object to."""
    try:
        yield
    except NothingSampled as error:
        raise ValueError(f"{path}: {error.found} (mask: {mask}); try --shrink-factor 1") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _plan(image: Volume, region: Region, options: N4Options) -> Plan:
    """Sizes and positions for this image; geometry and sample phases as ITK has them.

    Each file is shrunk by its own header, as ANTs does.
    """
    shape = image.data.shape
    place = geometry.read_geometry(image.path, len(shape))
    pads = padding(options, shape, place.spacing)
    padded = [n + sum(pad) for n, pad in zip(shape, pads, strict=True)]
    factors = shrink_factors(options, shape, place.spacing)

    def start(path: Path | None) -> tuple[int, ...] | None:
        lower = [pad[0] for pad in pads]
        return geometry.itk_shrink_start(path, padded, factors, lower) if path else None

    return plan(
        options,
        shape,
        place.spacing,
        image_start=start(image.path),
        mask_start=start(region.mask_header),
        weight_start=start(region.weight_header),
    )


def _field(image: np.ndarray, corrected: np.ndarray, log_bias: np.ndarray) -> np.ndarray:
    """Return the field, in place of its logarithm; refuse one that is not finite or not > 0."""
    low, high = log_bias.min(), log_bias.max()
    with np.errstate(over="ignore", under="ignore"):
        usable = 0 < np.exp(low) and np.exp(high) < np.inf
    if not (usable and _finite_where_image_is(corrected, image)):
        raise ValueError(
            f"no usable field: its logarithm goes from {low:.3g} to {high:.3g} (intensities <= 0 "
            "inside the mask enter the estimate as they are; use a mask or shift the image)"
        )
    return np.exp(log_bias, out=log_bias)


def _finite_where_image_is(corrected: np.ndarray, image: np.ndarray) -> bool:
    """Return whether division has made no voxel NaN or infinite that was a number before."""
    if np.isfinite(corrected.min()) and np.isfinite(corrected.max()):
        return True
    return bool((np.isfinite(corrected) | ~np.isfinite(image)).all())


def _statistics(
    image: np.ndarray, bias: np.ndarray, inside: np.ndarray | None
) -> dict[str, int | float]:
    with np.errstate(invalid="ignore"):  # NaN outside the mask
        non_positive = image <= 0
    field = bias.T
    if inside is not None:
        non_positive &= inside
        field = field[inside.T]  # Fortran order: one sweep over memory
    return {
        "n_voxels_mask": int(field.size),
        "non_positive": int(np.count_nonzero(non_positive)),
        "field_min": float(field.min()),
        "field_max": float(field.max()),
        "field_cv": float(field.std(dtype=np.float64) / field.mean(dtype=np.float64)),
    }


def _without_logarithm(region: Region, statistics: Mapping[str, int | float]) -> str | None:
    n, n_voxels = int(statistics["non_positive"]), int(statistics["n_voxels_mask"])
    return without_logarithm(n, n_voxels, masked=region.inside is not None)


class _CallableModule(types.ModuleType):
    """This module, which can be called as its function `correct`.

    `from n4ax_bids import correct` and `import n4ax_bids.correct` both yield the module, because
    Python sets a package's attribute to the submodule on import, whatever stood there before. So
    the name means the same in every order of imports, and it works as a function.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Correction:
        return self.correct(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)  # functions can be sent to processes


__signature__ = inspect.signature(correct)
sys.modules[__name__].__class__ = _CallableModule
