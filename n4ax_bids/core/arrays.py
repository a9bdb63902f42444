"""Arguments of callers as image, mask or weight: converted to plain arrays, or refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from n4ax_bids.arguments import kind

_FILES = "for a file call n4ax_bids.correct(input_image, output_image)"
_INSTEAD = {
    "nibabel": "pass np.asanyarray({name}.dataobj), or call n4ax_bids.correct on the file",
    "SimpleITK": "pass SimpleITK.GetArrayFromImage({name}).T, whose axes are in NIfTI order",
    "itk": "pass itk.array_from_image({name}).T, whose axes are in NIfTI order",
    "ants": "pass {name}.numpy()",
}


def as_array(value: Any, name: str) -> jax.Array | np.ndarray | None:
    """Return a numpy or jax array of real numbers; None stays None.

    Lists become arrays. A numpy masked array stays one; see `without_mask`.

    Parameters
    ----------
    value : what was passed
    name : of the argument, for the message

    Raises
    ------
    TypeError
        If it is no array: a file's name, another library's image, or a traced value.
    ValueError
        If it is an array of anything but real numbers.
    """
    if value is None:
        return None
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced by jit, vmap or grad, which N4 cannot be: it decides on the host. "
            "Call n4 outside, n4_batch for many images; core.field.evaluate and divide with a "
            "LogField from core.n4.estimate can be transformed"
        )
    if isinstance(value, str | bytes | os.PathLike):
        raise TypeError(f"{name} is {value!r}; expected an array ({_FILES})")
    if isinstance(value, jax.Array):
        array = value
    else:
        _require_no_foreign_image(value, name)
        try:
            array = np.asanyarray(value)
        except ValueError as error:  # lists of different lengths
            raise ValueError(f"{name} is no array: {error}") from error
    if array.dtype.kind == "O":
        if isinstance(value, np.ndarray):
            raise TypeError(
                f"{name} has the type object; expected real numbers: pass {name}.astype(float)"
            )
        raise TypeError(f"{name} is {kind(value)}; expected an array of real numbers")
    if array.dtype.kind not in "biufV" or array.dtype.names:
        raise ValueError(f"{name} has the type {array.dtype}; expected real numbers")
    return array


def as_list(images: Any) -> list[Any]:
    """Return several images as a list.

    Raises
    ------
    TypeError
        If it is a single image or an array, whose slices would be taken for images.
    """
    if hasattr(images, "ndim") or hasattr(images, "__array__"):
        of_objects = isinstance(images, np.ndarray) and images.dtype.kind == "O"
        is_stack = of_objects or getattr(images, "ndim", 0) >= 4
        remedy = "list(images)" if is_stack and not hasattr(images, "dataobj") else "[image]"
        found = f"images is one array ({kind(images)})"
        raise TypeError(f"{found}; expected a list of arrays: pass {remedy}")
    _require_no_foreign_image(images, "images")
    if isinstance(images, str | bytes | dict | os.PathLike) or not hasattr(images, "__iter__"):
        raise TypeError(f"images is {kind(images)}; expected a list of arrays")
    return list(images)


def one_for_each(name: str, given: Any, n_images: int) -> list[Any]:
    """Return one value for each image; None or a word applies to all.

    Raises
    ------
    TypeError
        If it is a single array or image, or no list.
    ValueError
        If it has another length.
    """
    if given is None or isinstance(given, str):
        return [given] * n_images
    is_array = name != "zooms" and (hasattr(given, "ndim") or hasattr(given, "__array__"))
    if is_array or isinstance(given, bytes | dict) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} is {kind(given)}; expected a list with one for each image")
    _require_no_foreign_image(given, name)
    if len(given) != n_images:
        raise ValueError(f"{len(given)} {name} for {n_images} images; expected as many")
    return list(given)


def one_by_one(
    images: Any, masks: Any, weights: Any, zooms: Any
) -> list[tuple[Any, Any, Any, Any]]:
    """Return the image, mask, weight and zooms of each image; errors as `as_list` and
    `one_for_each`."""
    images = as_list(images)
    given = {"masks": masks, "weights": weights, "zooms": zooms}
    lists = (one_for_each(name, each, len(images)) for name, each in given.items())
    return list(zip(images, *lists, strict=True))


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Prefix the message of an error with the image's number."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"images[{number}]: {error}") from error
    except ValueError as error:
        raise ValueError(f"images[{number}]: {error}") from error


def _require_no_foreign_image(value: Any, name: str) -> None:
    """Refuse images of other libraries, some of which numpy would turn into arrays of objects."""
    packages = {each.__module__.partition(".")[0] for each in type(value).__mro__}
    if hasattr(value, "dataobj"):  # nibabel's, and classes that follow it
        packages.add("nibabel")
    for package, instead in _INSTEAD.items():
        if package in packages and not isinstance(value, np.ndarray):
            remedy = instead.format(name=name)
            raise TypeError(f"{name} is {kind(value)}; expected an array: {remedy}")


def without_mask(array: Any) -> tuple[Any, np.ndarray | None]:
    """Split a numpy masked array into its data and where they are masked.

    Returns
    -------
    array : the plain array
    hidden : bool array like it, True where it is masked; None if nothing is masked
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array, None
    hidden: Any = np.ma.getmask(array)
    plain = np.ma.getdata(array)
    return plain, None if hidden is np.ma.nomask or not hidden.any() else hidden


def plain(image: Any, mask: Any, weight: Any) -> tuple[Any, Any, Any, np.ndarray | None]:
    """Move the masks of numpy masked arrays into the mask of the solve.

    A voxel is left out of the estimate where image, mask or weight is masked.

    Parameters
    ----------
    image, mask, weight : arrays, or None

    Returns
    -------
    image, mask, weight : plain arrays, or None
    hidden : bool array, True where the image is masked; None if it is not
    """
    image, hidden = without_mask(image)
    mask, weight = _with_zeros(mask), _with_zeros(weight)
    if hidden is not None and (mask is None or np.shape(mask) == hidden.shape):
        mask = ~hidden if mask is None else (np.asarray(mask) != 0) & ~hidden
    return image, mask, weight, hidden


def _with_zeros(array: Any) -> Any:
    """Return a mask or weight with 0 where it is masked."""
    array, hidden = without_mask(array)
    return array if hidden is None else np.where(hidden, 0, array)


def describe_odd(array: np.ndarray, odd: np.ndarray) -> str:
    """Say how many values at the marked places are not finite, and what and where the first is."""
    first = tuple(int(i) for i in np.unravel_index(int(np.argmax(odd)), odd.shape))
    n = int(np.count_nonzero(odd))
    where = f"{array[first]} at voxel {first}"
    if n == 1:
        return f"1 value that is not finite, {where}"
    return f"{n} values that are not finite, the first {where}"


def not_finite(array: Any) -> np.ndarray:
    """Return where values are not finite in float32, the type in which images are solved."""
    with np.errstate(over="ignore"):
        return ~np.isfinite(np.asarray(array).astype(np.float32))


def odd_inside(name: str, array: np.ndarray, odd: np.ndarray) -> ValueError:
    """Return the error for values inside the mask that are not finite."""
    return ValueError(
        f"{name} has {describe_odd(array, odd)}, inside the mask; expected values that are finite "
        "in float32 there (set them to 0, or leave them out by a mask)"
    )


class NothingSampled(ValueError):
    """Mask and weight have voxels inside, but shrinking samples none of them."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; try shrink_factor=1")
        self.found = found
