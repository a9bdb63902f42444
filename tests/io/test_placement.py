"""Where a header puts its voxels, against ITK's reading of the same file."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from n4ax_bids.io import geometry, placement, volume

UNITS = {"unknown": (0, 1.0), "meter": (1, 1e3), "mm": (2, 1.0), "micron": (3, 1e-3)}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(mm_per_unit=1.0):
    """Voxels of 1.5, 2 and 2.5 mm, in a unit."""
    rotation = Rotation.from_euler("xyz", [0.3, -0.2, 0.4]).as_matrix()
    affine = nb.affines.from_matvec(rotation * [1.5, 2, 2.5], [31.0, -44.0, 12.5])
    affine[:3] /= mm_per_unit
    return affine


def write(path, affine, codes=(1, 1), unit=2, shape=(4, 5, 6), **fields):
    """Write an image, then fields of its header as they are given."""
    image = nb.Nifti1Image(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), affine)
    image.set_qform(affine, codes[0], update_affine=False)
    image.set_sform(affine, codes[1], update_affine=False)
    image.header["xyzt_units"] = unit
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    header = nb.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


def of_itk(path):
    """Return spacing and affine, RAS+, as ITK reads them."""
    image = sitk.ReadImage(str(path))
    n = image.GetDimension()
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    affine[:n, 3] = image.GetOrigin()
    return image.GetSpacing(), LPS @ affine


@pytest.mark.parametrize("time", [0, 8, 24])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 2)])
@pytest.mark.parametrize("unit", UNITS)
def test_units_of_length_become_mm_as_for_itk(tmp_path, unit, codes, time):
    code, mm = UNITS[unit]
    path = write(tmp_path / "x.nii", oblique(mm), codes, code + time)
    image = volume.load(path)
    spacing, affine = of_itk(path)
    assert spacing == pytest.approx((1.5, 2, 2.5), rel=1e-6)  # float32 in the header
    assert image.zooms == spacing
    np.testing.assert_allclose(image.affine, affine, rtol=0, atol=1e-5)  # float32 of 44 mm
    np.testing.assert_allclose(image.affine, oblique(), rtol=0, atol=1e-5)
    assert geometry.read_geometry(path, 3).spacing == spacing


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_a_header_that_itk_refuses(tmp_path, unit):
    """Shear and no q-form: read from the header alone, in mm as well."""
    code, mm = UNITS[unit]
    affine = np.array([[1, 0.4, 0, -5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    affine[:3] /= mm
    path = write(tmp_path / "x.nii", affine, (0, 1), code)
    place = geometry.read_geometry(path, 3)
    assert place.spacing == pytest.approx((1, np.hypot(0.4, 2), 3), rel=1e-6)
    assert place.origin == pytest.approx((5, -6, 7))


@pytest.mark.parametrize("unit", UNITS)
def test_outputs_keep_the_units_and_numbers_of_the_source(tmp_path, unit):
    code, mm = UNITS[unit]
    source = write(tmp_path / "x.nii", oblique(mm), (1, 2), code + 8)
    image = volume.load(source)
    volume.save(tmp_path / "y.nii", image.data, image)
    before, after = nb.load(source).header, nb.load(tmp_path / "y.nii").header
    for name in before.keys():
        if name not in ("scl_slope", "scl_inter"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"quatern_b": 1 + 2e-6},  # rounding: what nibabel alone refuses
        {"quatern_b": 0.8, "quatern_c": 0.6 + 1e-6},
        {"quatern_b": 5, "quatern_c": 5},  # of any length
        {"quatern_b": np.sqrt(1 - 5e-8)},  # a real part that the NIfTI library takes as 0
        {"quatern_b": 0.3, "quatern_c": -0.2, "quatern_d": 0.5},
        {"quatern_b": np.nan, "quatern_d": 0.5},
        {"qoffset_x": np.inf},
        {"pixdim": [-3, 1.5, 2, 2.5, 0, 0, 0, 0]},
        {"pixdim": [0, 1.5, 2, 2.5, 0, 0, 0, 0]},
        {"pixdim": [1, 1.5, np.nan, 2.5, 0, 0, 0, 0]},
        {"pixdim": [1, 0, 2, 2.5, 0, 0, 0, 0]},
        {"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]},  # there is still the q-form
    ],
)
def test_what_the_nifti_library_mends(tmp_path, fields):
    path = write(tmp_path / "x.nii", np.diag([1.5, 2, 2.5, 1]), (1, 0), **fields)
    image = volume.load(path)
    spacing, affine = of_itk(path)
    assert image.zooms == spacing
    if "sform_code" not in fields:  # ITK takes NaN for a direction
        np.testing.assert_allclose(image.affine, affine, rtol=0, atol=1e-6)
    assert np.isfinite(image.affine).all()
    volume.save(tmp_path / "y.nii", image.data, image)
    np.testing.assert_array_equal(volume.load(tmp_path / "y.nii").data, image.data)


def test_an_intercept_that_is_not_finite_is_0_as_for_itk(tmp_path):
    path = write(tmp_path / "x.nii", np.eye(4), scl_slope=2, scl_inter=np.nan)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    np.testing.assert_array_equal(volume.load(path).data, expected)


def test_without_codes_the_voxel_sizes_are_what_there_is(tmp_path):
    path = write(tmp_path / "x.nii", np.eye(4), unit=3, qform_code=0, sform_code=0)
    header = volume.load_header(path)
    assert list(placement.forms(header)) == ["voxel sizes"]
    assert placement.zooms(header) == (0.001,) * 3
    np.testing.assert_allclose(
        placement.affine(header), np.diag([1e-3, 1e-3, 1e-3, 1]) @ header.get_base_affine()
    )
