"""The App under nipype's engines: the same files and the same errors as without an engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import n4ax_bids
from n4ax_bids.app import cli
from n4ax_bids.app.images import nodes
from n4ax_bids.app.images.engine import Engine, read
from n4ax_bids.app.status import Status

EIGHT = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 9)]
FAST = ["--device", "cpu", "--n-iterations", "4", "3", "--skip-bids-validation"]
FAST += ["--no-reports", "--mask", "otsu"]  # finding a brain takes longer than the rest
SLURM = Path(__file__).with_name("slurm.sh")


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", *FAST, *flags])


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.relative_to(out).parts[0] != "logs"
    }


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Write a plugin file; return the flags that use it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(n4ax_bids.__file__).parents[1]))

    def write(name, **arguments):
        path = tmp_path / "plugin.yml"
        lines = [f"plugin: {name}", "plugin_args:"]
        lines += [f"  {key}: {value}" for key, value in arguments.items()]
        path.write_text("\n".join(lines))
        return ["--use-plugin", str(path)]

    return write


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Start SLURM on this machine for the duration of the test."""
    folder = tmp_path / "slurm"
    done = subprocess.run([SLURM, "start", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"SLURM cannot start here: {' '.join(done.stderr.split())}")
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    yield folder
    subprocess.run([SLURM, "stop", folder], check=True)


def test_an_engine_gives_what_a_run_without_one_gives(engine, make_dataset, tmp_path, capsys):
    """Three images and two that cannot be corrected, one before and one in its node."""
    root = make_dataset(*EIGHT[:5])
    (root / EIGHT[1]).write_bytes((root / EIGHT[1]).read_bytes()[:9000])
    (root / EIGHT[2].replace(".nii.gz", ".json")).write_text("{")
    assert main(root, tmp_path / "local") == Status.SOME_FAILED
    local = [line for line in capsys.readouterr().err.splitlines() if "failed: " in line]
    flags = [*engine("MultiProc", n_procs=2), "-w", str(tmp_path / "work")]
    assert main(root, tmp_path / "out", *flags) == Status.SOME_FAILED
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    failed = [line for line in said.err.splitlines() if "failed: " in line]
    reasons = [
        sorted(line.split("failed: ")[1].split(" (see ")[0] for line in lines)
        for lines in (local, failed)
    ]
    assert reasons[0] == reasons[1] and len(failed) == 2
    assert "3 of 5 images corrected, 2 failed" in said.err
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    crashes = sorted((tmp_path / "out" / "logs").glob("crash-*"))
    assert [path.name for path in crashes] == ["crash-sub-02_T1w.txt", "crash-sub-03_T1w.txt"]
    assert all("Traceback" in path.read_text() for path in crashes)
    assert list((tmp_path / "out" / "logs" / "claims").iterdir()) == []
    assert list((tmp_path / "work").iterdir()) == []
    # Only what is missing is done again, and what is there counts for a run without an engine.
    shutil.copy(root / EIGHT[0], root / EIGHT[1])
    (root / EIGHT[2].replace(".nii.gz", ".json")).unlink()
    assert main(root, tmp_path / "out", *flags) == 0
    assert "2 of 5 images corrected, 0 failed, 3 finished before" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "logs").glob("crash-*"))
    assert main(root, tmp_path / "out") == 0
    assert "0 of 5 images corrected" in capsys.readouterr().err


def test_an_engine_stops_on_the_first_crash(engine, make_dataset, tmp_path, capsys):
    root = make_dataset(*EIGHT[:3])
    (root / EIGHT[0]).write_bytes(b"no image")
    flags = [*engine("Linear"), "--stop-on-first-crash"]
    assert main(root, tmp_path / "out", *flags) == Status.SOME_FAILED
    text = capsys.readouterr().err
    assert "not a NIfTI file" in text and "1 failed, 2 not begun" in text


def test_an_engine_that_fails_as_a_whole(engine, make_dataset, tmp_path, capsys, monkeypatch):
    """There is no sbatch: each image is reported, and no traceback is shown."""
    monkeypatch.setenv("PATH", str(tmp_path))
    root = make_dataset(*EIGHT[:2])
    flags = engine("SLURM", max_tries=0)
    assert main(root, tmp_path / "out", *flags) == Status.SOME_FAILED
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    failed = [line for line in said.err.splitlines() if "failed: nipype's SLURM plugin" in line]
    assert len(failed) == 2
    assert not list((tmp_path / "out").glob("sub-*"))


