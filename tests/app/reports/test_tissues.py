"""Segmentations of other pipelines: which ones are used, and why others are not."""

from __future__ import annotations

import os

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.reports import tissues
from n4ax_bids.io import volume

SHAPE = (6, 5, 4)
IMAGE = "sub-01/ses-1/anat/sub-01_ses-1_run-1_T1w.nii.gz"


def save(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(data, np.eye(4) if affine is None else affine).to_filename(path)


@pytest.fixture
def image(tmp_path):
    save(tmp_path / "image.nii.gz", np.ones(SHAPE, np.float32))
    return volume.load(tmp_path / "image.nii.gz")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "derived"


def labels(grey=1, white=2):
    data = np.zeros(SHAPE, np.uint8)
    data[0], data[1] = grey, white
    return data


def find(image, root, relative=IMAGE):
    return tissues.find(image, relative, {"other": root})


def test_probabilities_come_before_labels(image, root):
    folder = root / "sub-01" / "ses-1" / "anat"
    save(folder / "sub-01_ses-1_dseg.nii.gz", labels())
    for index, label in ((3, "WM"), (4, "GM")):
        data = np.zeros(SHAPE, np.float32)
        data[index], data[5] = 0.95, 0.5
        save(folder / f"sub-01_ses-1_label-{label}_probseg.nii.gz", data)
    found, notes = find(image, root)
    assert np.flatnonzero(found.white.any((1, 2))).tolist() == [3]
    assert np.flatnonzero(found.grey.any((1, 2))).tolist() == [4]
    assert found.files == tuple(
        f"other:sub-01/ses-1/anat/sub-01_ses-1_label-{label}_probseg.nii.gz"
        for label in ("WM", "GM")
    )
    assert notes == ()


@pytest.mark.parametrize("table", [False, True])
def test_labels_of_bids_or_of_the_table_beside_them(image, root, table):
    folder = root / "sub-01" / "anat"  # fMRIPrep's place where there are several sessions
    save(folder / "sub-01_desc-aseg_dseg.nii.gz", labels(*((3, 41) if table else (1, 2))))
    if table:
        text = "index\tname\tabbreviation\n3\tcortex\tGM\n41\tcerebral white matter\tWM\n"
        (folder / "sub-01_desc-aseg_dseg.tsv").write_text(text)
    found, _ = find(image, root)
    assert found.grey[0].all() and found.grey.sum() == found.grey[0].size
    assert found.white[1].all() and found.white.sum() == found.white[1].size


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_run-2_dseg.nii.gz",
        "sub-01_ses-1_space-MNI152NLin2009cAsym_dseg.nii.gz",
        "sub-02_dseg.nii.gz",
        "sub-01_ses-1_hemi-L_aparcseg.txt",
    ],
)
def test_what_is_of_another_image_is_not_looked_at(image, root, name):
    save(root / "x" / "x.nii.gz", labels())
    path = root / "sub-01" / "ses-1" / "anat" / name
    path.parent.mkdir(parents=True)
    (root / "x" / "x.nii.gz").rename(path)
    assert find(image, root) == (None, ())


def test_the_space_of_the_image_itself_counts(image, root):
    save(root / "sub-01" / "anat" / "sub-01_space-T1w_dseg.nii.gz", labels())
    assert find(image, root)[0] is not None
    assert find(image, root, IMAGE.replace("T1w", "T2w"))[0] is None


@pytest.mark.parametrize(
    ("fault", "word"),
    [("shape", "shape"), ("place", "elsewhere"), ("empty", "no voxel"), ("broken", "not a NIfTI")],
)
def test_what_does_not_fit_is_told(image, root, fault, word):
    path = root / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    if fault == "broken":
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 999)
    else:
        data = {"shape": labels()[:-1], "empty": labels() * 0}.get(fault, labels())
        save(path, data, np.diag([1, 1, 2, 1]) if fault == "place" else None)
    found, (note,) = find(image, root)
    assert found is None
    assert note.startswith("other:sub-01/anat/sub-01_dseg.nii.gz: not used") and word in note


def test_a_table_without_the_tissue_is_told(image, root):
    folder = root / "sub-01" / "anat"
    save(folder / "sub-01_desc-aparc_dseg.nii.gz", labels())
    (folder / "sub-01_desc-aparc_dseg.tsv").write_text("index\tname\n2\tcuneus\n")
    found, (note,) = find(image, root)
    assert found is None and "aparc_dseg.tsv: has no row for WM" in note


def test_what_is_ambiguous_is_told(image, root):
    folder = root / "sub-01" / "anat"
    for name in ("label-WM_probseg.nii", "label-WM_probseg.nii.gz", "label-GM_probseg.nii.gz"):
        save(folder / f"sub-01_{name}", np.ones(SHAPE, np.float32))
    save(folder / "sub-01_dseg.nii.gz", labels())
    found, (note,) = find(image, root)
    assert "are both of it" in note
    assert found.files == ("other:sub-01/anat/sub-01_dseg.nii.gz",)


def test_other_axes_and_either_form(image, root):
    """As fMRIPrep stores them, and as a tool that keeps one form alone."""
    data = labels()
    turned = nb.Nifti1Image(data, image.affine).as_reoriented(np.array([[2, 0, 1], [-1, 1, -1]]).T)
    save(
        root / "sub-01" / "anat" / "sub-01_dseg.nii.gz", np.asarray(turned.dataobj), turned.affine
    )
    found, notes = find(image, root)
    assert notes == ()
    np.testing.assert_array_equal(found.white, data == 2)
    np.testing.assert_array_equal(found.grey, data == 1)


def test_a_segmentation_larger_than_the_job_is_not_read(image, root, monkeypatch):
    path = root / "sub-01" / "anat" / "sub-01_ses-1_run-1_dseg.nii"
    save(path, labels())
    header = nb.load(path).header.copy()
    header.set_data_shape((1500, 1500, 1500))
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 1500**3)  # a sparse file
    monkeypatch.setattr(tissues, "job_memory", lambda: 3_000_000_000)
    monkeypatch.setattr(tissues.volume, "load", None)
    found, (note,) = find(image, root)
    assert found is None
    assert "take about 40.5 GB of memory, and there are 3.0 GB for this job" in note
