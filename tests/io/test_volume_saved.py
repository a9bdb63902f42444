"""NIfTI files as they are written: header, type, bytes, permissions, names."""

from __future__ import annotations

import gzip
import os
import stat

import nibabel as nb
import numpy as np
import pytest
from nipype.utils.imagemanip import copy_header

from n4ax_bids.io import volume
from tests.io.nifti_files import OBLIQUE, stored_values, write_nifti


def contents(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


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
