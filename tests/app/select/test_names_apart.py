"""Images with almost or exactly the same name are kept apart in everything that is stored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.app.select.segmentations import Segmentations
from n4ax_bids.app.status import Refusal, Status

RUNS = ("1", "01", "001")


def image(run, folder="sub-01/anat"):
    return f"{folder}/sub-01_run-{run}_T1w.nii.gz"


def values(root, **words):
    """The sidecars' value for each image."""
    request = Request(bids_dir=root, output_dir=root.parent / "out", **words)
    jobs = dataset.select(request).jobs
    return {job.relative: dataset.read_metadata(job).get("EchoTime") for job in jobs}


@pytest.mark.parametrize("session", ["a", "A"])
def test_sessions_that_differ_in_case_are_refused_also_one_by_one(make_dataset, session):
    """Where case makes no difference, the second run would replace the first one's outputs."""
    names = [f"sub-01/ses-{label}/anat/sub-01_ses-{label}_T1w.nii.gz" for label in "aA"]
    root = make_dataset(*names, empty=True)
    with pytest.raises(Refusal, match="differ only in case") as caught:
        values(root, sessions=(session,))
    assert caught.value.status == Status.INVALID_INPUT


@pytest.mark.parametrize("wanted", ["x", "X"])
def test_images_that_differ_in_case_are_refused_also_one_by_one(make_dataset, wanted):
    names = [f"sub-01/anat/sub-01_acq-{label}_T1w.nii.gz" for label in "xX"]
    root = make_dataset(*names, "sub-01/anat/sub-01_acq-X_T2w.nii.gz", empty=True)
    with pytest.raises(Refusal, match="differ only in case") as caught:
        values(root, filters={"t1w": {"acquisition": wanted}})
    assert caught.value.status == Status.INVALID_INPUT
    assert len(values(root, modalities=("T2w",))) == 1  # the others are none of its business


@pytest.mark.parametrize("place", ["sub-01/anat", "sub-01", "."])
@pytest.mark.parametrize("kept", [False, True])
def test_each_run_has_its_own_sidecar(make_dataset, tmp_path, place, kept):
    sidecars = {f"{place}/sub-01_run-{run}_T1w.json": {"EchoTime": run} for run in RUNS}
    root = make_dataset(*map(image, RUNS), json_files=sidecars, empty=True)
    words = {"bids_database_dir": tmp_path / "index"} if kept else {}
    for _ in range(2):  # the second time from the kept index
        assert values(root, **words) == {image(run): run for run in RUNS}


def test_a_run_has_no_sidecar_of_another_one(make_dataset):
    sidecars = {"sub-01/anat/sub-01_run-01_T1w.json": {"EchoTime": "01"}}
    root = make_dataset(*map(image, RUNS), json_files=sidecars, empty=True)
    assert values(root) == {image("1"): None, image("01"): "01", image("001"): None}


def test_a_run_written_otherwise_in_the_sidecar_is_the_same_run(make_dataset):
    root = make_dataset(
        image("1"), json_files={"sub-01/sub-01_run-01_T1w.json": {"EchoTime": 2}}, empty=True
    )
    assert values(root) == {image("1"): 2}


@pytest.mark.parametrize("run", ["01", "001"])
def test_of_two_sidecars_of_one_run_the_exact_one_counts(make_dataset, run):
    sidecars = {f"sub-01/anat/sub-01_run-{r}_T1w.json": {"EchoTime": r, r: 1} for r in RUNS}
    root = make_dataset(image(run), json_files=sidecars, empty=True)
    request = Request(bids_dir=root, output_dir=root.parent / "out")
    (job,) = dataset.select(request).jobs
    assert dataset.read_metadata(job) == {"EchoTime": run, run: 1}


def test_each_run_has_its_own_mask(tmp_path):
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    for run in RUNS:
        (folder / f"sub-01_run-{run}_desc-brain_mask.nii.gz").touch()
    for run in RUNS:
        found = Segmentations({"x": tmp_path}).mask(image(run))
        assert found.path.name == f"sub-01_run-{run}_desc-brain_mask.nii.gz"


def sessions(name="sub-01_T1w.nii.gz"):
    return [f"sub-01/ses-{label}/anat/{name}" for label in ("1", "2")]


def run(root, out, level="participant", *words):
    flags = ("--skip-bids-validation", "--device", "cpu", "--n-iterations", "1")
    return cli.main([str(root), str(out), level, *(flags if level == "participant" else ())])


@pytest.mark.parametrize("name", ["sub-01_T1w.nii.gz", "sub-01_run-1_T1w.nii.gz"])
def test_one_name_in_two_sessions(make_dataset, tmp_path, name):
    """Figures, page and group have both images."""
    root, out = make_dataset(*sessions(name)), tmp_path / "out"
    assert run(root, out) == 0
    records = [json.loads(p.read_text()) for p in out.glob("sub-01/figures/*_desc-record_*")]
    assert sorted(record["source"] for record in records) == sessions(name)
    names = {record["image"] for record in records}
    assert len(names) == 2 and {each[:13] for each in names} == {"sub-01_ses-1-", "sub-01_ses-2-"}
    page = (out / "sub-01.html").read_text()
    assert all(f'id="{each}"' in page for each in names)
    assert run(root, out, "group") == 0
    with (out / "group_bias.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert {row["bids_name"] for row in rows} == names
    before = sorted(p.stat().st_mtime_ns for p in out.rglob("*.nii.gz"))
    assert run(root, out) == 0  # both are finished
    assert sorted(p.stat().st_mtime_ns for p in out.rglob("*.nii.gz")) == before


def test_of_one_name_in_two_sessions_one_fails(make_dataset, tmp_path):
    root, out = make_dataset(*sessions()), tmp_path / "out"
    (root / sessions()[0]).write_bytes(b"no image")
    assert run(root, out) == 1
    (crash,) = out.glob("logs/crash-*.txt")
    assert crash.name.startswith("crash-sub-01_ses-1-") and sessions()[0] in crash.read_text()
    assert run(root, out, "group") == 0
    with (out / "group_bias.tsv").open(newline="") as table:
        rows = {r["bids_name"][:13]: r["status"] for r in csv.DictReader(table, delimiter="\t")}
    assert len(rows) == 2 and rows["sub-01_ses-1-"] != rows["sub-01_ses-2-"]
    make_dataset(*sessions())
    assert run(root, out) == 0
    assert not list(out.glob("logs/crash-*.txt"))


def test_an_ordinary_name_stays(make_dataset):
    names = ["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-02/anat/sub-02_run-1_T1w.nii"]
    request = Request(bids_dir=make_dataset(*names, empty=True), output_dir=Path("out"))
    found = [job.name for job in dataset.select(request).jobs]
    assert found == ["sub-01_ses-1_T1w", "sub-02_run-1_T1w"]
