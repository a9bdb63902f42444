"""NIfTI files with an oblique affine, and the values stored in them."""

from __future__ import annotations

import nibabel as nb
import numpy as np

OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.1, 0.9, 2.5]), [31.0, -44.0, 12.5]
)


def write_nifti(path, data, affine=OBLIQUE, *, slope=None, klass=nb.Nifti1Image, endianness="<"):
    """Write stored values as they are, with a slope and intercept beside them."""
    image = klass(data, affine, klass.header_class(endianness=endianness))
    image.header.set_data_dtype(data.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"a test"
    image.set_qform(affine, 1)
    image.set_sform(affine, 4)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def stored_values(dtype, shape=(7, 6, 5)):
    """Return random values of a type, the same in every call."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 50, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
