"""An image in the form that other programs expect: RAS+, mm, float32."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np

from n4ax_bids.io.volume import Volume, write_image


def write_canonical(path: str | Path, image: Volume) -> None:
    """Write an image as float32 in mm, with its axes turned to right, anterior and superior.

    No voxel is interpolated, so that `n4ax_bids.io.grids.on_grid` can bring a mask of the written
    image back to the grid of the original one.

    Parameters
    ----------
    path : .nii or .nii.gz, which must not exist
    image : Volume of three axes
    """
    made = nb.Nifti1Image(np.asarray(image.data, np.float32), image.affine)
    made = nb.as_closest_canonical(made)
    made.header.set_xyzt_units("mm")
    made.set_qform(made.affine, 1)
    made.set_sform(made.affine, 1)
    write_image(path, made)
