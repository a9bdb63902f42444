"""Which images and folders are left out, and the reason that is given for each."""

from __future__ import annotations

import pytest

from n4ax_bids.app.status import Refusal
from tests.app.select.selecting import names, select


def test_what_is_no_anatomical_magnitude_image_is_left(make_dataset, tmp_path):
    root = make_dataset(
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_part-phase_T1w.nii.gz",
        "sub-01/anat/sub-01_part-real_T2w.nii.gz",
        "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-01/anat/sub-01_T1map.nii.gz",
        "sub-01/anat/sub-01_mod-T1w_defacemask.nii.gz",
        "sub-01/func/sub-01_task-x_T1w.nii.gz",
        "sub-01/ses-1/fmap/sub-01_ses-1_T1w.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
        "code/sub-01/anat/sub-01_T1w.nii.gz",
        ".git/sub-01/anat/sub-01_T1w.nii.gz",
        empty=True,
    )
    selection = select(root, tmp_path)
    assert names(selection) == ["sub-01/anat/sub-01_T1w.nii.gz"]
    folder = "sub-01/anat/sub-01_"
    assert {name.removeprefix(folder): reason for name, reason in selection.skipped} == {
        "part-phase_T1w.nii.gz": "part is phase; only magnitude images are corrected",
        "part-real_T2w.nii.gz": "part is real; only magnitude images are corrected",
        "desc-preproc_T1w.nii.gz": "desc is preproc; taken are images with desc none",
        "FLAIR.nii.gz": "FLAIR was not asked for; -m FLAIR takes it",
        "T1map.nii.gz": "T1map is a map or a mask, which is never corrected",
        "mod-T1w_defacemask.nii.gz": "defacemask is a map or a mask, which is never corrected",
    }


@pytest.mark.parametrize("flags", [{}, {"participants": ("01",)}])
def test_only_folders_with_a_label_are_walked(make_dataset, tmp_path, flags):
    """Copies and old versions at the root, whatever their names, are no participants."""
    good = "sub-01/anat/sub-01_T1w.nii.gz"
    root = make_dataset(
        good,
        "bids_v1.0/sub-01/anat/sub-01_T1w.nii.gz",
        "derivatives.old/sub-01/anat/sub-01_T1w.nii.gz",
        "backup.json/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01.bak/anat/sub-01_T1w.nii.gz",
        "sub-01_old/anat/sub-01_T1w.nii.gz",
        "sub-01/ses-1.bak/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/anat.old/sub-01_T1w.nii.gz",
        "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-01/anat/.DS_Store",
        empty=True,
    )
    selection = select(root, tmp_path, **flags)
    assert names(selection) == [good]
    told = dict(selection.skipped)
    assert told.pop("sub-01/anat.old").startswith("a folder that BIDS does not have here")
    wrong = {"sub-01/ses-1.bak"} | (set() if flags else {"sub-01.bak", "sub-01_old"})
    assert set(told) == wrong
    assert all("letters, digits and +" in reason for reason in told.values())


def test_images_outside_anat_are_left_with_the_reason(make_dataset, tmp_path):
    good = "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    places = {
        "sub-01/sub-01_T1w.nii.gz": "not in a folder anat",
        "sub-01/ses-1/sub-01_ses-1_T1w.nii.gz": "not in a folder anat",
        "sub-99_T1w.nii.gz": "not in a folder anat",
        "sub-01/Anat": "a folder that BIDS does not have here",
        "sub-01/session1": "a folder that BIDS does not have here",
        "sub-01/sub-07": "a folder that BIDS does not have here",
        "sub-01/ses-1/ses-2": "a folder that BIDS does not have here",
        "sub-01/SES-5": "the name is not sub-LABEL or ses-LABEL",
        "SUB-03": "the name is not sub-LABEL or ses-LABEL",
        "sub-01/anat/sub-01_T2w.nii.gz": "a folder, not a file",
    }
    names_ = [
        name if name.endswith("T1w.nii.gz") else f"{name}/anat/sub-01_T1w.nii.gz"
        for name in places
    ]
    others = ["sub-01/func/sub-01_task-x_bold.nii.gz", "code/x.nii.gz", "sub-01/.old/x.nii"]
    root = make_dataset(good, *names_, *others, empty=True)
    selection = select(root, tmp_path)
    assert names(selection) == [good]
    told = dict(selection.skipped)
    assert set(told) == set(places)
    assert all(told[name].startswith(reason) for name, reason in places.items())
    with pytest.raises(Refusal, match="left out sub-02/sub-02_T1w.nii: not in a folder anat"):
        root = make_dataset("sub-02/sub-02_T1w.nii", empty=True)
        select(root, tmp_path, participants=("02",))


