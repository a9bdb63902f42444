"""Masks through a transform between two images, against ITK and against closed forms."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from n4ax_bids.io import volume
from n4ax_bids.io.resample import through

SHAPE = (24, 26, 22)
LPS = np.diag([-1.0, -1.0, 1.0])


def write(path, data, affine):
    nb.Nifti1Image(np.asarray(data, np.float32), affine).to_filename(path)
    return volume.load(path)


def write_transform(path, motion):
    """Write, as fMRIPrep does, how an image is taken to another: points go the other way.

    `motion` takes a point of the image to one of the other, mm, RAS+.
    """
    back = np.linalg.inv(motion)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((LPS @ back[:3, :3] @ LPS).ravel().tolist())
    transform.SetTranslation((LPS @ back[:3, 3]).tolist())
    sitk.WriteTransform(transform, str(path))
    return path


def positions(affine, shape=SHAPE):
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def ball(xyz):
    """A ball off the centre, softly ended."""
    return np.clip((9 - np.linalg.norm(xyz - [22, 17, 20], axis=-1)) / 4, 0, 1)


AVERAGED = np.diag([1.0, 1.0, 1.0, 1.0])
RAW = nb.affines.from_matvec(
    Rotation.from_euler("xyz", [0.2, -0.1, 0.3]).as_matrix() @ np.diag([-1.2, 1.1, 1.3]),
    [40.0, 3.0, 5.0],
)
MOTION = nb.affines.from_matvec(
    Rotation.from_euler("xyz", [0.1, 0.15, -0.1]).as_matrix(), [4.0, -3.0, 2.0]
)


@pytest.fixture
def files(tmp_path):
    """A mask in the space of the average, and an image that has moved against it."""
    probability = ball(positions(AVERAGED, (44, 40, 42)))
    other = write(tmp_path / "probability.nii.gz", probability, AVERAGED)
    image = write(tmp_path / "image.nii.gz", np.ones(SHAPE), RAW)
    return other, image, write_transform(tmp_path / "xfm.txt", MOTION)


def test_probabilities_are_where_the_motion_puts_them(files):
    other, image, transform = files
    found = through(other, image, transform, labels=False)
    xyz = positions(RAW) @ MOTION[:3, :3].T + MOTION[:3, 3]
    expected = ball(xyz)
    # Linear interpolation of a slope of 1/4 per mm with a kink at both ends, voxels of 1 mm.
    assert np.abs(found.data - expected).max() < 0.13
    assert np.abs(found.data - ball(positions(RAW))).max() > 0.5  # not without the motion
    (note,) = found.notes
    assert "xfm.txt" in note and "linear" in note and not found.itk_agrees
    # As antsApplyTransforms: the other way round, ITK takes the image to the average.
    there = sitk.Resample(
        sitk.ReadImage(str(image.path)),
        sitk.ReadImage(str(other.path)),
        sitk.ReadTransform(str(transform)),
    )
    seen = sitk.GetArrayFromImage(there).T > 0.5
    assert (other.data > 0.5)[seen].sum() == pytest.approx(
        (found.data > 0.5).sum() * abs(np.linalg.det(RAW[:3, :3])), rel=0.1
    )


def test_an_image_of_one_volume_and_four_axes(files, tmp_path):
    """ITK takes no direction from such a file."""
    other, image, transform = files
    series = write(tmp_path / "series.nii", np.ones((*SHAPE, 1)), RAW)
    expected = through(other, image, transform, labels=False)
    found = through(other, series, transform, labels=False)
    np.testing.assert_array_equal(found.data, expected.data)


def test_an_affine_without_a_third_axis(files, tmp_path):
    other, _, transform = files
    header = nb.Nifti1Header()
    header.set_sform(np.diag([1, 1, 0, 1.0]), 1)
    nb.Nifti1Image(np.ones(SHAPE, np.float32), None, header).to_filename(tmp_path / "flat.nii")
    flat = volume.load(tmp_path / "flat.nii")
    with pytest.raises(ValueError, match=r"flat\.nii: its affine has axes without length"):
        through(other, flat, transform, labels=False)


def test_labels_stay_labels(files, tmp_path):
    other, image, transform = files
    labels = write(tmp_path / "labels.nii", np.where(other.data > 0.5, 2, 0), AVERAGED)
    found = through(labels, image, transform, labels=True)
    assert set(np.unique(found.data)) == {0, 2} and "nearest" in found.notes[0]


def test_the_identity_between_equal_voxels_interpolates_nothing(files, tmp_path, rng):
    _, image, _ = files
    nothing = write_transform(tmp_path / "identity.txt", np.eye(4))
    data = rng.uniform(size=SHAPE).astype(np.float32)
    turned = nb.as_closest_canonical(nb.Nifti1Image(data, RAW))
    other = write(tmp_path / "ras.nii", turned.get_fdata(), turned.affine)
    found = through(other, image, nothing, labels=False)
    np.testing.assert_array_equal(found.data, data)
    assert found.notes == ()
    # Another grid in the same space: resampled.
    coarse = write(tmp_path / "coarse.nii", np.ones((9, 9, 9)), np.diag([5, 5, 5, 1.0]))
    assert "resampled" in through(coarse, image, nothing, labels=True).notes[0]


def test_what_is_no_transform(files, tmp_path):
    other, image, _ = files
    with pytest.raises(FileNotFoundError, match="none.txt: no such file"):
        through(other, image, tmp_path / "none.txt", labels=True)
    (tmp_path / "text.txt").write_text("1 0 0 0\n")
    with pytest.raises(ValueError, match=r"text\.txt: not readable as an ITK transform"):
        through(other, image, tmp_path / "text.txt", labels=True)
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "two.txt"))
    with pytest.raises(ValueError, match=r"two\.txt: a transform of 2 axes; expected 3"):
        through(other, image, tmp_path / "two.txt", labels=True)
    flat = sitk.AffineTransform(3)
    flat.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
    sitk.WriteTransform(flat, str(tmp_path / "flat.txt"))
    with pytest.raises(ValueError, match=r"flat\.txt: a transform without an inverse"):
        through(other, image, tmp_path / "flat.txt", labels=True)
