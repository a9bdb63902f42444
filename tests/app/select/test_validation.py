"""The BIDS validator before a run."""

from __future__ import annotations

import os
import sys
import tempfile
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
    """Copies below `anat` and folders of no participant are left out, and the log says so."""
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


ODD_ANSWERS = {
    "numbers": '{"issues": {"issues": [1, 2]}}',
    "null": '{"issues": {"issues": null}}',
    "a text": '{"issues": {"issues": "abc"}}',
    "an object": '{"issues": {"issues": {"severity": "error"}}}',
    "no code": '{"issues": {"issues": [{"severity": "error"}]}}',
    "a list as code": '{"issues": {"issues": [{"severity": "error", "code": ["x"]}]}}',
    "nested": "[" * 200_000,
    "a list": "[]",
    "a long number": '{"issues": {"issues": ' + "9" * 5000 + "}}",
}


@pytest.mark.parametrize("answer", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_a_validator_that_answers_oddly_does_not_end_the_run(
    make_dataset, tmp_path, monkeypatch, capsys, answer
):
    assert _answered(make_dataset, tmp_path, monkeypatch, answer) == 0
    error = capsys.readouterr().err
    assert "not validated: bids-validator-deno ended with status 16" in error
    assert len(error.splitlines()) == 1


def test_a_validator_that_answers_without_end_is_not_read(
    make_dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(validation, "LARGEST_ANSWER", 1000)
    issue = '{"severity": "error", "code": "X"}'
    answer = '{"issues": {"issues": [' + ",".join([issue] * 100) + "]}}"
    assert _answered(make_dataset, tmp_path, monkeypatch, answer) == 0
    assert "its answer has more than 1,000 bytes" in capsys.readouterr().err


def test_many_kinds_of_errors_are_one_short_line(make_dataset, tmp_path, monkeypatch, capsys):
    issues = ",".join(f'{{"severity": "error", "code": "CODE_{n}"}}' for n in range(1000))
    long = '{"severity": "error", "code": "' + "C" * 100_000 + '", "location": ["/x"]}'
    answer = f'{{"issues": {{"issues": [{long},{issues}]}}}}'
    assert _answered(make_dataset, tmp_path, monkeypatch, answer) == 16
    (line,) = capsys.readouterr().err.splitlines()
    assert "CODE_0" in line and "and 991 more codes" in line
    assert len(line) < 2000


def _answered(make_dataset, tmp_path, monkeypatch, answer):
    """Return how a dry run ends if its validator gives this answer."""
    (tmp_path / "answer").write_text(answer)
    program = tmp_path / "stand-in"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path / 'answer'}'\nexit 16\n")
    program.chmod(0o755)
    monkeypatch.setattr(validation, "_program", lambda: str(program))
    root = make_dataset(T1W, empty=True)
    return cli.main([str(root), str(tmp_path / "out"), "participant", "--dry-run"])


@pytest.mark.parametrize("content", [b"", b"#!/no/such/program\n", b"\x7fELF and no more"])
def test_a_validator_that_cannot_be_started_does_not_end_the_run(
    make_dataset, tmp_path, monkeypatch, capsys, content
):
    broken = tmp_path / "broken"
    broken.write_bytes(content)
    broken.chmod(0o755)
    views = tmp_path / "views"
    views.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(views))
    monkeypatch.setattr(validation, "_program", lambda: str(broken))
    root = make_dataset(T1W, empty=True)
    assert cli.main([str(root), str(tmp_path / "out"), "participant", "--dry-run"]) == 0
    error = capsys.readouterr().err
    assert f"not validated: {broken} cannot be started" in error
    assert list(views.iterdir()) == []


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
