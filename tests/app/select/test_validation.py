"""The BIDS validator before a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import validation
from n4ax_bids.app.status import Refusal, Status

T1W = "sub-01/anat/sub-01_T1w.nii.gz"


def problem(root, tmp_path, **wanted):
    with validation.validating(Request(root, tmp_path / "out", **wanted)) as found:
        view = found._view
        try:
            found.require_valid()
        except Refusal as refusal:
            assert refusal.status == Status.INVALID_INPUT
            return str(refusal)
        finally:
            assert view is None or Path(view).is_dir()
    assert view is None or not Path(view).exists()
    return None


def test_a_valid_dataset(make_dataset, tmp_path, validator):
    root = make_dataset(
        T1W,
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii",
        json_files={"T1w.json": {"EchoTime": 0.1}, "sub-01/anat/sub-01_T1w.json": {}},
    )
    assert problem(root, tmp_path) is None


def test_what_a_run_does_not_read_is_not_validated(make_dataset, tmp_path, validator):
    """Copies below `anat` and folders that are no participants' are left out, and told so."""
    names = ["sub-01/anat/old/sub-01_T1w.nii.gz", "sub-01.bak/anat/sub-01_T1w.nii.gz"]
    assert problem(make_dataset(T1W, *names), tmp_path) is None


def test_errors_are_named_by_code_and_file(make_dataset, tmp_path, validator):
    names = [f"sub-01/anat/sub-01_run-{n}_blah.nii.gz" for n in (1, 2)]
    found = problem(make_dataset(T1W, *names), tmp_path)
    assert "not valid BIDS: NOT_INCLUDED (2 times, /sub-01/anat/sub-01_run-" in found
    assert "--skip-bids-validation" in found and "\n" not in found


def test_only_what_the_run_reads_is_looked_at(make_dataset, tmp_path, validator):
    bad = "sub-01/anat/sub-01_blah.nii.gz"
    root = make_dataset(
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_blah.nii.gz",
        "sub-02/ses-1/func/sub-02_ses-1_blah.nii.gz",
        "blah/x.nii.gz",
        bad,
        json_files={"T2w.json": {"EchoTime": 1}, "task-x_bold.json": {}},
    )
    assert "NOT_INCLUDED" in problem(root, tmp_path)
    assert "NOT_INCLUDED" in problem(root, tmp_path, participants=("02",))
    assert problem(root, tmp_path, participants=("02",), sessions=("1",)) is None
    (root / ".bidsignore").write_text("*_blah.nii.gz\n")
    assert problem(root, tmp_path) is None


def test_a_fault_of_one_image_is_left_to_the_run(make_dataset, tmp_path, validator):
    names = [f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in (1, 2, 3, 4)]
    root = make_dataset(*names)
    (root / names[1]).write_bytes(b"")
    (root / names[2]).write_bytes((root / names[2]).read_bytes()[:200])
    (root / names[3]).unlink()
    os.symlink("../../.git/annex/objects/x", root / names[3])
    assert problem(root, tmp_path) is None


def test_exit_status_and_nothing_written(make_dataset, tmp_path, validator, fake_node, capsys):
    root, out = make_dataset(T1W, "sub-01/anat/sub-01_blah.nii.gz"), tmp_path / "out"
    words = [str(root), str(out), "participant"]
    assert cli.main(words) == 16
    assert "NOT_INCLUDED" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists() and not fake_node
    assert cli.main([*words, "--skip-bids-validation"]) == 0
    assert "not validated (--skip-bids-validation)" in capsys.readouterr().err
    assert len(fake_node) == 1


def test_the_plan_is_shown_before_the_errors(make_dataset, tmp_path, validator, capsys):
    root = make_dataset(T1W, "sub-01/anat/sub-01_blah.nii.gz")
    assert cli.main([str(root), str(tmp_path / "out"), "participant", "--dry-run"]) == 16
    shown = capsys.readouterr()
    assert f"correct  {T1W}" in shown.out and "NOT_INCLUDED" in shown.err


def test_a_validator_that_is_not_there_is_told_of(make_dataset, tmp_path, fake_node, capsys):
    words = [str(make_dataset(T1W)), str(tmp_path / "out"), "participant"]
    assert cli.main(words) == 0
    assert "not validated: bids-validator-deno is not installed" in capsys.readouterr().err


def test_a_validator_that_breaks_does_not_end_the_run(
    make_dataset, tmp_path, monkeypatch, capsys, fake_node
):
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    broken.chmod(0o755)
    monkeypatch.setattr(validation, "_program", lambda: str(broken))
    words = [str(make_dataset(T1W)), str(tmp_path / "out"), "participant"]
    assert cli.main(words) == 0
    assert "not validated: bids-validator-deno ended with status 3" in capsys.readouterr().err


def test_a_validator_at_work_ends_with_the_run(make_dataset, tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    slow.chmod(0o755)
    monkeypatch.setattr(validation, "_program", lambda: str(slow))
    with pytest.raises(KeyboardInterrupt):
        with validation.validating(Request(make_dataset(T1W), tmp_path / "out")) as found:
            raise KeyboardInterrupt
    assert found._process.returncode == -9
    assert not Path(found._view).exists()
