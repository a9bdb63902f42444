"""A dask array in, dask arrays out: each chunk is corrected when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from n4ax_bids.core.stack.correction import StackCorrection, correct_planes, enlarged


def is_lazy(array: Any) -> bool:
    """Return whether an array is one of dask's; dask itself is not imported."""
    return hasattr(array, "map_blocks") and hasattr(array, "dask")


def corrected_lazily(vol: Any, done: StackCorrection, *, zero_outside: bool) -> tuple[Any, Any]:
    """Return the corrected stack and its field as dask arrays with the chunks of the input.

    Parameters
    ----------
    vol : dask array (planes, rows, columns)
    done : StackCorrection
    zero_outside : set what is outside the mask to 0
    """

    def one(values: np.ndarray, index: int, block_info: Any = None) -> np.ndarray:
        if block_info is None or not values.size:  # dask asks for the type of the result
            return np.zeros(values.shape, np.float32)
        planes, rows, columns = block_info[0]["array-location"]
        found = correct_planes(values, done, planes[0], part=(rows, columns))[index]
        if index == 0 and zero_outside:
            inside = enlarged(done.thin_mask[slice(*planes)], done.shape, done.how)
            found = np.where(inside[:, slice(*rows), slice(*columns)], found, np.float32(0))
        return found

    corrected, bias = (vol.map_blocks(one, index=k, dtype=np.float32) for k in range(2))
    return corrected, bias
