"""NIfTI files: what is read, what is refused, what is written."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk
from nipype.utils.imagemanip import copy_header

from n4ax_bids.io import finite, volume

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
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 50, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def contents(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


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


def test_values_beyond_float32_are_found(tmp_path):
    image = volume.load(write_nifti(tmp_path / "x.nii", np.full((3, 3, 3), 1e300)))
    with pytest.raises(ValueError, match="27 voxels that are used are NaN or infinite"):
        finite.require_finite(image.path, image.data, None, "scale it")


@pytest.mark.parametrize("slab", [1, 7, 1000])
def test_voxels_that_are_not_finite_count_where_they_are_used(tmp_path, monkeypatch, slab):
    monkeypatch.setattr(finite, "SLAB", slab)
    data = stored_values("float32")
    data[3, 2, 1], data[4, 2, 1], data[0, 0, 4] = np.nan, np.inf, -np.inf
    image = volume.load(write_nifti(tmp_path / "x.nii", data))
    used = np.ones(data.shape, bool)
    with pytest.raises(ValueError) as raised:
        finite.require_finite(image.path, image.data, None, "set them to 0")
    assert str(raised.value) == (
        f"{image.path}: 3 voxels that are used are NaN or infinite, the first at (3, 2, 1); "
        "set them to 0"
    )
    used[3, 2, 1] = used[0, 0, 4] = False
    with pytest.raises(ValueError, match=r"1 voxel that is used is .* at \(4, 2, 1\)"):
        finite.require_finite(image.path, image.data, used, "set them to 0")
    used[4, 2, 1] = False
    finite.require_finite(image.path, image.data, used, "set them to 0")
    numbers = data[np.isfinite(data)]
    assert finite.extremes(data) == (numbers.min(), numbers.max())
    assert np.isnan(finite.extremes(np.full(5, np.nan))).all()
    lifted, shift = volume.lifted(image)
    assert shift == numbers.min() < 0
    np.testing.assert_array_equal(np.isfinite(lifted.data), np.isfinite(data))
    assert finite.extremes(lifted.data)[0] == 0


@pytest.mark.parametrize("extension", ["nii", "nii.gz"])
def test_the_header_stays(tmp_path, extension):
    source = write_nifti(tmp_path / "x.nii.gz", stored_values("int16"), slope=(0.5, 3.0))
    image = volume.load(source)
    path = tmp_path / f"y.{extension}"
    volume.save(path, image.data + 1, image)
    written = nb.load(path)
    header, original = written.header, nb.load(source).header
    for name in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(header[name], original[name])
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "xyzt_units", "descrip"):
        assert header[name] == original[name]
    assert header.get_data_dtype() == np.float32
    assert (written.dataobj.slope, written.dataobj.inter) == (1.0, 0.0)
    np.testing.assert_array_equal(written.get_fdata(), image.data + 1)


def test_description(tmp_path):
    image = volume.load(write_nifti(tmp_path / "x.nii", stored_values("int16")))
    volume.save(tmp_path / "y.nii", image.data, image, description="n4ax_bids")
    assert nb.load(tmp_path / "y.nii").header["descrip"] == b"n4ax_bids"


@pytest.mark.parametrize("extension", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "slope"),
    [("int16", (1.0, 0.0)), ("int16", (133.9, -7.25)), ("uint8", (1.0, 0.0)), ("float64", None)],
)
def test_source_dtype_gives_the_file_of_nipypes_hook(tmp_path, dtype, slope, extension):
    """ANTs writes float32; nipype's `copy_header` then rewrites it. We write that file at once."""
    data = stored_values(dtype)
    data[0, 0, 0] = 3  # not the type's whole range: nibabel has a slope to choose
    source = write_nifti(tmp_path / f"x.{extension}", data // 2, slope=slope)
    image = volume.load(source)
    corrected = image.data * np.float32(1.37)
    by_hook = tmp_path / f"hook.{extension}"
    nb.Nifti1Image(corrected, np.diag([3, 3, 3, 1])).to_filename(by_hook)
    copy_header(str(source), str(by_hook), keep_dtype=False)
    ours = tmp_path / f"ours.{extension}"
    volume.save(ours, corrected, image, dtype="source")
    assert nb.load(ours).get_data_dtype() == np.dtype(dtype)
    assert contents(ours) == contents(by_hook)


def test_equal_runs_give_equal_files(tmp_path):
    image = volume.load(write_nifti(tmp_path / "x.nii", stored_values("int16")))
    for name in ("one.nii.gz", "another.nii.gz"):
        volume.save(tmp_path / name, image.data, image)
    one, another = (tmp_path / name for name in ("one.nii.gz", "another.nii.gz"))
    assert one.read_bytes() == another.read_bytes()
    start = one.read_bytes()[:10]
    assert start[3] == 0 and start[4:8] == bytes(4)  # no file name; no time


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    image = volume.load(write_nifti(tmp_path / "x.nii", stored_values("int16")))
    final = tmp_path / "out" / "y.nii.gz"
    final.parent.mkdir()
    final.write_bytes(b"earlier")

    def disk_full(path, _):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume, "write_image", disk_full)
    with pytest.raises(OSError, match="No space left"):
        volume.save(final, image.data, image)
    assert final.read_bytes() == b"earlier"
    assert [path.name for path in final.parent.iterdir()] == ["y.nii.gz"]


def test_saved_files_have_the_usual_permissions(tmp_path):
    image = volume.load(write_nifti(tmp_path / "x.nii", stored_values("int16")))
    before = os.umask(0o027)
    try:
        volume.save(tmp_path / "y.nii.gz", image.data, image)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "y.nii.gz").stat().st_mode) == 0o640


@pytest.mark.parametrize("klass", [nb.Nifti1Image, nb.Nifti2Image])
@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6), (7, 6, 1), (1, 1, 1)])
def test_files_are_byte_for_byte_those_of_nibabel(tmp_path, klass, shape):
    """Also where voxels go to the file from where they lie in memory."""
    for number, (dtype, order, slope) in enumerate(
        (
            (np.float32, "F", None),
            (np.float32, "C", None),
            (np.uint8, "F", None),
            (np.float32, "F", (2.0, 1.0)),
            (">f4", "F", None),
        )
    ):
        data = np.asarray(stored_values(np.uint8, shape).astype(dtype), order=order)
        image = klass(data, OBLIQUE)
        image.set_data_dtype(dtype)
        image.header["descrip"], image.header["intent_code"] = b"a test", 1001
        image.header.extensions.append(nb.nifti1.Nifti1Extension(6, b"of an odd length"))
        image.header.set_slope_inter(*slope or (np.nan, np.nan))
        path = tmp_path / f"{number}.nii"
        volume.write_image(path, image)
        assert path.read_bytes() == image.to_bytes()


@pytest.mark.parametrize("name", ["plain", "x.mgz", "x.nii.bz2"])
def test_a_name_without_niftis_extension_is_refused(tmp_path, name):
    image = volume.load(write_nifti(tmp_path / "x.nii", stored_values("int16")))
    with pytest.raises(ValueError, match=rf"{name}.*\.nii\.gz"):
        volume.save(tmp_path / name, image.data, image)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("behind", [b"", bytes(300_000)])
def test_the_digest_is_that_of_the_whole_file(tmp_path, rng, name, behind):
    """Taken while it is read, also of what follows the voxels."""
    path = tmp_path / name
    data = rng.integers(0, 1000, (40, 41, 42)).astype(np.int16)
    nb.Nifti1Image(data, np.eye(4)).to_filename(path)
    path.write_bytes(path.read_bytes() + behind)
    assert volume.load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
