"""A few blocks of the files distinguish two scans of equal size and time."""

from __future__ import annotations

import os

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.outputs import fingerprint
from n4ax_bids.app.outputs.fingerprint import BLOCK, N_BLOCKS


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, N_BLOCKS * BLOCK])
def test_a_small_file_is_read_whole(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    before = fingerprint.fingerprint(path)
    for place in {0, size // 3, size // 2, size - 1} if size else ():
        data = bytearray(size)
        data[place] = 1
        path.write_bytes(data)
        assert fingerprint.fingerprint(path) != before, place


def test_a_large_file_is_read_at_its_ends_and_between(tmp_path, monkeypatch):
    path, size = tmp_path / "file", 10_000_000
    path.write_bytes(bytes(size))
    n_read = 0
    pread = os.pread

    def counted(*args):
        nonlocal n_read
        found = pread(*args)
        n_read += len(found)
        return found

    monkeypatch.setattr(os, "pread", counted)
    before = fingerprint.fingerprint(path)
    assert n_read == N_BLOCKS * BLOCK
    for start in (0, size - 1, size * 7 // 15, size // 3):
        data = bytearray(size)
        data[start : start + BLOCK] = b"x" * len(data[start : start + BLOCK])
        path.write_bytes(data)
        assert fingerprint.fingerprint(path) != before, start


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_two_people_on_one_grid_with_an_empty_background(tmp_path, rng, ending):
    """Skull-stripped and normalised: header, first and last slices are the same."""
    found = []
    for number in range(2):
        head = np.zeros((91, 109, 91), np.int16)
        head[20:70, 20:90, 20:70] = rng.integers(100, 200, (50, 70, 50))
        path = tmp_path / f"{number}{ending}"
        nb.Nifti1Image(head, np.eye(4)).to_filename(path)
        found.append(fingerprint.fingerprint(path))
    assert found[0] != found[1]


def test_a_change_of_one_voxel_is_seen_in_a_compressed_file(tmp_path, rng):
    """The checksum at the end of gzip's data is over the whole content."""
    head = rng.integers(0, 1000, (64, 64, 64)).astype(np.int16)
    path, found = tmp_path / "a.nii.gz", []
    for _ in range(2):
        nb.Nifti1Image(head, np.eye(4)).to_filename(path)
        found.append(fingerprint.fingerprint(path))
        head[40, 40, 40] += 1
    assert path.stat().st_size > N_BLOCKS * BLOCK
    assert found[0] != found[1]


def test_a_named_pipe_does_not_stop_the_run(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe: not readable as an input: it is a named pipe"):
        fingerprint.fingerprint(tmp_path / "pipe")
