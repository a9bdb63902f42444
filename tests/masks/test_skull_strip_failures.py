"""Brain masks by other programs that are missing, fail, hang or give no mask for a solve."""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from n4ax_bids import correct
from n4ax_bids.io import volume
from n4ax_bids.masks import skull_strip
from n4ax_bids.masks.skull_strip import Means
from n4ax_bids.runtime import programs
from tests.masks.stand_ins import SHORT, calls, made


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        (
            "synthstrip",
            ("SynthStrip is not installed: mri_synthstrip or ", "synthstrip-docker", "FreeSurfer"),
        ),
        ("hd-bet", ("HD-BET is not installed: hd-bet was looked for", "pip install hd-bet")),
    ],
)
def test_one_that_is_not_installed(bin, tmp_path, word, parts):
    path = made(tmp_path / "T1w.nii.gz")
    with pytest.raises(FileNotFoundError) as raised:
        correct(path, tmp_path / "out.nii.gz", auto_mask=word, device="cpu")
    text = str(raised.value)
    assert "\n" not in text and all(part in text for part in parts)
    assert not (tmp_path / "out.nii.gz").exists()


FAILURES = {
    "fails": "mri_synthstrip failed with exit status 3: RuntimeError: no weights",
    "is killed": "mri_synthstrip failed with signal 9; out of memory?: Configuring model",
    "writes nothing": "mri_synthstrip succeeded but wrote no mask",
    "writes rubbish": "mri_synthstrip wrote a mask that does not fit: ",
    "takes another grid": "mri_synthstrip wrote a mask that does not fit: shape (21, 24, 20); "
    "expected (22, 24, 20)",
    "moves the mask": "mri_synthstrip wrote a mask that does not fit: lies elsewhere than ",
    "finds nothing": "mri_synthstrip found no brain: every voxel of its mask is 0",
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_failure_is_one_line_with_a_note_of_what_was_printed(bin, tmp_path, behaviour, install):
    install(bin, behaviour=behaviour)
    path, work = made(tmp_path / "T1w.nii.gz"), tmp_path / "work"
    work.mkdir()
    with pytest.raises(ChildProcessError) as raised:
        correct(path, work / "out.nii.gz", auto_mask="synthstrip", options=SHORT, device="cpu")
    text = str(raised.value)
    assert text.startswith(f"{path}: {FAILURES[behaviour]}") and "\n" not in text
    assert list(work.iterdir()) == []
    whole = "".join(traceback.format_exception(raised.value))
    assert f"{bin / 'mri_synthstrip'} (mri_synthstrip (version not known)) printed, last:" in whole
    assert "\n| Configuring model" in whole
    assert ("\n| RuntimeError: no weights" in whole) == (behaviour == "fails")


def test_an_image_of_two_axes(bin, tmp_path, install):
    install(bin)
    path = made(tmp_path / "slice.nii.gz", shape=(30, 30, 1))
    with pytest.raises(ValueError, match=r"shape \(30, 30\); SynthStrip expects three axes"):
        correct(path, tmp_path / "out.nii.gz", auto_mask="synthstrip", device="cpu")


def test_a_hanging_program_ends_with_the_run(
    bin, image, monkeypatch, tmp_path, install, gone, wait_for
):
    monkeypatch.setattr(programs, "KEEPER", programs.KEEPER.replace("wait(5.0)", "wait(0.3)"))
    log = install(bin, behaviour="hangs")
    child = Path(f"{log}.child")
    with pytest.raises(KeyboardInterrupt):
        skull_strip.brain(image, "synthstrip", Means(folder=tmp_path, stopped=child.is_file))
    assert all(map(gone, wait_for(child)))
    assert not list(tmp_path.glob("skull_strip-*"))


def test_one_program_at_a_time_and_who_waits_can_be_ended(bin, image, install, wait_for):
    log = install(bin, behaviour="hangs")
    child, stop, ended = Path(f"{log}.child"), threading.Event(), []

    def work():
        try:
            skull_strip.brain(image, "synthstrip", Means(stopped=stop.is_set))
        except KeyboardInterrupt:
            ended.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(child)
        time.sleep(0.5)
        assert len(calls(log)) == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert len(ended) == 3 and len(calls(log)) == 1 and not skull_strip._turn.locked()


def test_a_mask_that_cannot_carry_a_solve_is_told(bin, tmp_path, install):
    """It is checked as every mask that nobody has looked at."""
    path = made(tmp_path / "T1w.nii.gz")
    given = {"auto_mask": "synthstrip", "options": SHORT, "device": "cpu"}
    values = np.sort(volume.load(path).data.ravel())
    install(bin, level=float(values[-30]))
    n = np.count_nonzero(values > values[-30])
    with pytest.raises(ValueError) as raised:
        correct(path, tmp_path / "out.nii.gz", **given)
    assert str(raised.value) == (
        f"{path}: SynthStrip's mask holds {n} of 10560 samples, fewer than the 64 control points "
        "of the first level; expected another mask or a smaller shrink factor"
    )
