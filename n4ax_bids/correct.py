"""Correct one image file: load, mask, estimate, divide, save."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from n4ax_bids import methods
from n4ax_bids.arguments import suggesting
from n4ax_bids.callable_module import CallableModule
from n4ax_bids.core.estimator import Report
from n4ax_bids.image import in_memory, steps
from n4ax_bids.image.outputs import Outputs, parametrisation, save, stored
from n4ax_bids.image.record import Correction
from n4ax_bids.image.request import CallArguments
from n4ax_bids.masks.skull_strip import Means
from n4ax_bids.runtime import device as devices
from n4ax_bids.runtime.timing import timed


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
    field_scale: Literal["as-is", "mean", "median"] = "as-is",
) -> Correction:
    """Correct the bias field of one image file.

    The options decide which method is used; by default the result is that of the ANTs program
    `N4BiasFieldCorrection`.

    Without a mask the estimate uses every voxel. With a mask *file* only its non-zero voxels are
    corrected (the others keep their values), and those where it is 1 are rescaled to the range
    that the image had inside the mask. With `auto_mask` only the estimate uses the mask, and
    corrected × field = input everywhere; `correct_outside` has the same effect for a mask file.
    The output files appear together, after everything else has succeeded.

    Voxels that are NaN or infinite are refused where they are used. Elsewhere, outside a mask file
    or where the weight is 0, they are kept as they are.

    Parameters
    ----------
    input_image : NIfTI file
    mask_image : NIfTI file on the image's voxels, in any order of the axes; not 0 = inside
    output_image, bias_image, lattice_image : .nii or .nii.gz, or None for no such file; the
        folders must exist
    auto_mask : "otsu" for the voxels above Otsu's threshold; "head", "brain", or "auto" for the
        brain where one is found, else the head, else Otsu's mask; "synthstrip" or "hd-bet" for
        the brain that this program finds; it must be installed
    weight_image : NIfTI file like `mask_image`, confidence; voxels with a weight <= 0 are left
        out of the estimate
    options : options of a method, such as N4Options; the ANTs program's defaults where not given
    rescale_intensities : ANTs' option -r; has an effect only with a mask file
    output_dtype : type of the corrected voxels in the file, or "source" for the input's own
    copy_header : keep the input's intent and display range in the headers of the outputs, as
        nipype's input of that name does; ANTs drops them, because they describe the input's values
    device : "auto", "cpu", "gpu" or "gpu:N"
    dimension : number of axes, 2 or 3, that the image must have; None for either
    report : called after each iteration with level, iteration and stopping statistic
    shift_negative : if the lowest value is negative, first subtract it from every voxel; the
        result stays shifted
    correct_outside : with a mask file, correct the voxels outside it as well
    mask_transform, weight_transform : ITK transform files that take images from the image's
        space to that of the mask or weight, which is then resampled onto the image's grid
    found_mask_image : .nii or .nii.gz, the mask that `auto_mask` finds is written here as 0 and 1
    method_images : .nii or .nii.gz for further images of the method, by the labels of its outputs
    field_scale : "mean" or "median" divides the field by its mean or median inside the mask, so
        that the corrected image keeps the level of the input; "as-is" leaves it, as ANTs does

    Returns
    -------
    Correction, the record of what was done

    Raises
    ------
    TypeError
        If a file is not a path (but, for instance, an image of nibabel), or `options` belong to no
        method.
    OSError, ValueError
        If an input, an option or the device does not fit, or a program that finds the mask is
        not installed or fails; one line that names the file. No file is written then.
    """
    method = methods.of_options(options)
    methods.require_arrays(method)
    asked = CallArguments(
        input_image=input_image,
        output_image=output_image,
        bias_image=bias_image,
        lattice_image=lattice_image,
        mask_image=mask_image,
        auto_mask=auto_mask,
        weight_image=weight_image,
        method=method,
        options=method.options() if options is None else options,
        rescale_intensities=rescale_intensities,
        output_dtype=output_dtype,
        copy_header=copy_header,
        dimension=dimension,
        report=report,
        shift_negative=shift_negative,
        correct_outside=correct_outside,
        mask_transform=mask_transform,
        weight_transform=weight_transform,
        found_mask_image=found_mask_image,
        method_images=dict(method_images or {}),
        field_scale=field_scale,
    )
    outputs = asked.checked()
    where = devices.resolve(device)
    seconds: dict[str, float] = {}
    with timed(seconds, "decode"):
        image, shift = steps.load_image(asked)
    with timed(seconds, "mask"):
        region = steps.find(asked, image, _means(where, outputs))
    found = steps.Found(image, shift, region)
    made = steps.solve(asked, found, where, seconds)
    with timed(seconds, "divide"):
        steps.finish(asked, found, made)
    with timed(seconds, "encode"):
        save(
            outputs,
            image,
            made.corrected,
            made.bias,
            made.estimate.log_field,
            region.mask,
            output_dtype,
            whole=copy_header,
            further=made.estimate.images,
        )
    if output_dtype == "float32" and not shift:  # other files hold other values than memory
        in_memory.offer(in_memory.Corrected(image, made.corrected, region))
    return _record(outputs, found, made, where, method.name, seconds)


def _record(
    outputs: Outputs,
    found: steps.Found,
    made: steps.Made,
    where: jax.Device,
    method: str,
    seconds: dict[str, float],
) -> Correction:
    """Return the record of a correction whose files are written."""
    image, shift, region = found
    slope, intercept = made.scale or (1.0, 0.0)
    stored_slope, stored_intercept = stored(outputs.output_image)
    return Correction(
        *outputs[:4],
        method_images=dict(outputs.further),
        mask=region.name,
        mask_found=dict(region.facts),
        shift=shift,
        device=devices.describe(where),
        method=method,
        details=made.estimate.details,
        lattice=parametrisation(made.estimate.log_field, image.data.shape),
        rescaled=made.scale is not None,
        rescale_slope=slope,
        rescale_intercept=intercept,
        stored_slope=stored_slope,
        stored_intercept=stored_intercept,
        notes=steps.all_notes(found, made),
        sha256={"input_image": image.sha256} | region.sha256,
        seconds=seconds,
        **made.numbers,
    )


def _means(where: jax.Device, outputs: Outputs) -> Means:
    """Return what a program that finds the mask may use: the device and threads of the solve."""
    folder = next((path.parent for path in outputs[:4] if path), None)
    gpu = None if where.platform == "cpu" else where.id
    return Means(gpu, devices.start(), folder, devices.is_closed)


__signature__ = inspect.signature(correct)
sys.modules[__name__].__class__ = CallableModule
