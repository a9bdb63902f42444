"""Pipes, sockets and devices in the place of texts: never waited for, never read without end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.machine import presence
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import validation
from n4ax_bids.app.status import Status

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
LONGEST = 60
"""seconds that a run may take here"""


@pytest.fixture
def run(make_dataset, tmp_path, finishing_node, capsys):
    """Run over two images; return the status and what was logged. A run that waits is ended."""
    make_dataset(T1W, "sub-02/anat/sub-02_T1w.nii.gz")

    def too_long(*_):
        raise AssertionError("the run waits")

    def once(*flags, level="participant"):
        before = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(LONGEST)
        try:
            status = cli.main([str(tmp_path / "raw"), str(tmp_path / "out"), level, *flags])
        except SystemExit as end:
            status = end.code
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return status, capsys.readouterr().err

    return once


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def finished(run, tmp_path, kept):
    """Have both images finished in the output folder; they are corrected once for all tests."""
    folders = [(tmp_path / name, kept / name) for name in ("raw", "out")]
    if (kept / "out").exists():
        shutil.rmtree(tmp_path / "raw")
        for here, there in folders:
            shutil.copytree(there, here, symlinks=True)
        return
    status, text = run()
    assert status == Status.OK and "sub-02_T1w: corrected" in text
    for here, there in folders:
        shutil.copytree(here, there, symlinks=True)


def test_copies_of_finished_images_are_finished(run, finished, tmp_path, kept):
    """Otherwise the tests below would correct them again."""
    status, text = run()
    assert status == Status.OK and "2 of 2 images are finished already" in text


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = {"a named pipe": _pipe, "a socket": _socket, "a device": _endless}
each_kind = pytest.mark.parametrize("kind", KINDS)


def put(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    KINDS[kind](path)


@each_kind
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("dataset_description.json", Status.INVALID_INPUT),
        ("T1w.json", Status.SOME_FAILED),
        ("sub-01/sub-01_T1w.json", Status.SOME_FAILED),
        ("sub-01/anat/sub-01_T1w.json", Status.SOME_FAILED),
        ("participants.tsv", Status.OK),
    ],
)
def test_in_the_dataset(run, tmp_path, kind, name, status):
    path = tmp_path / "raw" / name
    put(kind, path)
    found, text = run("--skip-normalized", "yes")
    assert found == status
    unread = f"{path}: not readable as" in text and f"it is {kind}; expected a file" in text
    # A sidecar that is a link to a device leads out of the dataset, which is told first.
    leads_out = f"{path}: a link to /dev/zero, which is outside the dataset" in text
    assert unread or (kind == "a device" and leads_out)
    assert ("sub-02_T1w: corrected" in text) == (
        name not in ("dataset_description.json", "T1w.json")
    )


@each_kind
def test_on_the_command_line(run, tmp_path, kind):
    path = tmp_path / "file"
    put(kind, path)
    for flag in ("--config-file", "--bids-filter-file", "--use-plugin"):
        status, text = run(flag, str(path))
        assert status == Status.USAGE
        unread = f"{path}: not readable as" in text and f"it is {kind}; expected a file" in text
    # A sidecar that is a link to a device leads out of the dataset, which is told first.
    leads_out = f"{path}: a link to /dev/zero, which is outside the dataset" in text
    assert unread or (kind == "a device" and leads_out)


@each_kind
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("dataset_description.json", Status.USAGE),
        ("descriptions.tsv", Status.USAGE),
        (".bidsignore", Status.USAGE),
        ("sub-01.html", Status.OK),
        ("logs/images/sub-01/anat/sub-01_T1w.json", Status.OK),
        ("logs/images/sub-02/anat/sub-09_T1w.json", Status.OK),
        ("logs/crash-sub-01_T1w.txt", Status.OK),
        ("sub-01/anat/sub-01_desc-biascorr_T1w.json", Status.OK),
        ("sub-01/figures/sub-01_desc-record_T1w.json", Status.OK),
        (".n4ax_bids-0011223344556677-1-1-00112233/run.json", Status.OK),
        ("logs/CITATION.md", Status.OK),
    ],
)
def test_in_the_output_folder(run, finished, tmp_path, kind, name, status):
    put(kind, tmp_path / "out" / name)
    found, text = run()
    assert found == status, text
    found, text = run(level="group")
    assert found == Status.OK, text


@each_kind
def test_an_image_in_the_dataset_that_was_finished(run, finished, tmp_path, kind):
    put(kind, tmp_path / "raw" / T1W)
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {tmp_path / 'raw' / T1W}" in text


@each_kind
def test_a_marker(tmp_path, kind):
    folder = tmp_path / ".n4ax_bids-0011223344556677-1-1-00112233"
    put(kind, folder / presence.MARKER)
    assert presence.marker(folder) is None


@each_kind
def test_the_validator_sees_none(make_dataset, tmp_path, kind):
    root = make_dataset(T1W)
    names = ["README", "T1w.json", "sub-01/sub-01_T1w.json", "sub-01/anat/sub-01_T2w.nii"]
    for name in names:
        put(kind, root / name)
    (root / "sub-01" / "anat" / "sub-01_T1w.json").symlink_to("gone")
    validation._link(Request(root, tmp_path / "out"), tmp_path / "view")
    assert not any(os.path.lexists(tmp_path / "view" / name) for name in names)
    assert os.path.lexists(tmp_path / "view" / "sub-01" / "anat" / "sub-01_T1w.json")


@each_kind
def test_masks_and_transforms_of_other_pipelines(run, tmp_path, kind, write_image):
    folder = tmp_path / "derived" / "sub-01" / "anat"
    put(kind, folder / "sub-01_desc-brain_mask.nii.gz")
    flags = ("--mask", "derivatives", "-d", f"x={tmp_path / 'derived'}")
    status, text = run(*flags)
    assert status == Status.SOME_FAILED
    assert f"failed: {folder / 'sub-01_desc-brain_mask.nii.gz'}" in text
    (folder / "sub-01_desc-brain_mask.nii.gz").unlink()
    write_image(folder / "sub-01_desc-brain_mask.nii.gz")
    put(kind, folder / "sub-01_from-orig_to-T1w_mode-image_xfm.txt")
    status, text = run(*flags)
    assert status == Status.SOME_FAILED
    assert f"failed: {folder / 'sub-01_from-orig_to-T1w_mode-image_xfm.txt'}" in text


SLOW = """
import sys, time
from n4ax_bids.app import cli
from n4ax_bids.app.machine import signals
from n4ax_bids.app.{wing} import {module}

def slow(*_, **__):
    print("begun", file=sys.stderr, flush=True)
    time.sleep(300)

{module}.{name} = slow
signals.GRACE = 3
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("wing", "module", "name"),
    [
        ("select", "dataset", "select"),
        ("outputs", "source", "check"),
        ("images", "attempt", "correct"),
    ],
)
def test_a_signal_ends_a_run_that_is_stuck(make_dataset, tmp_path, number, wing, module, name):
    make_dataset(T1W)
    program = SLOW.format(wing=wing, module=module, name=name)
    words = [str(tmp_path / "raw"), str(tmp_path / "out"), "participant", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--skip-bids-validation"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any(line == "begun\n" for line in process.stderr)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == (143 if number == signal.SIGTERM else Status.INTERRUPTED)
        assert time.monotonic() - begun < 20
        leftover = list((tmp_path / "out").glob(".n4ax_bids-*"))
        assert not leftover or module == "attempt"  # the next run removes that
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
