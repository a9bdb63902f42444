"""The progress that a run reports."""

from __future__ import annotations

import errno
import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from n4ax_bids.app import logs
from n4ax_bids.app.command import words
from n4ax_bids.app.images import progress
from n4ax_bids.app.images.outcome import Outcome, State
from n4ax_bids.app.status import Status


class Terminal(io.StringIO):
    def isatty(self):
        return True


def outcome(number, **changes):
    name = f"sub-{number}_T1w"
    outputs = SimpleNamespace(corrected=Path("nowhere"))
    job = SimpleNamespace(name=name, relative=f"sub-{number}/anat/{name}.nii.gz", outputs=outputs)
    if "error" in changes:
        changes["state"] = State.FAILED
    return Outcome(job, **{"seconds": 1.5, "correction": {"notes": ()}} | changes)


@pytest.fixture
def told(monkeypatch):
    """Report outcomes with the log on a stream; return the status and the text."""

    def follow(outcomes, stream, **facts):
        monkeypatch.setattr("sys.stderr", stream)
        logs.set_up(verbose=False)
        with progress.Progress(len(outcomes), **facts) as told:
            for outcome in outcomes:
                told.tell(outcome)
            status = told.close()
        return status, stream.getvalue()

    yield follow
    logging.getLogger("n4ax_bids").handlers.clear()


def test_lines_have_pace_and_time_left_where_there_is_no_bar(told):
    status, text = told([outcome(1), outcome(2), outcome(3)], io.StringIO())
    assert status == Status.OK
    lines = text.splitlines()
    assert len(lines) == 4
    for number, line in enumerate(lines[:3], start=1):
        assert re.search(
            rf"INFO \[{number}/3\] sub-{number}_T1w: corrected in 1\.5 s; "
            r"[\d.e+]+ images/s, \d\d:\d\d left$",
            line,
        )
    assert "00:00 left" in lines[2]
    assert lines[3].endswith("3 of 3 images corrected, 0 failed")


@pytest.mark.parametrize(
    ("n_done", "seconds", "expected"),
    [
        (1, 2.0, "2.0 s per image, 00:18 left"),
        (5, 1.0, "5 images/s, 00:01 left"),
        (2, 3600.0, "1800 s per image, 4:00:00 left"),
    ],
)
def test_pace(n_done, seconds, expected):
    assert progress._pace(n_done, 10, seconds) == expected


def test_a_terminal_has_a_bar_beneath_whole_lines(told):
    _, text = told([outcome(1), outcome(2)], Terminal())
    assert "2/2" in text and "image/s" in text
    lines = re.split("[\r\n]", text)
    for number in (1, 2):
        (line,) = [line for line in lines if f"[{number}/2]" in line]
        assert line.endswith(f"sub-{number}_T1w: corrected in 1.5 s")


def test_faults_notes_and_shares_are_told(told):
    status, text = told(
        [
            outcome(1, label="GPU 0", correction={"notes": ("odd mask",)}),
            outcome(2, label="GPU 1", error=ValueError("no\n good"), correction=None),
            outcome(3, label="GPU 0"),
        ],
        io.StringIO(),
    )
    assert status == Status.SOME_FAILED
    assert "WARNING [1/3] sub-1_T1w: odd mask" in text
    assert "ERROR [2/3] sub-2_T1w: failed: no good" in text
    assert "images of each device: GPU 0: 2, GPU 1: 1" in text
    assert "2 of 3 images corrected, 1 failed" in text


def test_messages_of_errors_take_one_line():
    assert progress.in_one_line(ValueError("a\n  b")) == "a b"
    assert progress.in_one_line(KeyError("a")) == "KeyError: 'a'"
    assert progress.in_one_line(ValueError()) == "ValueError"


def test_sums_name_what_was_not_done_here(told):
    outcomes = [outcome(1), outcome(2, state=State.FINISHED), outcome(3, state=State.LEFT)]
    status, text = told(outcomes, io.StringIO(), n_finished=4)
    assert status == Status.OK
    assert "4 of 7 images are finished already" in text
    assert "[2/3] sub-2_T1w: another run has finished it in the meantime" in text
    assert "[3/3] sub-3_T1w: left to another run, which is working on it" in text
    assert text.endswith(
        "1 of 7 images corrected, 0 failed, 4 finished before, "
        "1 finished by other runs in the meantime, "
        "1 left to other runs\n"
    )


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([{"error": RuntimeError("lost"), "try_again": True}], Status.TRY_AGAIN),
        ([{"error": FULL}, {"error": FULL}], Status.CANNOT_WRITE),
        ([{"error": RuntimeError("lost"), "try_again": True}, {"error": FULL}], 1),
        ([{"error": ValueError("odd")}, {"error": FULL}], Status.SOME_FAILED),
    ],
)
def test_status_of_faults(told, failures, status):
    outcomes = [outcome(0), *(outcome(n, **failure) for n, failure in enumerate(failures, 1))]
    assert told(outcomes, io.StringIO())[0] == status


def test_the_table_has_a_row_for_each_image(told, tmp_path):
    table = tmp_path / "logs" / "images.tsv"
    outcomes = [
        outcome(1, correction={"device": "gpu:0"}),
        outcome(2, error=ValueError("no\tgood\n at all"), seconds=0.25, correction=None),
    ]
    told(outcomes, io.StringIO(), table=table)
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows == [
        list(progress.COLUMNS),
        ["sub-1/anat/sub-1_T1w.nii.gz", "corrected", "1.50", "gpu:0", "n/a"],
        ["sub-2/anat/sub-2_T1w.nii.gz", "failed", "0.25", "n/a", "no good at all"],
    ]


def test_a_run_stops_on_the_first_failure_if_that_is_wanted(told):
    outcomes = [outcome(1), outcome(2, error=ValueError("odd")), outcome(3)]
    with pytest.raises(progress.StoppedEarly):
        told(outcomes, io.StringIO(), stop_on_failure=True)


@pytest.mark.parametrize(("number", "text"), [(1, "1 image"), (0, "0 images"), (2, "2 images")])
def test_counted(number, text):
    assert words.counted(number, "image") == text
