"""An image for programs that expect one in the usual form."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np

from n4ax_bids.io.volume import Volume, write_image


def write_canonical(path: str | Path, image: Volume) -> None:
    """Write an image as float32 in mm, its axes turned to right, anterior and superior.

    No voxel is interpolated, so `n4ax_bids.io.grids.on_grid` lays a mask of this image back on
    the grid of the one that it was made of.

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
