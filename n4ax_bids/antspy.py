"""ANTsPy's names for N4, computed by this package.

A script that corrects with ANTsPy needs to change one import: `import n4ax_bids.antspy as ants`.
The functions below have the arguments, the defaults and the numbers of ANTsPy's; every other name
is ANTsPy's own. ANTsPy's function runs the ANTs program, so the settings are read here as that
program reads them. jax is imported at the first solve, and ANTsPy for its own names alone.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from n4ax_bids.arguments import kind
from n4ax_bids.commands.ants_cli import reporter
from n4ax_bids.foreign import ants
from n4ax_bids.options import N4Options

__all__ = ["abp_n4", "n4_bias_field_correction"]

CONVERGENCE: Mapping[str, Any] = MappingProxyType({"iters": [50, 50, 50, 50], "tol": 1e-7})


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("ants"), name)
    except ModuleNotFoundError as error:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r} of its own; expected antspyx, which "
            "has ANTsPy's other names (pip install antspyx)"
        ) from error


def n4_bias_field_correction(
    image: Any,
    mask: Any = None,
    rescale_intensities: bool = False,
    shrink_factor: int = 4,
    convergence: Mapping[str, Any] = CONVERGENCE,
    spline_param: float | Sequence[float] | None = None,
    return_bias_field: bool = False,
    verbose: bool = False,
    weight_mask: Any = None,
) -> Any:
    """Correct the bias field of an image.

    Parameters
    ----------
    image : ANTsImage of one component, 2 or 3 axes
    mask : ANTsImage, not 0 = inside; None for every voxel. Outside, the result is the image.
    rescale_intensities : map the result, where the mask is 1, to the range of the image in it
    shrink_factor : estimate the field on every n-th voxel of each axis
    convergence : `iters`, the most iterations of each level, and `tol`, the threshold
    spline_param : a number for the distance of knots in whole mm, or one number for each axis for
        the spans of the first level; None for one span on each axis
    return_bias_field : return the field instead of the corrected image
    verbose : print each iteration in the words of the ANTs program
    weight_mask : ANTsImage, confidence of each voxel

    Returns
    -------
    ANTsImage of float32 in the place of the image

    Raises
    ------
    KeyError, TypeError, ValueError
        If an argument is of another kind.
    RuntimeError
        If the ANTs program would end with an error, or its result would be meaningless.

    Notes
    -----
    A mask or weight of any pixel type counts with its values. ANTsPy passes its memory to a
    program that reads float32 whatever the type, so `image > 10` is not the mask there that it
    is here; with `mask.clone("float")` both agree.
    """
    _require_image("image", image, TypeError)
    if mask is not None:
        _require_image("mask", mask, TypeError)
    if weight_mask is not None:
        _require_image("weight_mask", weight_mask, ValueError)
    words = ["-s", str(shrink_factor), "-c", _levels(convergence)]
    words += ["-b", _mesh(spline_param, image.dimension)]
    try:
        settings, _ = ants.parse(words)
        options = N4Options(
            **{key: value for each in settings.values() for key, value in each.items()}
        )
        corrected, bias = _corrected(
            image, mask, weight_mask, options, rescale_intensities, verbose
        )
    except ValueError as error:
        raise RuntimeError(f"n4_bias_field_correction: {error}") from error
    return image.new_image_like(bias if return_bias_field else corrected)


def abp_n4(
    image: Any,
    intensity_truncation: Sequence[float] = (0.025, 0.975, 256),
    mask: Any = None,
    usen3: bool = False,
) -> Any:
    """Truncate the intensities of an image with ANTsPy, then correct it.

    Parameters
    ----------
    image : ANTsImage
    intensity_truncation : low and high quantile, and the number of bins of their histogram
    mask : ANTsImage, as above
    usen3 : use N3, ANTsPy's own

    Returns
    -------
    ANTsImage
    """
    if usen3:
        theirs = importlib.import_module("ants")
        return theirs.abp_n4(image, intensity_truncation, mask, usen3)
    if not isinstance(intensity_truncation, list | tuple) or len(intensity_truncation) != 3:
        raise ValueError("intensity_truncation must be list/tuple with 3 values")
    theirs = importlib.import_module("ants")
    truncated = theirs.iMath(image, "TruncateIntensity", *intensity_truncation)
    return n4_bias_field_correction(truncated, mask)


def _require_image(name: str, value: Any, error: type[Exception]) -> None:
    if not all(hasattr(value, part) for part in ("new_image_like", "pixeltype", "direction")):
        raise error(f"{name} is {kind(value)}; expected an ANTsImage")


def _levels(convergence: Mapping[str, Any]) -> str:
    iterations = "x".join(str(n) for n in convergence["iters"])
    return f"[{iterations},{convergence['tol']:.10f}]"


def _mesh(given: float | Sequence[float] | None, n_axes: int) -> str:
    """Return the spline of the first level in the words of the ANTs program."""
    if given is None:
        return _mesh([1] * n_axes, n_axes)
    if not isinstance(given, Sequence):
        return f"[{int(given)}]"
    if len(given) == 1:
        return f"[{int(given[0])}]"
    if len(given) != n_axes:
        raise ValueError(
            f"spline_param has {len(given)} numbers; expected one, or {n_axes} as the image's axes"
        )
    return f"[{'x'.join(str(n) for n in given)}]"


def _corrected(
    image: Any, mask: Any, weight: Any, options: N4Options, rescale: bool, verbose: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corrected image and the field, finished as the ANTs program does with a mask."""
    from n4ax_bids.core.call import N4Warning
    from n4ax_bids.core.estimator import Given
    from n4ax_bids.core.field import divide
    from n4ax_bids.foreign.solve import solve
    from n4ax_bids.image.rescale import rescaled, restored

    values = np.asarray(image.numpy(), np.float32)
    if image.components != 1:
        raise ValueError(f"image has {image.components} components; expected 1")
    images = {"image": image, "mask": mask, "weight": weight}
    arrays = {name: _array(name, each, image) for name, each in images.items()}
    given = Given(
        values,
        arrays["mask"],
        arrays["weight"],
        tuple(image.spacing),
        sampling=_sampling(images),
    )
    estimate = solve(given, options, reporter(options) if verbose else None)
    for note in estimate.notes:
        warnings.warn(note, N4Warning, stacklevel=3)
    corrected, log_bias = divide(values, estimate.log_field)
    inside = arrays["mask"]
    if inside is not None:
        corrected = restored(corrected, values, inside)
    if rescale:
        every = np.ones(values.shape, np.float32) if inside is None else inside
        corrected, _ = rescaled(corrected, values, every)
    return corrected, np.exp(log_bias)


