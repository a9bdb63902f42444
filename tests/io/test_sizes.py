"""Files that claim more than they hold, or hold more than anybody asked for."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.io import volume

MB = 2**20


def header_bytes(shape, *, offset=352, extended=False):
    header = nb.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float32)
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    return header.binaryblock + bytes([extended, 0, 0, 0])


def zipped_zeros(path, start, n_bytes, end=b""):
    """Write bytes and then so many zeros, compressed to a thousandth."""
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(start)
        for _ in range(n_bytes // MB):
            stream.write(bytes(MB))
        stream.write(bytes(n_bytes % MB) + end)


def refused(path, read, match):
    """Require an error that is told without much memory having been taken for it."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert peak < 100 * MB


def test_an_uncompressed_file_has_room_for_its_voxels(tmp_path):
    path = tmp_path / "x.nii"
    path.write_bytes(header_bytes((400, 400, 400)))
    os.truncate(path, 200 * MB)  # a sparse file, which takes no place on the disk
    there = 200 * MB - 352
    refused(path, volume.load, rf"x\.nii: truncated, {there} of 256000000 bytes")


@pytest.mark.parametrize("read", [volume.load, volume.load_header])
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_voxels_far_behind_the_header(tmp_path, read, extended, name):
    path, offset = tmp_path / name, 300 * MB
    start = header_bytes((4, 4, 4), offset=offset, extended=extended)
    start += struct.pack("<ii", offset - 352, 6) if extended else b""
    if name.endswith(".gz"):
        zipped_zeros(path, start, offset)
    else:
        path.write_bytes(start)
        os.truncate(path, offset + 256)
    refused(path, read, rf"voxels begin at byte {offset}.*at most {64 * MB} bytes")


def test_a_large_extension_is_still_read(tmp_path):
    path, size = tmp_path / "x.nii.gz", 10 * MB
    start = header_bytes((4, 4, 4), offset=352 + size, extended=True)
    zipped_zeros(path, start + struct.pack("<ii", size, 6), size - 8 + 256)
    (extension,) = volume.load(path).header.extensions
    assert len(extension.get_content()) == size - 8


@pytest.mark.parametrize("read", [volume.load, volume.load_header])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_chain_of_a_million_extensions(tmp_path, read, name):
    """Their bytes are within the limit, but reading them one by one took minutes."""
    one, n = struct.pack("<ii8x", 16, 6), 1_000_000
    content = header_bytes((4, 4, 4), offset=352 + 16 * n, extended=True) + one * n + bytes(256)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    refused(path, read, r"more than 1000 header extensions")


def test_a_thousand_extensions_are_still_read(tmp_path):
    one, n = struct.pack("<ii8x", 16, 6), 1000
    content = header_bytes((4, 4, 4), offset=352 + 16 * n, extended=True) + one * n + bytes(256)
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    assert len(volume.load(path).header.extensions) == n


def test_a_bomb_behind_the_voxels(tmp_path):
    path = tmp_path / "x.nii.gz"
    zipped_zeros(path, header_bytes((4, 4, 4)), 256 + 70 * MB)
    refused(path, volume.load, r"more than 67108864 bytes follow the voxels")


def test_a_sparse_file_with_far_more_than_its_voxels(tmp_path):
    path = tmp_path / "x.nii"
    path.write_bytes(header_bytes((4, 4, 4)))
    os.truncate(path, 2**40)  # its digest alone would take an hour
    refused(path, volume.load, r"more than 67108864 bytes follow the voxels")


def test_a_little_behind_the_voxels_does_no_harm(tmp_path):
    path = tmp_path / "x.nii.gz"
    zipped_zeros(path, header_bytes((4, 4, 4)), 256 + MB)
    assert volume.load(path).data.shape == (4, 4, 4)
