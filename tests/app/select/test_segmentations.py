"""Which files of other pipelines belong to an image; mask, weight and report agree."""

from __future__ import annotations

import pytest

from n4ax_bids.app.select.segmentations import Segmentations, parse

ANAT = "sub-01/anat/sub-01"
SES = "sub-01/ses-1/anat/sub-01_ses-1"
XFM = "from-orig_to-T1w_mode-image_xfm.txt"


def test_names_in_parts():
    assert parse("a/b/sub-01_ses-x_run-2_T1w.nii.gz") == (
        {"sub": "01", "ses": "x", "run": "2"},
        "T1w",
        ".nii.gz",
    )
    assert parse("sub-01_T1w.nii").extension == ".nii"
    assert parse("README") == ({}, "README", "")


def test_the_derivatives_of_several_sessions_lie_without_one(derived):
    """fMRIPrep's place for the average of a participant's images."""
    root = derived(f"{ANAT}_desc-brain_mask.nii.gz", f"{ANAT}_label-WM_probseg.nii.gz")
    files = Segmentations({"fmriprep": root})
    for image in (f"{SES}_T1w.nii.gz", "sub-01_ses-2_run-1_T1w.nii.gz"):
        assert files.mask(image).path == root / f"{ANAT}_desc-brain_mask.nii.gz"
        assert files.probability(image, "WM").path == root / f"{ANAT}_label-WM_probseg.nii.gz"
    assert files.mask("sub-02_T1w.nii.gz") is None
    nearer = derived(f"{SES}_desc-brain_mask.nii.gz") / f"{SES}_desc-brain_mask.nii.gz"
    assert files.mask(f"{SES}_T1w.nii.gz").path == nearer  # also one that has come since


@pytest.mark.parametrize(
    ("image", "file", "fits"),
    [
        ("sub-01_run-1_T1w.nii", "sub-01_run-01_desc-brain_mask.nii.gz", True),
        ("sub-01_acq-1_T1w.nii", "sub-01_acq-01_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_cohort-1_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_space-T1w_desc-brain_mask.nii.gz", True),
        ("sub-01_T2w.nii", "sub-01_space-T1w_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_space-MNI152_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_label-WM_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_desc-brain_mask.json", False),
        ("sub-01_T1w.nii", "._sub-01_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-02_sub-01_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-02é_sub-01_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_desc-other_desc-brain_mask.nii.gz", False),
        ("sub-01_T1w.nii", "sub-01_desc-brain_desc-brain_mask.nii.gz", False),
    ],
)
def test_what_fits(derived, image, file, fits):
    files = Segmentations({"x": derived(f"sub-01/anat/{file}")})
    assert (files.mask(image) is not None) == fits


def test_a_mask_of_another_datatype_is_no_mask_of_the_image(derived):
    """Neither name has a space, and an image of `func` has all entities of the mask in `anat`."""
    root = derived(f"{ANAT}_desc-brain_mask.nii.gz")
    files, image = Segmentations({"x": root}), "sub-01/func/sub-01_task-x_bold.nii.gz"
    assert files.mask(image) is None
    own = derived("sub-01/func/sub-01_task-x_desc-brain_mask.nii.gz")
    assert files.mask(image).path == own / "sub-01/func/sub-01_task-x_desc-brain_mask.nii.gz"
    assert files.mask(f"{ANAT}_T1w.nii.gz").path == root / f"{ANAT}_desc-brain_mask.nii.gz"


def test_two_files_equally_near(derived):
    root = derived(*(f"{ANAT}_{kind}.nii{gz}" for gz in ("", ".gz") for kind in ("dseg",)))
    derived(f"{ANAT}_desc-brain_mask.nii", f"{ANAT}_desc-brain_mask.nii.gz")
    files = Segmentations({"x": root})
    with pytest.raises(ValueError, match=r"mask\.nii and .*mask\.nii\.gz are both of it"):
        files.mask("sub-01_T1w.nii.gz")
    assert list(files.labels("sub-01_T1w.nii.gz", root)) == []


def test_labels_without_desc_come_first(derived):
    root = derived(*(f"{ANAT}{desc}_dseg.nii.gz" for desc in ("_desc-aseg", "", "_desc-aparc")))
    found = [each.path.name for each in Segmentations({}).labels("sub-01_T1w.nii", root)]
    assert found == [f"sub-01{desc}_dseg.nii.gz" for desc in ("", "_desc-aparc", "_desc-aseg")]


def test_the_transform_of_an_averaged_image_is_its_own(derived):
    root = derived(
        f"{ANAT}_desc-brain_mask.nii.gz",
        f"{ANAT}_run-1_{XFM}",
        f"{ANAT}_run-2_{XFM}",
        f"{SES}_run-1_{XFM}",
        f"{ANAT}_{XFM.replace('orig', 'fsnative')}",
        f"{ANAT}_run-1_{XFM.replace('T1w', 'T2w')}",
        f"{ANAT}_run-1_{XFM}".replace(".txt", ".json"),
    )
    files = Segmentations({"x": root})
    for image, expected in (
        ("sub-01_run-1_T1w.nii.gz", f"{ANAT}_run-1_{XFM}"),
        ("sub-01_run-02_T1w.nii.gz", f"{ANAT}_run-2_{XFM}"),
        ("sub-01_ses-1_run-1_T1w.nii.gz", f"{SES}_run-1_{XFM}"),
        ("sub-01_acq-b_run-1_T1w.nii.gz", None),  # it was not averaged
        ("sub-01_T1w.nii.gz", None),
        ("sub-01_run-1_T2w.nii.gz", None),  # the mask is in the space of the T1w images
    ):
        found = files.mask(image)
        assert found.path == root / f"{ANAT}_desc-brain_mask.nii.gz"
        assert found.transform == (root / expected if expected else None), image
    derived(f"{ANAT}_space-T2w_desc-brain_mask.nii.gz")
    found = files.mask("sub-01_run-1_T2w.nii.gz")
    assert found.transform == root / f"{ANAT}_run-1_{XFM.replace('T1w', 'T2w')}"


def test_a_transform_comes_from_the_folder_of_its_mask(derived):
    first = derived(f"{ANAT}_{XFM}", f"{ANAT}_label-WM_probseg.nii.gz", folder="a")
    second = derived(f"{ANAT}_desc-brain_mask.nii.gz", folder="b")
    files = Segmentations({"a": first, "b": second})
    assert files.mask("sub-01_T1w.nii").transform is None
    assert files.probability("sub-01_T1w.nii", "WM").transform == first / f"{ANAT}_{XFM}"
