"""The run without a solve: the inputs of the node, the order, and faults of single images."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from n4ax_bids.app import run
from n4ax_bids.app.images import attempt, quarantine
from n4ax_bids.app.machine import presence, processes, resources, threads
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from tests.app.three_images import THREE, files, main


def test_the_node_gets_absolute_paths_no_rescaling_and_one_shared_folder(
    fake_node, make_dataset, tmp_path, monkeypatch
):
    root = make_dataset(*THREE)
    monkeypatch.chdir(tmp_path)
    assert main("raw", "out", "--mask", "none") == 0
    assert len(fake_node) == 3
    given = sorted(fake_node, key=lambda inputs: inputs.input_image)
    for inputs, relative in zip(given, THREE, strict=True):
        assert inputs.input_image == str(root / relative)
        assert inputs.rescale_intensities is False
        for path in (inputs.output_image, inputs.bias_image, inputs.lattice_image):
            assert os.path.isabs(path) and path.endswith(".nii.gz")
        assert len({Path(inputs.output_image).parent, Path(inputs.lattice_image).parent}) == 1
        assert not hasattr(inputs, "auto_mask")
    assert len({Path(inputs.output_image).parents[1] for inputs in fake_node}) == 1


def test_every_image_has_its_files_and_nothing_else_is_left(fake_node, make_dataset, tmp_path):
    root, out, work = make_dataset(*THREE), tmp_path / "out", tmp_path / "work"
    assert main(root, out, "-w", str(work)) == 0
    expected = [".bidsignore", "dataset_description.json", "descriptions.tsv"]
    for relative in THREE:
        stem, _, suffix = relative.split(".")[0].rpartition("_")
        for label in ("biascorr", "biasfield", "biaslattice"):
            expected += [f"{stem}_desc-{label}_{suffix}{end}" for end in (".nii.gz", ".json")]
    assert files(out) == sorted(expected)
    assert list(work.iterdir()) == []


def test_the_corrected_image_appears_last_and_then_the_record(
    fake_node, make_dataset, tmp_path, monkeypatch
):
    root, out, order = make_dataset(THREE[0]), tmp_path / "out", []
    replace = os.replace

    def recorded(source, target):
        order.append(Path(target).relative_to(out).as_posix())
        replace(source, target)

    monkeypatch.setattr(os, "replace", recorded)
    assert main(root, out) == 0
    images = [name for name in order if name.startswith(("sub-", "logs/images/"))]
    assert len(images) == 7
    assert all(name.endswith(".json") for name in images[:3])
    assert images[-2:] == [
        "sub-01/anat/sub-01_desc-biascorr_T1w.nii.gz",
        "logs/images/sub-01/anat/sub-01_T1w.json",
    ]


def test_progress_is_one_line_per_image(fake_node, make_dataset, tmp_path, capsys):
    assert main(make_dataset(*THREE), tmp_path / "out") == 0
    text = capsys.readouterr().err
    for number, relative in enumerate(THREE, start=1):
        name = Path(relative).name.split(".")[0]
        assert text.count(f"[{number}/3] {name}: corrected in ") == 1
    assert "3 of 3 images corrected, 0 failed" in text


@pytest.mark.parametrize("fault", ["node", "sidecar", "output"])
def test_one_failure_does_not_stop_the_others(fake_node, make_dataset, tmp_path, capsys, fault):
    root, out = make_dataset(*THREE), tmp_path / "out"
    if fault == "node":
        (root / THREE[1]).write_bytes(b"")
    elif fault == "sidecar":
        (root / "sub-02/anat/sub-02_T1w.json").write_text("{")
    else:
        out.mkdir()
        (out / "sub-02").touch()
    assert main(root, out) == 1
    text = capsys.readouterr().err
    (line,) = [line for line in text.splitlines() if "failed:" in line]
    assert "[2/3] sub-02_T1w: failed: " in line
    assert "Traceback" not in text
    assert "2 of 3 images corrected, 1 failed" in text
    crash = out / "logs" / "crash-sub-02_T1w.txt"
    assert str(crash) in line
    assert "Traceback" in crash.read_text()
    made = [name for name in files(out) if name.startswith("sub-")]
    assert len([name for name in made if name.startswith(("sub-01/", "sub-03/"))]) == 12
    assert [name for name in made if name.startswith("sub-02/")] == []
    assert not [name for name in out.iterdir() if name.name.startswith(".n4ax")]


def test_threads_and_device_reach_the_node(fake_node, make_dataset, tmp_path):
    flags = ["--omp-nthreads", "1", "--device", "cpu"]
    assert main(make_dataset(THREE[0]), tmp_path / "out", *flags) == 0
    assert (fake_node[0].num_threads, fake_node[0].device) == (1, "cpu")


def test_images_of_the_same_name_do_not_meet(fake_node, make_dataset, tmp_path):
    """Names that BIDS does not allow, in two folders that share only the work folder."""
    names = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-01/ses-1/anat/sub-01_T1w.nii.gz"]
    assert main(make_dataset(*names), tmp_path / "out", "--nprocs", "2") == 0
    assert len({inputs.lattice_image for inputs in fake_node}) == 2


@pytest.mark.parametrize("mem", ["1K", "1G"])
def test_memory_bounds_the_images_in_flight(fake_node, make_dataset, tmp_path, monkeypatch, mem):
    """With 1 kB each image is alone; with 1 GB, two of them meet."""
    inside, most, meet = [], [], threading.Barrier(2)

    def stand_in(job, **_):
        inside.append(job)
        most.append(len(inside))
        if mem == "1G":
            meet.wait(60)
        inside.remove(job)
        return {}

    monkeypatch.setattr(attempt, "correct", stand_in)
    names = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii" for n in range(4)]
    flags = ["--nprocs", "2", "--mem", mem]
    assert main(make_dataset(*names), tmp_path / "out", *flags) == 0
    assert max(most) == (2 if mem == "1G" else 1)


def test_a_crash_file_goes_when_the_image_has_come_right(fake_node, make_dataset, tmp_path):
    root, out = make_dataset(*THREE), tmp_path / "out"
    good = (root / THREE[0]).read_bytes()
    (root / THREE[0]).write_bytes(b"")
    assert main(root, out) == 1
    (root / THREE[0]).write_bytes(good)
    assert main(root, out) == 0
    assert not list((out / "logs").glob("crash-*"))


def test_an_interrupt_leaves_no_work_behind(
    fake_node, make_dataset, tmp_path, monkeypatch, capsys
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(attempt, "correct", interrupted)
    out = tmp_path / "out"
    assert main(make_dataset(*THREE), out) == 130
    assert "run the same command again to continue" in capsys.readouterr().err.splitlines()[-1]
    assert files(out) == [".bidsignore", "dataset_description.json", "descriptions.tsv"]
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["logs"]
    assert list((out / "logs" / "claims").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "warned"), [(["--preset", "fmriprep"], 1), (["--preset", "mriqc"], 0), ([], 0)]
)
def test_a_preset_for_a_weight_is_not_used_without_a_word(
    fake_node, make_dataset, tmp_path, capsys, flags, warned
):
    root = make_dataset(*THREE)
    for dry in (["--dry-run"], []):
        assert main(root, tmp_path / "out", *flags, *dry) == 0
        said = capsys.readouterr().err
        assert said.count("3 of 3 images have no white-matter weight") == warned


def test_an_image_whose_process_has_ended_has_failed_and_loses_its_mark(make_dataset, tmp_path):
    """A mark means that the run was killed; here only its process was."""
    root, out, told = make_dataset(*THREE[:2]), tmp_path / "out", []
    request = Request(root, out)
    jobs = dataset.select(request).jobs
    (share,) = resources.shares(n_jobs=1)

    class Devices:
        def run(self, task, jobs, work):
            for job in jobs:
                path = quarantine.path_of(job, out)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
                yield threads.Done(share, processes.WorkerEnded("a process ended by signal 9"))

    with presence.at_work(out, tmp_path / "work") as (here, work):
        run._in_pool(jobs, request, told.append, devices=Devices(), here=here, work=work)
    assert [outcome.job for outcome in told] == list(jobs)
    assert all(isinstance(outcome.error, processes.WorkerEnded) for outcome in told)
    assert not list((out / quarantine.FOLDER).iterdir())