def _array(name: str, given: Any, image: Any) -> np.ndarray | None:
    """Return the voxels of a mask or weight; it must lie where the image lies."""
    from n4ax_bids.io.geometry import itk_takes_as_same

    if given is None:
        return None
    if given.shape != image.shape or not itk_takes_as_same(_place(image), _place(given)):
        raise ValueError(
            f"{name} has shape {given.shape}, spacing {given.spacing} and origin {given.origin}; "
            f"expected those of the image, {image.shape}, {image.spacing} and {image.origin}, and "
            "its direction"
        )
    return np.asarray(given.numpy(), np.float32)


def _sampling(images: Mapping[str, Any]) -> Callable[..., tuple[int, ...] | None]:
    """Return what says which voxels ITK samples in each image, by its own geometry."""
    from n4ax_bids.io.geometry import shrink_start

    def sampling(role: str, padded: Any, factors: Any, lower: Any) -> tuple[int, ...] | None:
        given = images[role]
        return None if given is None else shrink_start(_place(given), padded, factors, lower)

    return sampling


def _place(image: Any) -> Any:
    from n4ax_bids.io.geometry import Geometry

    numbers = (image.spacing, image.origin, np.ravel(image.direction))
    return Geometry(*(tuple(float(value) for value in each) for each in numbers))
