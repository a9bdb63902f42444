"""The last steps of ANTs with a mask file: restore voxels outside it, rescale those inside."""

from __future__ import annotations

import numpy as np

NOT_RESCALED = "the mask has no voxel of value 1; as in ANTs, only such voxels are rescaled"
"""note that follows the name of a mask"""


def restored(corrected: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Restore the input values outside the mask; for ITK, values up to 1.2e-8 are 0."""
    tiny = np.float32(0.1) * np.finfo(np.float32).eps
    return np.where(np.abs(mask) <= tiny, image, corrected)


def rescaled(
    corrected: np.ndarray, image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Rescale voxels where the mask is 1, to the range that the image has inside the mask.

    u' = max v - s·(max u - u) with s = (max v - min v) / (max u - min u), in float32 as in ANTs,
    where the ranges are those of voxels whose mask is not 0. Mask values within 4 units in the
    last place of 1 count as 1 (itk::Math::FloatAlmostEqual).

    Returns
    -------
    array : u', or the corrected image itself if the mask is 1 nowhere
    scale : s and the intercept; None if the mask is 1 nowhere
    """
    one = int(np.float32(1).view(np.int32))
    bits = np.asarray(mask, np.float32).view(np.int32)
    ones = (bits >= one - 4) & (bits <= one + 4)
    if not ones.any():
        return corrected, None
    inside = mask != 0
    before, after = image[inside], corrected[inside]
    v_max, u_max = before.max(), after.max()
    slope = (v_max - before.min()) / (u_max - after.min())
    remapped = v_max - slope * (u_max - corrected)
    intercept = float(v_max) - float(slope) * float(u_max)
    return np.where(ones, remapped, corrected), (float(slope), intercept)
