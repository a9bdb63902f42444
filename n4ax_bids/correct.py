"""Correct one image file: load, mask, estimate, divide, save."""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import os
import sys
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax

from n4ax_bids import arguments, compilation, methods
from n4ax_bids import device as devices
from n4ax_bids.arguments import is_among, require_bools, shown, suggesting
from n4ax_bids.core.arrays import NothingSampled
from n4ax_bids.core.call import NAMES, without_logarithm
from n4ax_bids.core.estimator import Automatic, Given, Report, Solve
from n4ax_bids.core.field import divide
from n4ax_bids.correction import Correction, field_of, statistics
from n4ax_bids.image_files import Outputs, checked, parametrisation, save, stored
from n4ax_bids.io import geometry, volume
from n4ax_bids.io.finite import extremes, require_finite
from n4ax_bids.io.volume import Volume
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS
from n4ax_bids.region import LEAVE_OUT, Region
from n4ax_bids.region import region as find_region
from n4ax_bids.rescale import NOT_RESCALED, rescaled, restored
from n4ax_bids.skull_strip import TOOLS, Means

_log = logging.getLogger(__name__)


@suggesting("correct")
def correct(
    input_image: str | Path,
    output_image: str | Path | None,
    *,
    bias_image: str | Path | None = None,
    lattice_image: str | Path | None = None,
    mask_image: str | Path | None = None,
    auto_mask: Literal["otsu", "auto", "head", "brain", "synthstrip", "hd-bet"] | None = None,
    weight_image: str | Path | None = None,
    options: Any = None,
    rescale_intensities: bool = True,
    output_dtype: Literal["float32", "source"] = "float32",
    copy_header: bool = False,
    device: str = "auto",
    dimension: int | None = None,
    report: Report | None = None,
    shift_negative: bool = False,
    correct_outside: bool = False,
    mask_transform: str | Path | None = None,
    weight_transform: str | Path | None = None,
    found_mask_image: str | Path | None = None,
    method_images: Mapping[str, str | Path] | None = None,
) -> Correction:
    """Correct the bias field of one image.

    The method is the one that the options belong to; by default this does what the ANTs program
    `N4BiasFieldCorrection` does.

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
        brain where one is found, else the head, else Otsu's mask; "synthstrip" or "hd-bet" for
        the brain that this program finds, which has to be installed
    weight_image : confidence; voxels with a weight <= 0 take no part
    options : options of a method, such as N4Options; the ANTs program's defaults where not given
    rescale_intensities : ANTs' option -r; acts with a mask file only
    output_dtype : type of the corrected voxels in the file, or "source" for the input's own
    copy_header : keep the input's intent and display range in the headers of the outputs too, as
        nipype's input of that name does; ANTs leaves them out, for they are of the input's values
    device : "auto", "cpu", "gpu" or "gpu:N"
    dimension : 2 or 3 if the image must have so many axes
    report : called after each iteration with level, iteration and stopping statistic
    shift_negative : if the lowest value is negative, bring it to 0 first, and leave it there
    correct_outside : with a mask file, correct the voxels outside it as well
    mask_transform, weight_transform : ITK transform files that take images from the image's
        space to that of the mask or weight, which is then resampled onto the image's grid
    found_mask_image : .nii or .nii.gz, where the mask that `auto_mask` finds is written as 0 and 1
    method_images : .nii or .nii.gz for further images of the method, by the labels of its outputs

    Raises
    ------
    TypeError
        If a file is no path but, say, an image of nibabel, or `options` belong to no method.
    OSError, ValueError
        If an input, an option or the device does not fit, or a program that finds the mask is
        not installed or fails; one line that names the file. No file has been written then.
    """
    method = methods.of_options(options)
    options = method.options() if options is None else options
    method_images = dict(method_images or {})
    _require_labels(method, method_images)
    _require_paths(
        input_image=input_image,
        output_image=output_image,
        bias_image=bias_image,
        lattice_image=lattice_image,
        mask_image=mask_image,
        weight_image=weight_image,
        found_mask_image=found_mask_image,
        **{f"method_images[{label!r}]": path for label, path in method_images.items()},
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
        further=method_images,
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
            means=_means(where, outputs),
        )
        if region.mask_values is not None and rescale_intensities:  # the range counts all of it
            require_finite(image.path, image.data, region.mask, LEAVE_OUT)
    with _naming(image.path, region.name):
        with _timed(seconds, "mask"):
            solve = _prepare(method, image, region, options)
        # Only what computes on the device holds it; other threads read and write meanwhile.
        with devices.use(where), compilation.kept(), _timed(seconds, "solve"):
            result = solve(report)
        with _timed(seconds, "divide"), devices.few_threads():
            corrected, log_bias = divide(image.data, result.log_field)
            bias = field_of(image.data, corrected, log_bias)

    with _timed(seconds, "divide"):
        scale, notes = None, region.notes
        if region.mask_values is not None:
            if not correct_outside:
                corrected = restored(corrected, image.data, region.mask_values)
            if rescale_intensities:
                corrected, scale = rescaled(corrected, image.data, region.mask_values)
                notes += () if scale else (f"{region.name}: {NOT_RESCALED}",)
        numbers = statistics(image.data, bias, region.inside)
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
            further=result.images,
        )
    slope, intercept = scale or (1.0, 0.0)
    stored_slope, stored_intercept = stored(outputs.output_image)
    return Correction(
        *outputs[:4],
        method_images=dict(outputs.further),
        mask=region.name,
        mask_found=dict(region.facts),
        shift=shift,
        device=devices.describe(where),
        method=method.name,
        details=result.details,
        lattice=parametrisation(result.log_field, image.data.shape),
        rescaled=scale is not None,
        rescale_slope=slope,
        rescale_intercept=intercept,
        stored_slope=stored_slope,
        stored_intercept=stored_intercept,
        notes=(
            *image.notes,
            *notes,
            *result.notes,
            *filter(None, [_without_logarithm(region, numbers)]),
        ),
        sha256={"input_image": image.sha256} | region.sha256,
        seconds=seconds,
        **numbers,
    )