def test_images_below_anat_and_of_others_are_left_with_the_reason(make_dataset, tmp_path):
    good = "sub-01/anat/sub-01_T1w.nii.gz"
    root = make_dataset(
        good,
        "sub-01/anat/old/sub-01_T1w.nii.gz",
        "sub-01/anat/old/older/sub-01_T2w.nii",
        "sub-01/ses-1/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-02/anat/sub-01_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        empty=True,
    )
    (root / "sub-01" / "anat" / "loop").symlink_to(".")
    (root / "sub-01" / "loop").symlink_to("..")
    selection = select(root, tmp_path)
    assert names(selection) == [good, "sub-02/anat/sub-02_T1w.nii.gz"]
    told = dict(selection.skipped)
    assert told.pop("sub-01/loop").startswith("a folder that BIDS does not have here")
    assert told == {
        "sub-01/anat/old/sub-01_T1w.nii.gz": "not directly in anat",
        "sub-01/anat/old/older/sub-01_T2w.nii": "not directly in anat",
        "sub-01/ses-1/anat/sub-01_ses-2_T1w.nii.gz": "its name says ses-2, but it lies in the "
        "folder ses-1",
        "sub-02/anat/sub-01_T1w.nii.gz": "its name says sub-01, but it lies in the folder sub-02",
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sub-01/anat/sub-02é_T1w.nii", "its name says sub-02é"),
        ("sub-01/anat/sub-02-old_T1w.nii", "its name says sub-02-old"),
        ("sub-01/anat/sub-02 copy_T1w.nii", "its name says sub-02 copy"),
        ("sub-01/anat/Sub-02_T1w.nii", "its name says Sub-02"),
        ("sub-01/anat/sub_02_T1w.nii", "its name says sub"),
        ("sub-01/anat/sub-_T1w.nii", "its name says sub-"),
        ("sub-01/anat/sub-0\u0661_T1w.nii", "its name says sub-0\u0661"),
        ("sub-01/anat/sub-01_sub-02_T1w.nii", "its name says sub-02"),
        ("sub-01/anat/xsub-02_T1w.nii", "its name does not begin with sub-01_"),
        ("sub-01/anat/acq-x_T1w.nii", "its name does not begin with sub-01_"),
        ("sub-01/ses-a/anat/sub-01_Ses-b_T1w.nii", "its name says Ses-b"),
        ("sub-01/ses-a/anat/sub-01_ses-b é_T1w.nii", "its name says ses-b é"),
    ],
)
def test_an_odd_label_does_not_hide_whose_image_it_is(make_dataset, tmp_path, name, why):
    good = "sub-01/anat/sub-01_acq-x_T1w.nii"
    selection = select(make_dataset(good, name, empty=True), tmp_path)
    assert names(selection) == [good]
    assert dict(selection.skipped)[name].startswith(why)


@pytest.mark.parametrize("flags", [{}, {"participants": ("my_subject",)}])
def test_a_label_that_bids_does_not_allow_is_the_reason(make_dataset, tmp_path, flags):
    root = make_dataset("sub-my_subject/anat/sub-my_subject_T1w.nii.gz", empty=True)
    with pytest.raises(Refusal, match=r"sub-my_subject: .*letters, digits and \+ only"):
        select(root, tmp_path, **flags)
