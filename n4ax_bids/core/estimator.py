"""What every estimator of a field is given, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from n4ax_bids.core.field import LogField

Report = Callable[[int, int, float], None]
"""Called after each iteration with the level and the iteration, both from 1, and the value of the
method's stopping statistic."""


class Sampling(Protocol):
    """Where a file's header puts the samples of a grid that is shrunk."""

    def __call__(
        self, role: str, padded: Sequence[int], factors: Sequence[int], lower: Sequence[int]
    ) -> tuple[int, ...] | None:
        """Return the first voxel that is sampled on each axis; None for the image's own.

        Parameters
        ----------
        role : "image", "mask" or "weight"
        padded : voxels of each axis with its padding
        factors : shrink factor of each axis
        lower : voxels of padding before voxel 0 of each axis
        """


class Automatic(NamedTuple):
    """How a mask that a program has made is named when it is objected to."""

    name: str
    cause: str = ": a few very bright voxels may have decided it"
    """what may have led to an odd mask"""


class Given(NamedTuple):
    """The arrays of one image, as an estimator gets them."""

    image: jax.Array | np.ndarray
    """(I, J) or (I, J, K), intensities"""
    mask: jax.Array | np.ndarray | None
    """like the image, not 0 = inside; None for every voxel"""
    weight: jax.Array | np.ndarray | None
    """like the image, confidence of each voxel; None for equal weights"""
    zooms: tuple[float, ...]
    """size of a voxel on each axis, mm"""
    automatic: Automatic | None = None
    """of a mask that a program has made; None for a person's own"""
    sampling: Sampling | None = None
    """of the files that the arrays come from; None: aligned axes are assumed"""


class Estimate(NamedTuple):
    """The field of one image, and what the method has to say of it."""

    log_field: LogField
    """on the grid of the image"""
    details: Any
    """a dataclass of the method's own: `Method.details`"""
    notes: tuple[str, ...] = ()
    """what a person should know about the result, each a sentence"""
    images: Mapping[str, np.ndarray] = {}
    """further arrays like the image, by the labels of `Method.outputs`"""


Solve = Callable[[Report | None], Estimate]
"""What remains to be done once the arrays are prepared; it computes on the device."""

Estimator = Callable[[Given, Any], Solve]
"""Prepares an estimate: checks the arrays and the options, and returns what solves. Only the
solve needs the device, so that other threads can use it meanwhile.

Raises
------
ValueError
    If arrays or options do not fit; a line that names neither file nor array.
"""