def _require_words(output_dtype: object, auto_mask: object, report: object) -> None:
    if not is_among(output_dtype, ("float32", "source")):
        raise ValueError(f"output_dtype is {shown(output_dtype)}; expected float32 or source")
    known = (*MASK_WORDS, *MASK_PROGRAMS)
    if not (auto_mask is None or is_among(auto_mask, known)):
        words = ", ".join(known)
        raise ValueError(f"auto_mask is {shown(auto_mask)}; expected one of {words} or None")
    if not (report is None or callable(report)):
        raise TypeError(f"report is {shown(report)}; expected a function or None")


def _require_labels(method: methods.Method, images: Mapping[str, object]) -> None:
    known = [output.label for output in method.outputs]
    for label in images:
        if label not in known:
            has = ", ".join(known) or "none"
            raise ValueError(
                f"method_images has {label!r}; expected outputs of {method.name}: {has}"
            )


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


def _means(where: jax.Device, outputs: Outputs) -> Means:
    """Return what a program that finds the mask may take: the device of the solve, its threads."""
    folder = next((path.parent for path in outputs[:4] if path), None)
    gpu = None if where.platform == "cpu" else where.id
    return Means(gpu, devices.start(), folder, devices.is_closed)


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


def _prepare(method: methods.Method, image: Volume, region: Region, options: Any) -> Solve:
    """Prepare the solve of an image, whose geometry and sample phases are as ITK has them."""
    place = geometry.read_geometry(image.path, image.data.ndim)
    headers = {
        "image": image.path,
        "mask": region.mask_header,
        "weight": region.weight_header,
    }

    def sampling(role: str, padded: Any, factors: Any, lower: Any) -> tuple[int, ...] | None:
        path = headers[role]
        return path and geometry.itk_shrink_start(path, padded, factors, lower)

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
    return methods.load(method.prepare)(given, options)


def _without_logarithm(region: Region, numbers: Mapping[str, int | float]) -> str | None:
    n, n_voxels = int(numbers["non_positive"]), int(numbers["n_voxels_mask"])
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
