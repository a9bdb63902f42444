"""What every estimator of a field receives and returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from n4ax_bids.core.field import LogField

Report = Callable[[int, int, float], None]
"""Called after each iteration with the level and the iteration, both from 1, and the value of the
method's stopping statistic."""


class Sampling(Protocol):
    """The voxels that shrinking samples in a file, as its header decides."""

    def __call__(
        self, role: str, padded: Sequence[int], factors: Sequence[int], lower: Sequence[int]
    ) -> tuple[int, ...] | None:
        """Return the first sampled voxel of each axis; None: the same as in the image.

        Parameters
        ----------
        role : "image", "mask" or "weight"
        padded : voxels of each axis, including its padding
        factors : shrink factor of each axis
        lower : voxels of padding before voxel 0 of each axis
        """


class Automatic(NamedTuple):
    """How messages describe a mask that was found automatically."""

    name: str
    """such as "Otsu's\""""
    cause: str = ": a few very bright voxels may have decided it"
    """possible reason for an odd mask"""


class Given(NamedTuple):
    """The arrays of one image that an estimator receives."""

    image: jax.Array | np.ndarray
    """(I, J) or (I, J, K), intensities"""
    mask: jax.Array | np.ndarray | None
    """like the image, not 0 = inside; None for every voxel"""
    weight: jax.Array | np.ndarray | None
    """like the image, confidence of each voxel; None for equal weights"""
    zooms: tuple[float, ...]
    """size of a voxel on each axis, mm"""
    automatic: Automatic | None = None
    """description of an automatic mask; None for a mask that the user gave"""
    sampling: Sampling | None = None
    """sampled voxels of the files that the arrays come from; None: assume aligned axes"""


def require_axes(shape: Sequence[int], zooms: Sequence[float]) -> None:
    """Refuse a shape or voxel sizes that no estimator can use.

    Raises
    ------
    ValueError
        One line with the value and what was expected.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"image has shape {tuple(shape)}; expected 2 or 3 axes")
    if len(zooms) != len(shape) or not all(0 < mm < math.inf for mm in zooms):
        raise ValueError(f"zooms is {tuple(zooms)}; expected {len(shape)} positive numbers of mm")


def positive_values(given: Given, *, most: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive intensities of an image and the weight of each voxel, on the host.

    Parameters
    ----------
    given : Given
    most : largest weight; larger ones are cut to it

    Returns
    -------
    values : float32 array like the image, 0 where it is negative or not finite
    weight : float32 array like the image, 0 outside the mask and where the image is not finite

    Raises
    ------
    ValueError
        If shapes differ, nothing is inside the mask, or the image is 0 there.
    """
    values = np.asarray(given.image, np.float32)
    weight = np.ones(values.shape, np.float32)
    for name, array in (("mask", given.mask), ("weight", given.weight)):
        if array is None:
            continue
        if np.shape(array) != values.shape:
            raise ValueError(
                f"{name} has shape {np.shape(array)}; expected the image's {values.shape}"
            )
        many = np.asarray(array)
        weight *= many != 0 if name == "mask" else np.clip(many, 0, most).astype(np.float32)
    if not weight.any():
        raise ValueError("mask and weight leave no voxel; expected some above 0")
    finite = np.isfinite(values)
    weight *= finite
    values = np.where(finite & (values > 0), values, np.float32(0))
    if not (values[weight > 0] > 0).any():
        raise ValueError("no voxel inside the mask is above 0; expected an image")
    return values, weight


class Estimate(NamedTuple):
    """The field of one image, and the method's own numbers and notes."""

    log_field: LogField
    """on the grid of the image"""
    details: Any
    """a dataclass instance: the method's own numbers of a solve"""
    notes: tuple[str, ...] = ()
    """sentences for the user about the result"""
    images: Mapping[str, np.ndarray] = {}
    """further arrays like the image, by the labels of `Method.outputs`"""


Solve = Callable[[Report | None], Estimate]
"""Estimates the field of prepared arrays; it computes on the device."""


class Joint(Protocol):
    """The solve of an image that other images may share: `joint()` of a `Solve` returns it.

    A `Solve` without such a method, or one whose method returns None, is run alone. The result
    must have the same bits in any company: which images wait for a device at the same time is
    chance.
    """

    @property
    def kind(self) -> Hashable:
        """What is equal for images that may share a solve."""

    @property
    def most(self) -> int:
        """Largest number of images in a solve."""

    def solve(self, others: Sequence[Any]) -> list[Estimate | ValueError]:
        """Solve this image and others of its kind on the device.

        Parameters
        ----------
        others : Joint of each other image

        Returns
        -------
        list : result of each image, this one first; for an image that does not fit, its error
        """


Estimator = Callable[[Given, Any], Solve]
"""Prepares an estimate: checks the arrays and the options, and returns the solve. Only the solve
needs the device, so that other threads can use it during the preparation.

Raises
------
ValueError
    If arrays or options do not fit; one line, to which the caller adds the file's name.
"""
