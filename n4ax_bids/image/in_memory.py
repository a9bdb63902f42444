"""The image that a thread has just corrected, for figures that follow at once.

Without it, both files would be decoded again, and the mask found again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from n4ax_bids.io.volume import Volume
from n4ax_bids.masks.region import Region


class Corrected(NamedTuple):
    """A correction whose files are written."""

    image: Volume
    corrected: np.ndarray
    """the voxels as they are in the file"""
    region: Region
    """where the field was estimated"""


_here = threading.local()


@contextmanager
def keeping() -> Iterator[None]:
    """Within this block, keep the last image that this thread corrects."""
    _here.kept, _here.wanted = None, True
    try:
        yield
    finally:
        _here.kept, _here.wanted = None, False


def offer(done: Corrected) -> None:
    """Keep a correction, if this thread is in a block of `keeping`."""
    if getattr(_here, "wanted", False):
        _here.kept = done


def last() -> Corrected | None:
    """Return the correction that this thread has kept; None if there is none."""
    found: Corrected | None = getattr(_here, "kept", None)
    return found
