"""Geometry and sample phase against ITK itself."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from n4ax_bids.core.n4.shrinking import predict_shrink_start
from n4ax_bids.io import geometry, volume


def write_header(path, shape, rng, oblique):
    """Write an image that holds its own indices, under a random header."""
    zooms = rng.uniform(0.4, 3, 3)
    rotation = Rotation.random(random_state=rng).as_matrix()
    if not oblique:
        rotation = np.diag(rng.choice([-1.0, 1.0], 3))[:, rng.permutation(3)]
    affine = nb.affines.from_matvec(rotation * zooms, rng.uniform(-150, 150, 3))
    data = np.arange(np.prod(shape), dtype=np.int32).reshape(shape, order="F")
    image = nb.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, int(rng.choice([0, 1])))
    image.to_filename(path)
    return path


@pytest.mark.parametrize("oblique", [False, True])
def test_the_sample_phase_is_that_of_itks_filter(tmp_path, oblique):
    """100 headers of each kind; the half-integer phases among them must go both ways."""
    rng = np.random.default_rng(int(oblique))
    differs = 0
    for _ in range(100):
        shape = tuple(int(n) for n in rng.integers(9, 30, 3))
        factors = tuple(int(s) for s in rng.integers(1, 6, 3))
        path = write_header(tmp_path / "x.nii", shape, rng, oblique)
        image = sitk.ReadImage(str(path))
        first = sitk.GetArrayFromImage(sitk.Shrink(image, factors)).flat[0]
        expected = tuple(int(i) for i in np.unravel_index(first, shape, order="F"))
        assert geometry.itk_shrink_start(path, shape, factors, (0, 0, 0)) == expected
        differs += expected != predict_shrink_start(shape, (1, 1, 1), factors, (0, 0, 0))
    # About 30 % of these triples have a half-integer phase, some of them go down.
    assert differs > 0


def test_two_axes(tmp_path):
    data = np.arange(60, dtype=np.int32).reshape((10, 6), order="F")
    path = tmp_path / "x.nii"
    nb.Nifti1Image(data, np.diag([1.2, 0.9375, 1, 1])).to_filename(path)
    first = sitk.GetArrayFromImage(sitk.Shrink(sitk.ReadImage(str(path)), (4, 3))).flat[0]
    expected = tuple(int(i) for i in np.unravel_index(first, (10, 6), order="F"))
    assert geometry.itk_shrink_start(path, (10, 6), (4, 3), (0, 0)) == expected


@pytest.mark.parametrize(
    ("lower", "first"),
    [
        (2, 0),  # centred it were -1, but the shrunk grid begins at index ceil(-2/3) = 0
        (3, -2),  # begins at index -1 = voxel -3; centred on -2, 1, 4
        (4, -3),  # begins at index -1 = voxel -3; centred on -3, 0, 3
    ],
)
def test_padding_shifts_the_phase(lower, first):
    """9 voxels, `lower` of them before voxel 0, by 3, worked by hand from ITK's rule.

    The centre is voxel 4 - lower and so the samples are 1 - lower + 3k, but never before the
    shrunk grid's first index times 3. Against the ANTs program: tests/test_correct_ants.py.
    """
    place = geometry.Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    assert geometry.shrink_start(place, (9, 9), (3, 3), (lower, lower)) == (first, first)


def test_geometry_is_what_itk_reads(tmp_path):
    path = write_header(tmp_path / "x.nii", (6, 7, 8), np.random.default_rng(3), True)
    image = sitk.ReadImage(str(path))
    place = geometry.read_geometry(path, 3)
    assert place == (image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def test_a_slice_whose_file_has_three_axes(tmp_path):
    """ITK reads it as 2D without a direction; commands/test_ants_cli.py has the ANTs program."""
    path = write_header(tmp_path / "x.nii", (9, 8, 1), np.random.default_rng(3), True)
    place = geometry.read_geometry(path, 2)
    whole = geometry.read_geometry(path, 3)
    assert place == (whole.spacing[:2], whole.origin[:2], (1.0, 0.0, 0.0, 1.0))


def test_a_header_that_itk_refuses(tmp_path):
    affine = np.array([[1, 0.4, 0, -5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]], float)
    path = tmp_path / "sheared.nii"
    image = nb.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    image.to_filename(path)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    place = geometry.read_geometry(path, 3)
    assert place.spacing == pytest.approx((1, np.hypot(0.4, 2), 3), abs=1e-6)  # float32 pixdim
    assert place.origin == pytest.approx((5, -6, 7))
    assert geometry.itk_shrink_start(path, (4, 5, 6), (2, 2, 2), (0, 0, 0)) is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_itk_is_not_asked_about_an_s_form_that_is_not_finite(value, tmp_path, monkeypatch):
    """ITK prints its matrix for NaN, and does not return for infinity."""
    path = tmp_path / "image.nii"
    image = nb.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header["srow_x"][0] = value
    path.write_bytes(image.header.binaryblock + bytes(4) + np.ones(120, np.float32).tobytes())

    def never(self):
        raise AssertionError("ITK was asked")

    monkeypatch.setattr(sitk.ImageFileReader, "ReadImageInformation", never)
    assert geometry.read_geometry(path, 3).spacing == (2.0, 2.0, 3.0)
    (note,) = volume.load(path).notes
    assert note == "image.nii: its s-form has values that are NaN or infinite, and is not used"


def test_a_warning_of_itk_does_not_reach_the_screen(tmp_path, capfd):
    path = tmp_path / "image.nii"
    affine = np.array([[2.0, 1.5, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    image = nb.Nifti1Image(np.ones((4, 5, 6), np.float32), None)
    image.set_sform(affine, 1)
    image.to_filename(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(True)
    geometry.read_geometry(path, 3)
    assert capfd.readouterr() == ("", "")
