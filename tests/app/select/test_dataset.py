"""Which images are found, under which names their outputs go, and what is refused."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app.select import dataset
from n4ax_bids.app.status import Refusal, Status
from tests.app.select.selecting import names, select

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
