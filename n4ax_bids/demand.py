"""What an image asks for, from its header alone: memory, and how many axes it has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from n4ax_bids import methods
from n4ax_bids.io import placement, volume

PER_VOXEL = 24
"""bytes for each voxel of an image, with a reserve of 4"""


def memory_needed(input_image: str | Path, options: Any) -> int:
    """Return about how many bytes `correct` takes at most for an image, from its header alone.

    Measured: 20 bytes a voxel of the image, and what the method takes besides.

    Parameters
    ----------
    input_image : NIfTI file
    options : of a method

    Raises
    ------
    OSError, ValueError
        If the file has no header that can be read; one line that names it.
    """
    header = volume.load_header(input_image)
    shape = header.get_data_shape()
    needed = methods.load(methods.of_options(options).memory)
    zooms = placement.zooms(header, len(shape[:3]))
    return math.prod(shape) * PER_VOXEL + needed(options, shape, zooms)


def axes(input_image: str | Path) -> int:
    """Return how many axes `correct` sees in an image, 2 or 3, from its header alone.

    Raises
    ------
    OSError, ValueError
        If the file has no header that can be read; one line that names it.
    """
    shape = volume.load_header(input_image).get_data_shape()
    return 2 if math.prod(shape[2:]) == 1 else 3
