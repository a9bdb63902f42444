"""Links in folders that lead back: each image has one name, and nothing is walked for ever."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app.machine import presence
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.app.select.index import index
from n4ax_bids.app.select.segmentations import Segmentations

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
OF_SESSION = "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
LINKS = [
    ("sub-02", "sub-01"),
    ("sub-03", "."),
    ("sub-01/loop", "."),
    ("sub-01/ses-2", "ses-1"),
    ("sub-01/ses-3", "."),
    ("sub-01/ses-4", ".."),
    ("sub-01/ses-1/sub-01", ".."),
    ("sub-01/anat/loop", "."),
    ("sub-01/anat/anat", "../anat"),
    ("sub-01/ses-1/anat/up", "../../.."),
    ("sub-01/ses-5/anat", "../anat"),
]


def _link(root, name, target):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target, target_is_directory=True)


@pytest.mark.parametrize(("name", "target"), LINKS)
@pytest.mark.parametrize("kept", [False, True])
def test_in_the_dataset(make_dataset, tmp_path, name, target, kept):
    root = make_dataset(T1W, OF_SESSION, empty=True)
    _link(root, name, target)
    request = Request(root, tmp_path / "out", bids_database_dir=tmp_path / "db" if kept else None)
    found = dataset.select(request)
    assert [job.relative for job in found.jobs] == [T1W, OF_SESSION]


def test_a_session_that_is_a_link_is_told(make_dataset, tmp_path):
    root = make_dataset(T1W, empty=True)
    _link(root, "sub-01/ses-3", ".")
    told = dict(dataset.select(Request(root, tmp_path / "out")).skipped)
    assert told.pop("sub-01/ses-3/ses-3").startswith("a folder that BIDS does not have here")
    assert told == {"sub-01/ses-3/anat/sub-01_T1w.nii.gz": "the folder ses-3 is a link to sub-01"}


def test_a_session_on_another_disk_is_taken(make_dataset, tmp_path):
    root = make_dataset(T1W, empty=True)
    (tmp_path / "disk" / "anat").mkdir(parents=True)
    (tmp_path / "disk" / "anat" / "sub-01_T2w.nii.gz").touch()
    _link(root, "sub-01/ses-1", str(tmp_path / "disk"))
    jobs = dataset.select(Request(root, tmp_path / "out")).jobs
    assert [job.relative for job in jobs] == [T1W, "sub-01/ses-1/anat/sub-01_T2w.nii.gz"]


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_the_key_of_a_kept_index(make_dataset, tmp_path, name, target):
    root = make_dataset(T1W, OF_SESSION, empty=True)
    _link(root, name, target)
    for _ in range(2):
        index(root, database_dir=tmp_path / "db")
    assert len(list((tmp_path / "db").iterdir())) == 1


@pytest.mark.parametrize("link", [("sub-01/anat", "."), ("sub-01/x", ".."), ("sub-01", ".")])
def test_in_a_folder_of_derivatives(tmp_path, link):
    root = tmp_path / "derived"
    mask = root / "sub-01" / "sub-01_desc-brain_mask.nii.gz"
    if link[0] == "sub-01":
        mask = root / mask.name
    mask.parent.mkdir(parents=True)
    mask.touch()
    _link(root, *link)
    found = Segmentations({"x": root}).mask("sub-01_T1w")
    assert found is not None and found.path.samefile(mask)


def test_in_an_output_folder_that_is_cleaned(tmp_path):
    out = tmp_path / "out"
    (out / "sub-01").mkdir(parents=True)
    for number in range(2):
        _link(out, f"sub-01/loop{number}", "..")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    left = ".x.0011223344556677-1-1-00112233"
    (elsewhere / left).touch()
    _link(out, "sub-02", str(elsewhere))
    with presence.at_work(out) as (here, _):
        token = here.token.split("-")
        dead = "-".join([token[0], "999999999", "1", token[3]])
        (out / f".n4ax_bids-{dead}").mkdir()
        (out / "sub-01" / f".x.{dead}").touch()
        (elsewhere / f".x.{dead}").touch()
        presence.remove_leftovers(out, here.folder)
    assert os.listdir(elsewhere) and not (out / "sub-01" / f".x.{dead}").exists()
    assert not (out / f".n4ax_bids-{dead}").exists()
    assert (elsewhere / f".x.{dead}").exists()