def test_other_runs_images_are_left_to_them(engine, make_dataset, tmp_path, capsys):
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims, presence

    root, out = make_dataset(*EIGHT[:2]), tmp_path / "out"
    with (
        presence.at_work(out) as (other, _),
        claims.claimed(out / attempt.CLAIMS, EIGHT[0], other),
    ):
        assert main(root, out, *engine("Linear")) == 0
    assert "1 of 2 images corrected, 0 failed, 1 left to other runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plugin: Slurm", "plugin is 'Slurm' with arguments {}; expected plugin, one of "),
        ("plugin: SLURMGraph", "plugin is 'SLURMGraph'"),
        ("plugin: MultiProc\nplugin_args: 3", "arguments 3; expected plugin"),
        ("[", "not readable as YAML or JSON"),
        ("", "plugin is None"),
        ('plugin: !!int ""', "a value does not fit its tag"),
        ('plugin: !!float ""', "a value does not fit its tag"),
        ("plugin: !!bool maybe", "a value does not fit its tag"),
        (
            "plugin: !!timestamp today",
            "a value does not fit its tag",
        ),
    ],
)
def test_files_that_name_no_engine(text, words, make_dataset, tmp_path, capsys):
    path = tmp_path / "plugin.json"
    path.write_text(text)
    root = make_dataset(EIGHT[0], empty=True)
    assert main(root, tmp_path / "out", "--use-plugin", str(path)) == Status.USAGE
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in line and words in line
    assert not (tmp_path / "out").exists()
    assert main(root, tmp_path / "out", "--use-plugin", str(tmp_path / "no")) == Status.USAGE


def test_json_names_an_engine_too(tmp_path):
    path = tmp_path / "plugin.json"
    path.write_text(json.dumps({"plugin": "SGE", "plugin_args": {"qsub_args": "-q long"}}))
    assert read(path) == Engine("SGE", {"qsub_args": "-q long"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ValueError: a.nii: odd: very", ("ValueError", "a.nii: odd: very")),
        (
            "x.y.DeviceError: gpu:0: lost\n\nWhen creating this crashfile",
            ("DeviceError", "gpu:0: lost"),
        ),
        ("\tn4ax_bids.app.claims.Taken\n", ("Taken", "")),
        (
            "KeyError: 1\n\n\tValueError: last\nWhen creating this crashfile\nOSError: x",
            ("ValueError", "last"),
        ),
        ("no error here", ("", "")),
    ],
)
def test_what_a_crash_file_ends_with(text, expected):
    assert nodes._last_error(text) == expected


@pytest.mark.slow
def test_slurm_gives_what_a_run_without_it_gives(slurm, engine, make_dataset, tmp_path, capsys):
    root = make_dataset(*EIGHT[:4])
    assert main(root, tmp_path / "local") == 0
    assert main(root, tmp_path / "out", *engine("SLURM", sbatch_args="-n1 --mem=300")) == 0
    assert "4 of 4 images corrected, 0 failed" in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    shown = subprocess.run(
        ["scontrol", "show", "job", "-o"], capture_output=True, text=True, check=True
    ).stdout
    ran = [line for line in shown.splitlines() if "JobState=COMPLETED" in line]
    assert len(ran) == 4 and all("n4ax_bids_wf" in line for line in ran)


@pytest.mark.slow
def test_a_slurm_array_shares_the_images(slurm, make_dataset, tmp_path):
    """Four tasks get all images: each image is corrected once, by the task that was first."""
    root, out = make_dataset(*EIGHT), tmp_path / "out"
    assert main(root, tmp_path / "local") == 0
    words = ["python", "-m", "n4ax_bids", str(root), str(out), "participant", *FAST]
    words[0] = sys.executable
    script = tmp_path / "array.sh"
    script.write_text(f"#!/bin/bash\n{' '.join(words)}\n")
    subprocess.run(
        ["sbatch", "--wait", "--array=1-4", "-n1", "--mem=200", "-o", tmp_path / "%a.log", script],
        check=True,
        env=os.environ,
    )
    assert contents(out) == contents(tmp_path / "local")
    rows = [row.split("\t") for table in out.glob("logs/*/images.tsv") for row in table.open()]
    assert sorted(row[0] for row in rows if row[1] == "corrected") == EIGHT
    assert len(list(out.glob("logs/*/images.tsv"))) == 4


@pytest.mark.slow
def test_a_slurm_job_that_is_killed_fails_alone(slurm, engine, make_dataset, tmp_path, capsys):
    """The killed job leaves neither a result nor a reason."""
    root = make_dataset(*EIGHT[:2])
    killed = tmp_path / "template.sh"
    killed.write_text("#!/bin/bash\ncase $SLURM_JOB_NAME in image_0.*) kill -9 $$ ;; esac")
    flags = engine("SLURM", sbatch_args="-n1 --mem=300", template=killed)
    assert main(root, tmp_path / "out", *flags) == Status.SOME_FAILED
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "sub-01_T1w: failed: Job id" in said.err and "results file does not exist" in said.err
    assert "1 of 2 images corrected, 1 failed" in said.err
