"""Runs that are killed or interrupted: what they leave, and how another run goes on from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from n4ax_bids.options import StackOptions
from n4ax_bids.stacks import streaming
from n4ax_bids.stacks.files import open_source, save_correction
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB, close, raising, write_as

KILLED = """
import os, signal, sys
import numpy as np
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB

def progress(step, n, of):
    if step == "correct" and n >= 9:
        os.kill(os.getpid(), signal.SIGKILL)

how = {"memory_gb": 3.01 * PLANE_GB, "progress": progress, "correction": sys.argv[3]}
stream(sys.argv[1], sys.argv[2], options=OPTIONS, **how)
"""


@pytest.mark.parametrize("name", ("out.nii", "folder", "out.ome.zarr"))
def test_a_killed_run_leaves_no_final_file_and_is_resumed(name, known, whole, tmp_path):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / name
    before = given.read_bytes()
    save_correction(tmp_path / "c.npz", whole.correction)
    call = [sys.executable, "-c", KILLED, str(given), str(out), str(tmp_path / "c.npz")]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(call, check=False, env={**os.environ, "PYTHONPATH": root}, cwd=root)
    assert done.returncode == -signal.SIGKILL
    assert given.read_bytes() == before and not out.exists()
    assert (tmp_path / f"{name}.partial").exists()
    seen = []
    stream(
        given,
        out,
        options=OPTIONS,
        resume=True,
        progress=lambda step, n, of: seen.append((step, n)),
    )
    assert [step for step, _ in seen] == ["correct"]  # neither read nor estimated again
    close(open_source(out).read(0, 28), whole.corrected)
    assert not list(tmp_path.glob("*partial*"))


def interrupt(whole, given, out, **more):
    """Stop a run when its first slab of three planes is written."""

    def stop(step, n, of):
        if step == "correct":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        how = {"memory_gb": 3.01 * PLANE_GB, "correction": whole.correction, **more}
        stream(given, out, options=OPTIONS, progress=stop, **how)


@pytest.mark.parametrize(
    "other", ({"options": StackOptions(**vars(OPTIONS) | {"strength": 0.5})}, {"mask": None})
)
def test_another_call_is_not_resumed(known, whole, tmp_path, other):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    with pytest.raises(ValueError, match="another input or other options"):
        stream(given, out, **{"options": OPTIONS, "resume": True} | other)


@pytest.mark.parametrize("text", ("{", "[1]", "{}", '{"call": 1, "planes": null}'))
def test_a_damaged_journal_is_named(known, tmp_path, text):
    for name in ("o.nii.partial", "o.nii.partial.npz"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "o.nii.partial.json").write_text(text)
    with pytest.raises(ValueError, match="o.nii.partial.json: is damaged; expected"):
        stream(known.image, tmp_path / "o.nii", resume=True)


def test_a_run_whose_output_is_gone_starts_anew(known, whole, tmp_path):
    """An output that begins in the middle would hold 0 in the planes before."""
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    (tmp_path / "out.nii.partial").unlink()
    seen = []
    stream(
        given,
        out,
        options=OPTIONS,
        resume=True,
        correction=whole.correction,
        memory_gb=3.01 * PLANE_GB,
        progress=lambda step, n, of: seen.append(n),
    )
    assert seen[0] == 3
    close(open_source(out).read(0, 28), whole.corrected)


@pytest.mark.parametrize("name", ("out.nii", "folder", "out.ome.zarr"))
def test_a_second_run_forgets_the_planes_of_the_first(name, known, whole, tmp_path, monkeypatch):
    """It writes anew; if it ends before its first slab, no plane is there to be resumed from."""
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / name
    interrupt(whole, given, out)
    how = {"options": OPTIONS, "correction": whole.correction}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(streaming, "correct_slabs", raising(KeyboardInterrupt))
        stream(given, out, **how)
    stream(given, out, resume=True, **how)
    close(open_source(out).read(0, 28), whole.corrected)


def test_a_resumed_run_keeps_its_correction(known, whole, tmp_path):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    other = whole.correction._replace(scales=2 * whole.correction.scales)
    stream(given, out, options=OPTIONS, resume=True, correction=other)
    close(open_source(out).read(0, 28), whole.corrected)


def test_a_run_in_place_says_that_it_cannot_be_resumed(known):
    with pytest.raises(ValueError, match="fills an array cannot be resumed"):
        stream(known.image, np.empty_like(known.image), resume=True)


@pytest.mark.parametrize("names", (("o.nii.gz", None), ("o.nii", "b.nii.gz"), ("o", "b.tif")))
def test_files_written_in_one_go_say_so_too(known, tmp_path, names):
    out, bias = (name and tmp_path / name for name in names)
    with pytest.raises(ValueError, match=r"(o.nii.gz|b.nii.gz|b.tif): a compressed file"):
        stream(known.image, out, bias_out=bias, resume=True)


def test_a_field_in_an_array_cannot_be_resumed_either(known, tmp_path):
    with pytest.raises(ValueError, match="fills an array cannot be resumed"):
        stream(known.image, tmp_path / "o.nii", bias_out=np.empty_like(known.image), resume=True)
