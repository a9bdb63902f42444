"""A log field in a file of a few kB."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.io import lattice, volume

AFFINE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.1, 0.9, 2.5]), [31.0, -44.0, 12.5]
)


def field(n_axes=3):
    rng = np.random.default_rng(0)
    shape = (4, 5, 7)[:n_axes]
    return {
        "lattice": rng.normal(size=shape).astype(np.float32),
        "order": 3,
        "first": (0.1, 1 / 3, 0.0)[:n_axes],
        "step": (1 / 63, 2 / 47, 4 / 100)[:n_axes],
        "clamp": (1 - 1e-3 / 63, 2.0, 4 - 4e-5)[:n_axes],
        "shape": (64, 48, 101)[:n_axes],
        "affine": AFFINE,
    }


@pytest.mark.parametrize("n_axes", [2, 3])
def test_round_trip_is_exact(tmp_path, n_axes):
    given = field(n_axes)
    lattice.save_lattice(tmp_path / "l.nii.gz", **given)
    read = lattice.load_lattice(tmp_path / "l.nii.gz")
    assert read.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(read[name], value)
    assert not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_affine_puts_control_points_where_they_act(tmp_path, order):
    """The point c peaks at t = c - (order - 1)/2, which is voxel (t - first)/step."""
    given = field() | {"order": order}
    lattice.save_lattice(tmp_path / "l.nii", **given)
    point = np.array([2, 3, 1])
    position = (point - (order - 1) / 2 - given["first"]) / given["step"]
    expected = nb.affines.apply_affine(AFFINE, position)
    affine = nb.load(tmp_path / "l.nii").affine
    found = nb.affines.apply_affine(affine, point)
    np.testing.assert_allclose(found, expected, atol=2e-5)  # mm; the header holds float32


def test_equal_fields_give_equal_files(tmp_path):
    lattice.save_lattice(tmp_path / "a.nii.gz", **field())
    lattice.save_lattice(tmp_path / "b.nii.gz", **field())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_another_image_is_refused(tmp_path):
    path = tmp_path / "x.nii"
    image = nb.Nifti1Image(np.zeros((3, 3, 3), np.float32), AFFINE)
    image.header.extensions.append(nb.nifti1.Nifti1Extension("comment", b"not ours"))
    image.header.extensions.append(nb.nifti1.Nifti1Extension("comment", b'"text"'))
    image.to_filename(path)
    with pytest.raises(ValueError, match=r"x\.nii: holds no log field"):
        lattice.load_lattice(path)


def test_it_is_an_image_like_others(tmp_path):
    lattice.save_lattice(tmp_path / "l.nii.gz", **field())
    np.testing.assert_array_equal(volume.load(tmp_path / "l.nii.gz").data, field()["lattice"])
