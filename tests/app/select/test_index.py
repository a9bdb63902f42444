"""The index of a dataset's files, in memory and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.select import index as module
from n4ax_bids.app.select.index import index
from n4ax_bids.app.status import Refusal, Status

NAMES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/ses-pre/anat/sub-02_ses-pre_T1w.nii.gz",
    "sub-02/ses-post/anat/sub-02_ses-post_T1w.nii.gz",
]


def images(layout):
    return {file.relpath for file in layout.get(extension=[".nii", ".nii.gz"])}


@pytest.fixture
def root(make_dataset):
    return make_dataset(
        *NAMES,
        "sub-01/func/sub-01_task-x_bold.nii.gz",
        "sub-02/ses-pre/dwi/sub-02_ses-pre_dwi.nii.gz",
        "derivatives/x/sub-02/ses-pre/anat/sub-02_ses-pre_T1w.nii.gz",
        empty=True,
    )


def test_only_anatomical_folders_of_the_chosen_are_indexed(root):
    assert images(index(root)) == set(NAMES)
    assert images(index(root, participants=["02"], sessions=["pre"])) == {NAMES[1]}
    assert images(index(root, participants=["0"])) == set()


def test_an_index_holds_the_datatypes_that_are_asked_for(root, tmp_path):
    bold = "sub-01/func/sub-01_task-x_bold.nii.gz"
    assert images(index(root, datatypes=("func",))) == {bold}
    place = tmp_path / "database"
    index(root, database_dir=place)
    for _ in range(2):
        found = images(index(root, datatypes=("anat", "func"), database_dir=place))
        assert found == {*NAMES, bold}
    (root / bold.replace("task-x", "task-y")).touch()
    assert len(images(index(root, datatypes=("func",), database_dir=place))) == 2


def test_a_kept_index_serves_later_runs_and_all_participants(root, tmp_path, monkeypatch):
    place = tmp_path / "database"
    assert images(index(root, participants=["01"], database_dir=place)) == set(NAMES)
    (kept,) = place.iterdir()
    assert [path.name for path in kept.iterdir()] == ["layout_index.sqlite"]
    monkeypatch.setattr(module, "_make_database", None)  # a second one would call it
    assert images(index(root, database_dir=place)) == set(NAMES)


@pytest.mark.parametrize("change", ["added", "removed", "session"])
def test_a_kept_index_is_made_anew_when_the_dataset_changes(root, tmp_path, change):
    place = tmp_path / "database"
    index(root, database_dir=place)
    expected = set(NAMES)
    if change == "removed":
        (root / NAMES[0]).unlink()
        expected.remove(NAMES[0])
    else:
        new = {"added": "sub-02/ses-pre/anat/sub-02_ses-pre_T2w.nii"}.get(
            change, "sub-01/ses-new/anat/sub-01_ses-new_T1w.nii"
        )
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / new).touch()
        expected.add(new)
    assert images(index(root, database_dir=place)) == expected


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_kept_index_that_is_no_file_is_named(root, tmp_path, kind):
    """Opening it would block for ever."""
    place = tmp_path / "database"
    index(root, database_dir=place)
    (kept,) = place.glob("*/layout_index.sqlite")
    kept.unlink()
    if kind == "pipe":
        os.mkfifo(kept)
    else:
        kept.symlink_to("/dev/zero")
    with pytest.raises(Refusal, match=f"{kept}: not a regular file.*remove the folder"):
        index(root, database_dir=place)


def times(root):
    """Give each folder the same time, as unpacked archives and downloads may have it."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (10**9, 10**9))


def test_a_kept_index_serves_no_other_dataset_in_the_same_place(root, tmp_path):
    """Equal names of participants, equal times of all folders, another image."""
    place = tmp_path / "database"
    times(root)
    assert images(index(root, database_dir=place)) == set(NAMES)
    (root / NAMES[0]).rename(root / NAMES[0].replace("_T1w", "_T2w"))
    times(root)
    expected = {NAMES[0].replace("_T1w", "_T2w"), *NAMES[1:]}
    assert images(index(root, database_dir=place)) == expected
    assert len(list(place.iterdir())) == 2


def test_a_kept_index_is_for_one_description(root, tmp_path):
    place, file = tmp_path / "database", root / "dataset_description.json"
    times(root)
    index(root, database_dir=place)
    file.write_text(json.dumps({"Name": "tidy", "BIDSVersion": "1.10.0", "DatasetType": "raw"}))
    times(root)
    index(root, database_dir=place)
    assert len(list(place.iterdir())) == 2


@pytest.mark.parametrize("change", ["times", "others", "folder for file"])
def test_what_a_kept_index_depends_on(root, tmp_path, change):
    """It depends neither on times nor on files that are not indexed, but on the kind of a file."""
    place = tmp_path / "database"
    index(root, database_dir=place)
    if change == "times":
        times(root)
    elif change == "others":
        (root / "derivatives" / "y").mkdir()
        (root / "sub-01" / "func" / "sub-01_task-y_bold.nii.gz").touch()
        (root / "sub-01" / "anat" / ".DS_Store").touch()
        (root / "README").touch()
    else:
        (root / NAMES[0]).unlink()
        (root / NAMES[0]).mkdir()
    index(root, database_dir=place)
    assert len(list(place.iterdir())) == (2 if change == "folder for file" else 1)


