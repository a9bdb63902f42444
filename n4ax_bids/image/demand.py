"""What the correction of an image needs, from the header alone: memory, number of axes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from n4ax_bids import methods
from n4ax_bids.io import placement, volume

PER_VOXEL = 24
"""bytes for each voxel of an image, including a reserve of 4"""


def memory_needed(input_image: str | Path, options: Any) -> int:
    """Estimate how many bytes `correct` needs at most for an image, from the header alone.

    The measured need is 20 bytes per voxel of the image, plus that of the method.

    Parameters
    ----------
    input_image : NIfTI file
    options : options of a method

    Raises
    ------
    OSError, ValueError
        If the header cannot be read; one line that names the file.
    """
    header = volume.load_header(input_image)
    shape = header.get_data_shape()
    needed = methods.load(methods.of_options(options).memory)
    zooms = placement.zooms(header, len(shape[:3]))
    return math.prod(shape) * PER_VOXEL + needed(options, shape, zooms)


def axes(input_image: str | Path) -> int:
    """Return the number of axes of an image in `correct`, 2 or 3, from the header alone.

    Raises
    ------
    OSError, ValueError
        If the header cannot be read; one line that names the file.
    """
    shape = volume.load_header(input_image).get_data_shape()
    return 2 if math.prod(shape[2:]) == 1 else 3
