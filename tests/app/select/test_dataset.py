"""Which images are found, under which names their outputs go, and what is refused."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset, distinct
from n4ax_bids.app.status import Refusal, Status

ENTITIES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_T2w.nii",
    "sub-01/anat/sub-01_acq-mprage_rec-norm_run-1_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-mprage_rec-norm_run-2_T1w.nii.gz",
    "sub-01/anat/sub-01_task-rest_T1w.nii.gz",
    "sub-01/anat/sub-01_ce-gd_T1w.nii.gz",
    "sub-01/anat/sub-01_run-1_echo-1_T1w.nii.gz",
    "sub-01/anat/sub-01_run-1_echo-2_T1w.nii.gz",
    "sub-01/anat/sub-01_run-01_part-mag_T2w.nii.gz",
    "sub-01/anat/sub-01_chunk-1_T1w.nii.gz",
    "sub-02/ses-pre/anat/sub-02_ses-pre_T1w.nii.gz",
    "sub-02/ses-post/anat/sub-02_ses-post_T1w.nii.gz",
]


def select(root, tmp_path, **wanted):
    return dataset.select(Request(root, tmp_path / "out", **wanted))


def names(selection):
    return [job.relative for job in selection.jobs]


def test_every_t1w_and_t2w_is_a_job_with_an_output_of_its_own(make_dataset, tmp_path):
    root = make_dataset(*ENTITIES, empty=True)
    selection = select(root, tmp_path)
    assert names(selection) == sorted(ENTITIES)
    outputs = [path for job in selection.jobs for path in job.outputs.images]
    assert len(set(outputs)) == 3 * len(ENTITIES)
    for job in selection.jobs:
        assert job.source == root / job.relative
        stem, _, suffix = job.source.name.split(".")[0].rpartition("_")
        relative = job.outputs.corrected.relative_to(tmp_path / "out").as_posix()
        folder = job.relative.rpartition("/")[0]
        assert relative == f"{folder}/{stem}_desc-biascorr_{suffix}.nii.gz"


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


def test_a_broken_annex_link_is_a_job_under_its_own_name(make_dataset, tmp_path):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    os.symlink("../.git/annex/x", root / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    jobs = select(root, tmp_path).jobs
    assert [job.name for job in jobs] == ["sub-01_T1w", "sub-01_T2w"]


def test_participants(make_dataset, tmp_path):
    root = make_dataset(
        *(f"sub-{label}/anat/sub-{label}_T1w.nii.gz" for label in ("01", "02", "021", "03")),
        empty=True,
    )
    selection = select(root, tmp_path, participants=("02", "03"))
    assert [job.entities["subject"] for job in selection.jobs] == ["02", "03"]


def test_sessions(make_dataset, tmp_path):
    root = make_dataset(*ENTITIES, empty=True)
    selection = select(root, tmp_path, sessions=("pre",))
    assert names(selection) == ["sub-02/ses-pre/anat/sub-02_ses-pre_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("labels", "status", "words"),
    [
        ({"participants": ("01", "09")}, Status.USAGE, ["participant 09", "01, 02"]),
        ({"sessions": ("mid",)}, Status.USAGE, ["session mid", "post, pre"]),
        (
            {"participants": ("01",), "sessions": ("pre",)},
            Status.USAGE,
            ["session pre", "there are: none"],
        ),
    ],
)
def test_unknown_labels_name_those_that_exist(make_dataset, tmp_path, labels, status, words):
    root = make_dataset(*ENTITIES, empty=True)
    with pytest.raises(Refusal) as caught:
        select(root, tmp_path, **labels)
    assert caught.value.status == status
    for word in words:
        assert word in str(caught.value)


def test_nothing_selected_is_told_from_nothing_there(make_dataset, tmp_path):
    root = make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz", empty=True)
    with pytest.raises(Refusal) as caught:
        select(root, tmp_path)
    assert caught.value.status == Status.NO_IMAGES
    make_dataset("sub-02/anat/sub-02_T1w.nii.gz", empty=True)
    with pytest.raises(Refusal) as caught:
        select(root, tmp_path, participants=("01",))
    assert caught.value.status == Status.NOTHING_SELECTED
    make_dataset("sub-01/anat/sub-01_part-phase_T1w.nii.gz", empty=True)
    with pytest.raises(Refusal, match="part is phase") as caught:
        select(root, tmp_path, participants=("01",))
    assert caught.value.status == Status.NOTHING_SELECTED


def test_two_images_that_would_share_an_output_are_both_named(make_dataset, tmp_path):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    with pytest.raises(Refusal) as caught:
        select(root, tmp_path)
    assert caught.value.status == Status.INVALID_INPUT
    assert "sub-01/anat/sub-01_T1w.nii and sub-01/anat/sub-01_T1w.nii.gz" in str(caught.value)


def test_metadata_is_inherited_with_the_nearest_file_last(make_dataset, tmp_path):
    root = make_dataset(
        "sub-01/anat/sub-01_acq-a_run-1_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-b_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        empty=True,
        json_files={
            "T1w.json": {"EchoTime": 1, "FlipAngle": 1, "Manufacturer": "root"},
            "T2w.json": {"EchoTime": 9},
            "acq-a_T1w.json": {"FlipAngle": 2, "EchoTime": 2},
            "acq-b_T1w.json": {"FlipAngle": 8},
            "sub-01/sub-01_T1w.json": {"EchoTime": 3},
            "sub-01/anat/sub-01_acq-a_run-1_T1w.json": {"RepetitionTime": 4},
            "sub-01/anat/sub-01_acq-a_run-2_T1w.json": {"RepetitionTime": 5},
        },
    )
    first, second, third = select(root, tmp_path).jobs
    assert dataset.read_metadata(first) == {
        "EchoTime": 3,
        "FlipAngle": 2,
        "Manufacturer": "root",
        "RepetitionTime": 4,
    }
    assert dataset.read_metadata(second) == {
        "EchoTime": 3,
        "FlipAngle": 8,
        "Manufacturer": "root",
    }
    assert dataset.read_metadata(third)["EchoTime"] == 1


def test_a_broken_sidecar_is_named_and_breaks_one_image_only(make_dataset, tmp_path):
    root = make_dataset(
        "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz", empty=True
    )
    (root / "sub-01/anat/sub-01_T1w.json").write_text('{"EchoTime": ')
    first, second = select(root, tmp_path).jobs
    with pytest.raises(ValueError, match="sub-01_T1w.json"):
        dataset.read_metadata(first)
    assert dataset.read_metadata(second) == {}


@pytest.mark.parametrize("text", [None, "{", "[]", "\xff"])
def test_a_folder_that_is_no_dataset_is_refused_in_one_line(tmp_path, text):
    folder = tmp_path / "raw"
    folder.mkdir()
    if text is not None:
        (folder / "dataset_description.json").write_text(text, encoding="latin-1")
    with pytest.raises(Refusal) as caught:
        dataset.read_description(folder)
    assert caught.value.status == Status.INVALID_INPUT
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("one", "two", "spellings"),
    [
        ("sub-ab/anat/sub-ab_T1w.nii", "sub-AB/anat/sub-AB_T1w.nii", ("sub-ab", "sub-AB")),
        ("sub-ab/anat/sub-ab_T1w.nii", "sub-AB/anat/sub-AB_T2w.nii", ("sub-ab", "sub-AB")),
        (
            "sub-1/anat/sub-1_acq-x_T1w.nii",
            "sub-1/anat/sub-1_acq-X_T1w.nii.gz",
            ("acq-x", "acq-X"),
        ),
        (
            "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii",
            "sub-1/ses-A/anat/sub-1_ses-A_T1w.nii",
            ("ses-",),
        ),
    ],
)
def test_names_that_some_file_systems_take_for_one(make_dataset, tmp_path, one, two, spellings):
    """Here they are two names; on a file system without case their outputs would be the same."""
    request = Request(make_dataset(one, two, empty=True), tmp_path / "out")
    with pytest.raises(Refusal) as caught:
        dataset.select(request)
    text = str(caught.value)
    assert caught.value.status == Status.INVALID_INPUT
    assert "differ only in case" in text and text.endswith("rename one of them")
    assert all(spelling in text for spelling in spellings)


def test_a_participant_alone_whose_name_differs_from_anothers_in_case(make_dataset, tmp_path):
    """The other one may be processed by a later run, or was processed by an earlier one."""
    names = [f"sub-{label}/anat/sub-{label}_T1w.nii" for label in ("ab", "AB", "cd")]
    root = make_dataset(*names, empty=True)
    with pytest.raises(Refusal, match="sub-AB and sub-ab differ only in case"):
        select(root, tmp_path, participants=("ab",))
    assert len(select(root, tmp_path, participants=("cd",)).jobs) == 1


def test_names_in_two_unicode_forms_are_one():
    """An é as one character or as two; and letters that have no equal length in the other case."""
    for one, two in (("sub-\u00e9", "sub-e\u0301"), ("sub-stra\u00dfe", "sub-STRASSE")):
        assert distinct.folded_name(one) == distinct.folded_name(two)
    assert distinct.folded_name("sub-e") != distinct.folded_name("sub-\u00e9")


def test_names_that_differ_in_more_are_two(make_dataset, tmp_path):
    names = [f"sub-{s}/anat/sub-{s}_acq-{a}_T1w.nii" for s in ("a", "b") for a in ("x", "y")]
    request = Request(make_dataset(*names, empty=True), tmp_path / "out")
    assert len(dataset.select(request).jobs) == 4
