"""A log field in a file of a few kB."""

from __future__ import annotations

import gzip
import os
import tracemalloc

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.core.n4 import plan
from n4ax_bids.io import lattice, volume
from n4ax_bids.options import N4Options

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


@pytest.mark.parametrize("n_axes", [2, 3])
def test_a_last_axis_of_one_point_is_kept(tmp_path, n_axes):
    given = field(n_axes)
    given["lattice"] = given["lattice"][..., :1]
    lattice.save_lattice(tmp_path / "l.nii", **given)
    read = lattice.load_lattice(tmp_path / "l.nii")["lattice"]
    np.testing.assert_array_equal(read, given["lattice"])


def test_limits_are_those_of_a_plan():
    assert lattice.MOST_POINTS == plan.MOST_POINTS
    N4Options(bspline_order=lattice.HIGHEST_ORDER)
    with pytest.raises(ValueError, match="bspline_order"):
        N4Options(bspline_order=lattice.HIGHEST_ORDER + 1)


def claim(path, shape, *, n_bytes=None):
    """Let the header of a lattice claim another shape, and its file have another length."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[40:56] = np.array([len(shape), *shape, *[1] * (7 - len(shape))], "<i2").tobytes()
    with opened(path, "wb") as file:
        file.write(content)
    if n_bytes:
        os.truncate(path, n_bytes)


@pytest.mark.parametrize(
    ("name", "shape", "n_bytes", "message"),
    [
        ("l.nii", (1500, 1500, 1500), 14 * 10**9, "1500 x 1500 x 1500 control points"),
        ("l.nii.gz", (1500, 1500, 1500), None, "1500 x 1500 x 1500 control points"),
        ("l.nii", (300, 300, 300), None, "truncated"),
        ("l.nii.gz", (300, 300, 300), None, "truncated"),
        ("l.nii", (4, 5), None, "a log field of 3 axes in an image of 2"),
        ("l.nii", (4, 5, 7, 2), None, "a log field of 3 axes in an image of 4"),
    ],
)
def test_a_file_that_claims_more_than_it_has(tmp_path, name, shape, n_bytes, message):
    path = tmp_path / name
    lattice.save_lattice(path, **field())
    claim(path, shape, n_bytes=n_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            lattice.load_lattice(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"order": 10**9},
        {"order": "3"},
        {"order": True},
        {"first": [0.1]},
        {"step": [float("nan")] * 3},
        {"clamp": 5},
        {"shape": [64, 48, -1]},
        {"shape": None},
        {"affine": [[1, 2], [3]]},
        {"affine": [[1.0]]},
    ],
)
def test_a_damaged_extension(tmp_path, change, monkeypatch):
    class Changed:
        dumps = staticmethod(lambda numbers: dumps(numbers | change))

    dumps = lattice.json.dumps
    monkeypatch.setattr(lattice, "json", Changed)
    lattice.save_lattice(tmp_path / "l.nii", **field())
    with pytest.raises(ValueError, match=r"l\.nii: its log field is damaged .*; expected"):
        lattice.load_lattice(tmp_path / "l.nii")


def test_a_link_to_a_device(tmp_path):
    (tmp_path / "l.nii.gz").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"l\.nii\.gz: not a file"):
        lattice.load_lattice(tmp_path / "l.nii.gz")
