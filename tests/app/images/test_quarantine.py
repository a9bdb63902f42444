"""Images that are too large, or that kill a run, do not affect other images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.images import quarantine
from n4ax_bids.app.machine import limits, resources
from tests.app.images.records import done, marks

FOUR = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 5)]
BAD = "sub-02"

# A node that only pretends, and that a certain image kills with the whole process.
PROGRAM = """
import importlib.util, os, signal, sys, threading

import pytest
from n4ax_bids import interfaces
from n4ax_bids.app import cli

conftest, bad, together, *words = sys.argv[1:]
spec = importlib.util.spec_from_file_location("conftest", conftest)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.put_fake_node(pytest.MonkeyPatch(), digests=True)
Node, begun = interfaces.BiasFieldCorrection, threading.Barrier(int(together))

class Killing(Node):
    def run(self, cwd):
        if begun.parties > 1:
            begun.wait(60)
        if bad in str(self.inputs.input_image):
            os.kill(os.getpid(), signal.SIGKILL)
        if begun.parties > 1:
            threading.Event().wait(60)  # killed meanwhile
        return super().run(cwd)

interfaces.BiasFieldCorrection = Killing
sys.exit(cli.main(words))
"""


def program(root, out, *flags, together=1):
    """Run in a process of its own; return status and log."""
    words = [str(root), str(out), "participant", "--skip-bids-validation", "--no-reports"]
    conftest = Path(__file__).parents[1] / "conftest.py"
    command = [sys.executable, "-c", PROGRAM, str(conftest), BAD, str(together), *words, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def survives(fake_node, capsys):
    """Run in this process, which no image kills; return status and log."""

    def run(root, out, *flags):
        words = [str(root), str(out), "participant", "--skip-bids-validation", "--no-reports"]
        return cli.main([*words, *flags]), capsys.readouterr().err

    return run


def test_an_image_that_kills_the_run_is_set_aside(make_dataset, tmp_path, survives):
    root, out = make_dataset(*FOUR), tmp_path / "out"
    # Four in flight: nobody knows which of them it is.
    assert program(root, out, "--nprocs", "4", together=4)[0] == -9
    assert done(out) == []
    assert marks(out) == {f"sub-{n:02}": (1, False) for n in range(1, 5)}
    # One by one, in their order; the others of the dataset would have come first.
    assert program(root, out, "--nprocs", "4")[0] == -9
    assert done(out) == ["sub-01"]
    assert marks(out)[BAD] == (2, True) and marks(out)["sub-03"] == (1, False)
    status, log = survives(root, out, "--nprocs", "4")
    assert status == 1 and done(out) == ["sub-01", "sub-03", "sub-04"]
    (error,) = (line for line in log.splitlines() if " ERROR " in line)
    (mark,) = out.glob("logs/attempts/*.json")
    assert FOUR[1] in error and "2 runs were killed" in error
    assert f"remove {mark}" in error and "--overwrite" in error
    assert survives(root, out)[0] == 1  # it stays so
    # Once it is mended, either remedy helps.
    text = mark.read_text()
    mark.unlink()
    assert survives(root, out)[0] == 0 and marks(out) == {}
    mark.write_text(text)
    assert survives(root, out, "--overwrite")[0] == 0 and marks(out) == {}


def test_others_come_first_after_a_run_has_died(make_dataset, tmp_path, survives):
    root, out = make_dataset(FOUR[1]), tmp_path / "out"
    assert program(root, out)[0] == -9
    make_dataset(*FOUR)
    assert program(root, out, "--nprocs", "1")[0] == -9
    assert done(out) == ["sub-01", "sub-03", "sub-04"]
    assert survives(root, out)[0] == 1


def test_an_image_that_was_in_flight_with_others_is_not_set_aside(
    make_dataset, tmp_path, survives
):
    root, out = make_dataset(*FOUR), tmp_path / "out"
    assert program(root, out, "--nprocs", "4", together=4)[0] == -9
    for path in out.glob("logs/attempts/*.json"):  # as if it had been so nine times
        path.write_text(json.dumps(json.loads(path.read_text()) | {"n_begun": 9}))
    assert survives(root, out)[0] == 0
    assert marks(out) == {} and len(done(out)) == 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"n_begun": "x", "alone": 1}', "\xff"])
def test_a_damaged_mark_counts_once(make_dataset, tmp_path, fake_node, text):
    root, out = make_dataset(FOUR[0]), tmp_path / "out"
    words = [str(root), str(out), "participant", "--skip-bids-validation", "--no-reports"]
    assert cli.main(words) == 0
    key = quarantine.claims.key(FOUR[0])
    path = out / "logs" / "attempts" / f"{key}.json"
    path.write_text(text, encoding="latin-1")
    assert quarantine.Mark.read(path) == quarantine.Mark(1)
    shutil.rmtree(out / "logs" / "images")  # it has to be done once more
    assert cli.main([*words]) == 0 and not path.exists()


def test_an_ordinary_failure_leaves_no_mark(make_dataset, tmp_path, survives):
    root, out = make_dataset(FOUR[0]), tmp_path / "out"
    (root / FOUR[0]).write_bytes(b"no image")
    for _ in range(4):
        status, log = survives(root, out)
        assert status == 1 and "not a NIfTI file" in log and marks(out) == {}


def sparse(path, n):
    """Make an image of n³ voxels that takes some kB on the disk."""
    header = nb.Nifti1Header()
    header.set_data_shape((n, n, n))
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 4 * n**3)


@pytest.mark.parametrize("words", [(), ("--mem", "1G")])
def test_an_image_larger_than_the_job_fails_alone(
    make_dataset, tmp_path, capsys, monkeypatch, fake_node, words
):
    root, out = make_dataset(FOUR[0], FOUR[2]), tmp_path / "out"
    (root / "sub-02" / "anat").mkdir(parents=True)
    sparse(root / "sub-02" / "anat" / "sub-02_T1w.nii", 1500)
    monkeypatch.setattr(resources, "job_memory", lambda: 3_000_000_000)
    flags = ["--skip-bids-validation", "--no-reports", *words]
    assert cli.main([str(root), str(out), "participant", *flags]) == 1
    (error,) = (line for line in capsys.readouterr().err.splitlines() if " ERROR " in line)
    assert "sub-02_T1w.nii: its voxels take about 81.0 GB" in error
    assert "there are 3.0 GB for this job" in error
    assert len(fake_node) == 2 and marks(out) == {}


def test_a_mask_larger_than_the_job_fails_its_image(
    make_dataset, tmp_path, capsys, monkeypatch, fake_node
):
    root, out = make_dataset(FOUR[0], FOUR[1]), tmp_path / "out"
    other = tmp_path / "other"
    for name in FOUR[:2]:
        mask = other / name.replace("_T1w.nii.gz", "_desc-brain_mask.nii")
        mask.parent.mkdir(parents=True)
        sparse(mask, 1500 if name == FOUR[1] else 9)
    monkeypatch.setattr(resources, "job_memory", lambda: 3_000_000_000)
    flags = ["--skip-bids-validation", "--no-reports", "--mask", "derivatives", "-d", str(other)]
    assert cli.main([str(root), str(out), "participant", *flags]) == 1
    (error,) = (line for line in capsys.readouterr().err.splitlines() if " ERROR " in line)
    assert "sub-02_desc-brain_mask.nii: its voxels take about 81.0 GB" in error
    assert len(fake_node) == 1


def test_what_a_job_may_have_at_most(tmp_path, monkeypatch):
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/\n")
    (group / "memory.max").write_text("3000000000\n")
    (group / "memory.current").write_text("2900000000\n")  # by others, who may end
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        limits.resource, "getrlimit", lambda _: (limits.resource.RLIM_INFINITY,) * 2
    )
    assert limits.job_memory(tmp_path) == 3_000_000_000
    (proc / "statm").write_text("1000 500 0 0 0 0 0\n")
    assert limits.job_memory(tmp_path) == 3_000_000_000 - 500 * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1024")
    assert limits.job_memory(tmp_path) < 1024 * 2**20