def test_a_kept_index_is_made_anew_when_other_files_are_indexed(root, tmp_path, monkeypatch):
    """By another version of the program: what it has kept may hold files that are none of ours."""
    place = tmp_path / "database"
    monkeypatch.setattr(module, "_pattern", lambda datatypes: ".*")
    assert set(NAMES) < images(index(root, database_dir=place))
    monkeypatch.undo()
    assert images(index(root, database_dir=place)) == set(NAMES)


def test_several_processes_may_make_the_same_index(root, tmp_path):
    code = (
        "import sys; from pathlib import Path; from n4ax_bids.app.select.index import index\n"
        "layout = index(Path(sys.argv[1]), database_dir=Path(sys.argv[2]))\n"
        "print(len(layout.get(suffix='T1w')))"
    )
    words = [sys.executable, "-c", code, str(root), str(tmp_path / "database")]
    processes = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        out, err = process.communicate()
        assert out.strip() == "3", err
    assert len(list((tmp_path / "database").iterdir())) == 1


def test_a_place_for_the_index_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="file/x: cannot keep an index here") as caught:
        index(root, database_dir=tmp_path / "file" / "x")
    assert caught.value.status == Status.CANNOT_WRITE


@pytest.mark.parametrize("place", ["raw/db", "raw", "link/db", "link"])
def test_no_index_inside_the_dataset(root, tmp_path, place):
    before = sorted(root.rglob("*"))
    (tmp_path / "link").symlink_to(root)
    place = root / Path(place).relative_to("raw") if place[:3] == "raw" else tmp_path / place
    with pytest.raises(Refusal, match="lies inside the dataset that it indexes"):
        index(root, database_dir=place)
    assert sorted(root.rglob("*")) == before


def test_a_dry_run_takes_a_kept_index_and_makes_none(root, tmp_path):
    place = tmp_path / "database"
    words = [str(root), str(tmp_path / "out"), "participant", "--bids-database-dir", str(place)]
    assert cli.main([*words, "--dry-run", "--skip-bids-validation"]) == 0
    assert not place.exists()
    assert images(index(root, database_dir=place, make=False)) == set(NAMES)
    assert not place.exists()


PROGRAM = r"""
import json, re, sys, time
from pathlib import Path
from n4ax_bids.app.select import dataset
from n4ax_bids.app.request import Request
root = Path(sys.argv[1])
kept = Path(sys.argv[2]) if sys.argv[2:] else None
start = time.perf_counter(), time.process_time()
selection = dataset.select(Request(root, root.parent / "out", bids_database_dir=kept))
seconds = time.perf_counter() - start[0], time.process_time() - start[1]
# Not getrusage's: that begins with what the process that started this one had.
memory = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([len(selection.jobs), len(selection.skipped), seconds, memory]))
"""


def of_participants(numbers):
    """The names of a study's images, of which two of each participant are taken."""
    kinds = ["anat/{}T1w.nii.gz", "anat/{}T2w.nii.gz", "anat/{}FLAIR.nii.gz", "dwi/{}dwi.nii.gz"]
    kinds += [f"func/{{}}task-rest_run-{n}_bold.nii.gz" for n in (1, 2)]
    subjects = [f"sub-{n:04}" for n in numbers]
    return [f"{s}/ses-1/{kind.format(f'{s}_ses-1_')}" for s in subjects for kind in kinds]


@pytest.mark.slow
def test_two_thousand_participants(make_dataset, tmp_path):
    """In less than 1 GB, and neither memory nor time of a participant grows with their number.

    The whole study goes through an index in memory, which takes most memory. A kept index takes
    more time to make (all participants go into a database) and less to use; a quarter of the study
    shows that it takes no more memory. The times that are printed are for a person (-s).
    """

    def cost(n_participants, *words):
        """Return the bytes and the seconds of processor time of a selection."""
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "raw"), *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        n_jobs, n_skipped, (wall, cpu), memory = json.loads(done.stdout.splitlines()[-1])
        assert (n_jobs, n_skipped) == (2 * n_participants, n_participants)
        whole = time.perf_counter() - start
        print(f"{n_participants} {words}: {wall:.1f} s ({cpu:.1f} s of processor time), ", end="")
        print(f"{memory / 1e9:.3f} GB, {whole:.1f} s in all")
        return memory, cpu

    sidecar, place = {"T1w.json": {"EchoTime": 1}}, str(tmp_path / "database")
    costs = {}
    for before, n in ((0, 100), (100, 500), (500, 2000)):
        make_dataset(*of_participants(range(before, n)), empty=True, json_files=sidecar)
        costs[n] = cost(n)
        if n == 500:
            kept = [cost(n, place) for _ in ("made", "used")]
    (few, _), (some, quarter), (many, whole) = costs.values()
    assert many < 1e9
    assert (many - some) / 1500 < 1.5 * (some - few) / 400
    assert whole < 1.5 * 4 * quarter
    assert max(memory for memory, _ in kept) < 1.1 * some
