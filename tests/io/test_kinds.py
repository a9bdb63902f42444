"""What is no image: each kind is named, with what to do about it."""

from __future__ import annotations

import gzip

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.io import atomic, volume

LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
CONTENTS = {
    b"/annex/objects/MD5E-s123--abc.nii.gz\n": r"pointer of git-annex.*git annex get (x\.nii\S*) ",
    LFS: r'pointer of Git LFS.*git lfs pull --include "\*x\.nii(\.gz)?"',
    b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X".ljust(4096, b"\0"): "AppleDouble file.*deleted",
    b"\0" * 128 + b"DICM" + b"\0" * 400: "a DICOM file.*dcm2niix",
    b"NRRD0004\ntype: short\n": "an NRRD file",
    b"\n<!DOCTYPE html><html>": "a web page",
    b"anything else": "not a NIfTI file; expected",
}


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content[:12].hex())
def test_what_is_no_nifti_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{CONTENTS[content]}") as raised:
        volume.load(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=CONTENTS[content]):
        volume.load_header(path)
    path.write_bytes(gzip.compress(content))  # found also where it has been compressed
    with pytest.raises(ValueError, match=CONTENTS[content]):
        volume.load(path)


def test_a_broken_link(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.symlink_to("../.git/annex/objects/Xq/9f/MD5E-s1--a.nii.gz/MD5E-s1--a.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"git annex get x\.nii\.gz \(or datalad get"):
        volume.load(path)
    path.unlink()
    path.symlink_to("/moved/away.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"broken link to /moved/away\.nii\.gz") as raised:
        volume.load(path)
    assert "annex" not in str(raised.value)


def test_a_folder_says_what_it_holds(tmp_path):
    folder = tmp_path / "x.nii.gz"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=r"x\.nii\.gz: a folder, not a file"):
        volume.load(folder)
    (folder / ".DS_Store").touch()
    (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(IsADirectoryError, match=rf"a folder of DICOM files.*dcm2niix {folder}"):
        volume.load(folder)
    (folder / "._a.nii.gz").touch()
    for name in ("b.nii", "a.nii.gz"):
        nb.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4)).to_filename(folder / name)
    with pytest.raises(IsADirectoryError, match=rf"2 NIfTI files.*such as {folder}/a\.nii\.gz"):
        volume.load(folder)


def test_a_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / "sub-01").write_text("no folder")
    path = tmp_path / "sub-01" / "anat" / "x.nii"
    with pytest.raises(NotADirectoryError, match=r"sub-01 is a file; expected a folder"):
        volume.load(path)
    with pytest.raises(NotADirectoryError, match=r"sub-01 is a file; expected a folder"):
        atomic.require_writable(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        volume.load(tmp_path / "none" / "x.nii")
