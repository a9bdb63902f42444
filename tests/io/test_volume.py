"""NIfTI files: what is read, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.io import volume
from tests.io.nifti_files import stored_values, write_nifti


@pytest.mark.parametrize("extension", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "slope"),
    [
        ("int16", (1.0, 0.0)),
        ("int16", (133.9, -7.25)),
        ("uint8", (1 / 255, 0.0)),
        ("int32", (0.37, 3.0)),
        ("int64", (0.37, 3.0)),
        ("uint32", (1.0, 0.0)),
        ("float64", (0.1, 5.0)),
        ("uint16", (2.0, 0.0)),
        ("float32", (1.0, 0.0)),
        ("float32", (0.1, 5.0)),
        ("float64", (1.0, 0.0)),
    ],
)
def test_voxels_equal_those_that_itk_reads(tmp_path, dtype, slope, extension):
    path = write_nifti(tmp_path / f"x.{extension}", stored_values(dtype), slope=slope)
    ours = volume.load(path)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat32)).T
    assert ours.data.dtype == np.float32 and ours.data.flags.f_contiguous
    assert ours.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(ours.data, itk)  # the same rounding, so bit for bit
    np.testing.assert_array_equal(ours.affine, nb.load(path).affine)
    assert ours.zooms == pytest.approx((1.1, 0.9, 2.5), abs=1e-6)  # float32 in the header


@pytest.mark.parametrize("klass", [nb.Nifti1Image, nb.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_other_formats_of_the_same_image(tmp_path, klass, endianness):
    data = stored_values("int16")
    path = tmp_path / "x.nii.gz"
    write_nifti(path, data, slope=(2.0, 1.0), klass=klass, endianness=endianness)
    loaded = volume.load(path)
    np.testing.assert_array_equal(loaded.data, data * 2.0 + 1.0)
    volume.save(tmp_path / "y.nii", loaded.data, loaded)
    again = nb.load(tmp_path / "y.nii")
    assert type(again) is klass and again.header.endianness == endianness
    np.testing.assert_array_equal(again.get_fdata(), loaded.data)


@pytest.mark.parametrize(
    ("shape", "loaded", "written"),
    [
        ((7, 6, 5, 1), (7, 6, 5), (7, 6, 5)),
        ((7, 6, 5, 1, 1), (7, 6, 5), (7, 6, 5)),
        ((7, 6), (7, 6), (7, 6)),
        ((7, 6, 1), (7, 6), (7, 6, 1)),
        ((7, 6, 1, 1), (7, 6), (7, 6, 1)),
        ((1, 6, 5), (1, 6, 5), (1, 6, 5)),
    ],
)
def test_trailing_axes_of_one_voxel(tmp_path, shape, loaded, written):
    path = write_nifti(tmp_path / "x.nii", stored_values("int16", shape))
    image = volume.load(path)
    assert image.data.shape == loaded and len(image.zooms) == len(loaded)
    volume.save(tmp_path / "y.nii", image.data, image)
    assert nb.load(tmp_path / "y.nii").shape == written


def broken_link(path):
    path.symlink_to(".git/annex/objects/x.nii.gz")


def truncated(path):
    write_nifti(path, stored_values("float32", (30, 30, 30)))
    path.write_bytes(path.read_bytes()[:-20_000])


def damaged(path):
    write_nifti(path, stored_values("float32", (30, 30, 30)))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # in the checksum
    path.write_bytes(content)


def rgb(path):
    write_nifti(path, np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def too_large_a_shape(path):
    write_nifti(path, stored_values("int16"))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([32000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(content))


BAD_FILES = {
    "no such file": lambda path: None,
    "broken link": broken_link,
    "0 bytes": lambda path: path.write_bytes(b""),
    "a folder, not a file": lambda path: path.mkdir(),
    "truncated": truncated,
    "damaged gzip": damaged,
    "not a NIfTI": lambda path: path.write_bytes(b"hello" * 200),
    "not a NIfTI file": lambda path: path.write_bytes(gzip.compress(b"hello" * 200)),
    "colour": rgb,
    "complex": lambda path: write_nifti(path, np.ones((4, 4, 4), "complex64")),
    "3 volumes": lambda path: write_nifti(path, stored_values("int16", (4, 4, 4, 3))),
    "6 volumes": lambda path: write_nifti(path, stored_values("int16", (4, 4, 4, 2, 3))),
    "small a file": too_large_a_shape,
}


@pytest.mark.parametrize("cause", BAD_FILES)
def test_what_is_not_one_image_is_refused_in_one_line(tmp_path, cause):
    path = tmp_path / "bad.nii.gz"
    BAD_FILES[cause](path)
    with pytest.raises((OSError, ValueError)) as raised:
        volume.load(path)
    message = str(raised.value)
    assert str(path) in message and cause in message and "\n" not in message


def test_truncated_without_compression(tmp_path):
    path = write_nifti(tmp_path / "x.nii", stored_values("int16"))
    os.truncate(path, 500)
    with pytest.raises(ValueError, match=r"x\.nii: truncated, 148 of 420 bytes"):
        volume.load(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("behind", [b"", bytes(300_000)])
def test_the_digest_is_that_of_the_whole_file(tmp_path, rng, name, behind):
    """Taken while it is read, also of what follows the voxels."""
    path = tmp_path / name
    data = rng.integers(0, 1000, (40, 41, 42)).astype(np.int16)
    nb.Nifti1Image(data, np.eye(4)).to_filename(path)
    path.write_bytes(path.read_bytes() + behind)
    assert volume.load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
