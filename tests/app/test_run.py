"""The run: the node's inputs, faults of single images, and complete runs on small images."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import fields
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli, run
from n4ax_bids.app.images import attempt, quarantine
from n4ax_bids.app.machine import presence, processes, resources, threads
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.options import N4Options

FAST = ["--device", "cpu", "--n-iterations", "4", "3"]
"""Few iterations: what is tested here is not the field."""

THREE = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii.gz",
    "sub-03/ses-1/anat/sub-03_ses-1_run-1_T2w.nii",
]


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", "--no-reports", *flags])


def files(folder: Path) -> list[str]:
    """Return the files by their paths, without the logs, which contain times."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != "logs")


def assert_same_place(output: Path, source: Path):
    """Affine, q-form and s-form, their codes, zooms and units are those of the source."""
    made, raw = nb.load(output).header, nb.load(source).header
    names = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c")
    for name in (*names, "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units"):
        np.testing.assert_array_equal(made[name], raw[name], err_msg=f"{name} of {output.name}")
    np.testing.assert_array_equal(made.get_best_affine(), raw.get_best_affine())
    assert made.get_zooms() == raw.get_zooms()
    assert made.get_data_shape() == raw.get_data_shape()
    assert made.get_data_dtype() == np.float32


def assert_product(stem: str, source: Path):
    """corrected × field = input: three float32 roundings, far below the demanded 1e-5."""
    corrected = nb.load(f"{stem.replace('@', 'biascorr')}").get_fdata()
    field = nb.load(f"{stem.replace('@', 'biasfield')}").get_fdata()
    image = nb.load(source).get_fdata()
    assert field.min() > 0
    np.testing.assert_allclose(corrected * field, image, rtol=1e-6, atol=1e-12)


def check_outputs(root: Path, out: Path, relative: str):
    source = root / relative
    folder, name = (out / relative).parent, source.name.removesuffix(".gz").removesuffix(".nii")
    entities, _, suffix = name.rpartition("_")
    stem = f"{folder}/{entities}_desc-@_{suffix}.nii.gz"
    for label in ("biascorr", "biasfield"):
        assert_same_place(Path(stem.replace("@", label)), source)
    assert_product(stem, source)
    for label in ("biascorr", "biasfield", "biaslattice"):
        text = Path(stem.replace("@", label).replace(".nii.gz", ".json")).read_text()
        content = json.loads(text)
        assert content["Sources"] == [f"bids:raw:{relative}"]
        n4 = content["BiasCorrection"]
        assert set(n4["Options"]) == {item.name for item in fields(N4Options)}
        assert n4["Mask"] == "auto"
        assert 0 < n4["NVoxelsMask"] < np.prod(nb.load(source).shape)
        assert n4["Device"]
        details, levels = n4["Details"], len(n4["Options"]["n_iterations"])
        assert len(details["n_iterations"]) == len(details["convergence"]) == levels
        assert not n4["Rescaled"]
    assert set(content["Lattice"]) == {"order", "first", "step", "clamp", "shape"}
    assert tuple(content["Lattice"]["shape"]) == nb.load(source).shape


# --- what the node is given -------------------------------------------------------------------


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


# --- order and faults ---------------------------------------------------------------------------


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


# --- the whole way, with the real node ----------------------------------------------------------


def test_a_small_dataset_becomes_a_valid_derivative(
    make_dataset, write_image, bids_errors, tmp_path
):
    root = make_dataset(
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_task-x_acq-a_run-1_T2w.nii.gz",
        json_files={
            "T1w.json": {"MagneticFieldStrength": 3, "ConversionSoftware": "x"},
            "sub-01/anat/sub-01_T1w.json": {"SkullStripped": False, "EchoTime": 0.003},
        },
    )
    write_image(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii", dtype=np.float32, codes=(0, 4))
    write_image(root / "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz", dtype=np.uint8, codes=(2, 0))
    assert bids_errors(root) == []
    out = tmp_path / "out"
    assert main(root, out, *FAST) == 0
    assert bids_errors(out) == []
    images = [name for name in files(root) if ".nii" in name]
    assert len(images) == 4
    for relative in images:
        check_outputs(root, out, relative)
    content = json.loads((out / "sub-01/anat/sub-01_desc-biascorr_T1w.json").read_text())
    assert content["EchoTime"] == 0.003
    assert content["MagneticFieldStrength"] == 3
    assert "ConversionSoftware" not in content


def test_equal_runs_give_equal_files(make_dataset, tmp_path):
    root = make_dataset(*THREE[:2])
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(root, first, *FAST) == 0
    assert main(root, second, *FAST, "-w", str(tmp_path / "work")) == 0
    assert files(first) == files(second)
    for name in files(first):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_options_reach_the_solver(make_dataset, tmp_path):
    root = make_dataset(THREE[0])
    flags = ["--device", "cpu", "--shrink-factor", "2", "--n-iterations", "3", "2", "1"]
    more = ["--n-control-points", "5", "4", "4", "--over-relaxation", "1.5", "--mask", "none"]
    assert main(root, tmp_path / "out", *flags, *more) == 0
    sidecar = tmp_path / "out/sub-01/anat/sub-01_desc-biascorr_T1w.json"
    n4 = json.loads(sidecar.read_text())["BiasCorrection"]
    assert n4["Mask"] == "none"
    assert n4["Details"]["n_iterations"] == [3, 2, 1]
    assert n4["Details"]["shrink_factors"] == [2, 2, 2]
    assert n4["Details"]["n_control_points"] == [5, 4, 4]
    assert n4["Options"]["over_relaxation"] == 1.5


def test_real_dataset(test_data, bids_errors, tmp_path):
    bids_small = test_data("bids-small")
    out = tmp_path / "out"
    assert main(bids_small, out, "--device", "cpu") == 0
    relative = [
        name
        for name in files(bids_small)
        if name.endswith(("T1w.nii.gz", "T1w.nii", "T2w.nii.gz"))
    ]
    assert len(relative) == 4
    for name in relative:
        check_outputs(bids_small, out, name)
    assert len([name for name in files(out) if "desc-biascorr" in name]) == 2 * len(relative)
    assert bids_errors(out) == []
