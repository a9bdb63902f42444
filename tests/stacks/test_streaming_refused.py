"""Inputs and outputs that a stream refuses, and a disk that is full."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.stacks import streaming
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS


@pytest.mark.parametrize("name", ("out", "bias_out"))
@pytest.mark.parametrize(
    "wrong", (np.empty((28, 56, 55), np.float32), np.empty((28, 56, 56)), [1.0])
)
def test_wrong_buffers_are_refused(known, name, wrong):
    buffers = {"out": np.empty_like(known.image), "bias_out": None} | {name: wrong}
    with pytest.raises(ValueError, match=f"^{name} must be a float32 array"):
        stream(known.image, **buffers)


def test_buffers_that_overlap_are_refused(known):
    memory = np.zeros((30, 56, 56), np.float32)
    with pytest.raises(ValueError, match="out must be an array of its own; .* with vol"):
        stream(memory[:28], memory[1:29])
    with pytest.raises(ValueError, match="bias_out must be an array of its own; .* with out"):
        stream(known.image, memory[:28], bias_out=memory[:28])
    with pytest.raises(ValueError, match="bias_out must be an array of its own; .* with vol"):
        stream(memory[:28], np.empty_like(known.image), bias_out=memory[:28])


@pytest.mark.parametrize(
    ("out", "bias", "planes", "message"),
    [
        ("o.nii", None, (0, 7), "expected arrays as outputs"),
        (None, "b.nii", (0, 7), "expected arrays as outputs"),
        (None, None, (7, 29), r"planes is \(7, 29\); expected 0 to 28"),
        ("o.nii", "o.nii", None, "the name of the corrected stack"),
    ],
)
def test_outputs_that_would_be_wrong_are_refused(known, tmp_path, out, bias, planes, message):
    given = tmp_path / out if out else np.empty_like(known.image)
    with pytest.raises(ValueError, match=message):
        stream(known.image, given, bias_out=bias and tmp_path / bias, planes=planes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
@pytest.mark.parametrize("name", ("out.nii", "out.tif", "planes", "out.zarr"))
def test_a_full_disk_is_named_and_nothing_is_final(name, known, whole, tmp_path):
    """A limit for the size of a file fails as a full disk does: with an error of the system."""
    import resource

    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "tried").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, usual[1]))  # a plane has 12 kB
    try:
        with pytest.raises(OSError, match=rf"File too large.*{name}"):
            streaming.stream(
                known.image,
                tmp_path / "tried" / name,
                options=OPTIONS,
                correction=whole.correction,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not (tmp_path / "tried" / name).exists()


def test_an_output_inside_the_input_is_refused(known, tmp_path):
    import tifffile

    (tmp_path / "planes").mkdir()
    for k, plane in enumerate(known.image[:3]):
        tifffile.imwrite(tmp_path / "planes" / f"{k}.tif", plane)
    for name in ("new", "new.zarr"):
        with pytest.raises(ValueError, match="lies inside the input"):
            stream(tmp_path / "planes", tmp_path / "planes" / name, options=OPTIONS)
    with pytest.raises(ValueError, match="lies inside the input"):
        stream(tmp_path / "planes", tmp_path / "new", bias_out=tmp_path / "planes/new")


@pytest.mark.parametrize(
    ("vol", "message"),
    [
        ("nothing.nii", "nothing.nii: no such file"),
        (np.ones((3, 3)), r"vol has shape \(3, 3\)"),
        (7, "vol is 7; expected an array or a path"),
        (np.ones((3, 3, 3), complex), "vol has the type complex128; expected real numbers"),
        (np.ones((3, 3, 3), object), "vol has the type object; expected real numbers"),
        (np.ones((3, 3, 3), "U1"), "vol has the type <U1; expected real numbers"),
    ],
)
def test_what_is_no_stack_is_refused(vol, message, tmp_path):
    with pytest.raises((OSError, TypeError, ValueError), match=message):
        stream(vol, tmp_path / "out.nii")


def test_an_existing_output_is_not_overwritten(known, tmp_path):
    (tmp_path / "out.nii").write_text("mine")
    with pytest.raises(FileExistsError, match="out.nii: exists already"):
        stream(known.image, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_text() == "mine"


def test_an_input_is_closed_after_an_error(known, tmp_path):
    """The number of sections is compared with the planes when these have been read."""
    path = tmp_path / "in.nii"
    nb.Nifti1Image(known.image.T, np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match="sections is 9999") as error:
        stream(path, tmp_path / "out.nii", options=replace(OPTIONS, sections=9999))
    opened = Path("/proc/self/fd").iterdir()
    assert path not in [Path(os.readlink(each)) for each in opened if each.is_symlink()]
    assert error.traceback  # it holds what has read the file
