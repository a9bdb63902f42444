"""Every kind of file that a stream reads and writes, and what is kept of a header."""

from __future__ import annotations

import gzip

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.core.stack.correction import correct_planes
from n4ax_bids.options import StackOptions
from n4ax_bids.stacks.files import open_source
from n4ax_bids.stacks.steps import plan_stream
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB, close, raising, require_same_samples, write_as


@pytest.mark.parametrize("kind", (".nii", ".nii.gz", ".tif", "/", ".npy", "zarr", ".zarr"))
def test_every_kind_of_stack_gives_the_same(kind, known, whole, tmp_path):
    """S19."""
    given = write_as(kind, tmp_path, known.image)
    out = np.empty_like(known.image)
    require_same_samples(given, known.image, 9 * PLANE_GB)
    # The solve of the same samples is that of `whole`; memory maps are estimated once more.
    done = stream(
        given,
        out,
        options=OPTIONS,
        memory_gb=9 * PLANE_GB,
        correction=None if kind == ".npy" else whole.correction,
    )
    close(out, whole.corrected)
    for one, other in zip(done.correction.sections, whole.correction.sections, strict=True):
        close(one.log_field.lattice, other.log_field.lattice)


def test_png_planes_are_whole_numbers(known, tmp_path):
    image = pytest.importorskip("PIL.Image")
    counts = np.clip(known.image * 1000, 0, 65535).astype(np.uint16)
    for k, plane in enumerate(counts):
        image.fromarray(plane).save(tmp_path / f"{k:02d}.png")
    source = open_source(tmp_path)
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(source.read(3, 9), counts[3:9])


def test_a_large_stack_of_imagej_is_not_read_at_once(known, tmp_path, monkeypatch):
    """Its planes follow the page of the first one, and need not fit into memory."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "in.tif", known.image, imagej=True, truncate=True)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", raising(AssertionError))
    np.testing.assert_array_equal(open_source(tmp_path / "in.tif").read(3, 9), known.image[3:9])


def test_one_plane_is_a_stack(known, tmp_path):
    nb.Nifti1Image(known.image[14].T, np.eye(4)).to_filename(tmp_path / "in.nii")
    source = open_source(tmp_path / "in.nii")
    assert source.shape == (1, 56, 56)
    np.testing.assert_array_equal(source.read(0, 1)[0], known.image[14])


def test_damage_in_a_nifti_file_is_named(known, tmp_path):
    nb.Nifti1Image(known.image.T, np.eye(4)).to_filename(tmp_path / "in.nii")
    stored = bytearray((tmp_path / "in.nii").read_bytes())
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(stored)[:-8] + b"12345678")
    with pytest.raises(ValueError, match="in.nii.gz: damaged gzip data"):
        open_source(tmp_path / "in.nii.gz").read(20, 28)
    stored[108:112] = np.float32(np.nan).tobytes()
    (tmp_path / "in.nii").write_bytes(stored)
    with pytest.raises(ValueError, match="in.nii: the header says that voxels begin at byte nan"):
        open_source(tmp_path / "in.nii")


@pytest.mark.parametrize("name", ("o.nii", "o.nii.gz", "o.tif", "folder", "o.ome.zarr"))
def test_every_kind_of_output_holds_the_same(name, known, whole, tmp_path):
    for needed in ("tifffile", "zarr"):
        pytest.importorskip(needed)
    out, bias = tmp_path / name, tmp_path / f"bias_{name}"
    done = {"options": OPTIONS, "correction": whole.correction}
    stream(known.image, out, bias_out=bias, memory_gb=9 * PLANE_GB, **done)
    close(open_source(out).read(0, 28), whole.corrected)
    close(open_source(bias).read(0, 28), whole.bias)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, f"bias_{name}"])


def test_a_nifti_header_is_kept(known, whole, tmp_path):
    affine = np.array([[0, 0, -2, 5], [1.5, 0, 0, 6], [0, 1, 0, 7], [0, 0, 0, 1.0]])
    image = nb.Nifti1Image((known.image * 900).astype(np.int16).T, affine)
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "in.nii.gz")
    path, done = tmp_path / "in.nii.gz", whole.correction
    np.testing.assert_allclose(plan_stream(path, None, None, OPTIONS, 1).zooms, (2, 1, 1.5))
    options = StackOptions(**vars(OPTIONS) | {"zero_outside": False})
    stream(path, tmp_path / "out.nii", options=options, correction=done)
    made = nb.load(tmp_path / "out.nii")
    np.testing.assert_allclose(made.affine, affine)
    assert made.get_data_dtype() == np.float32
    given = nb.load(tmp_path / "in.nii.gz").get_fdata(dtype=np.float32).T
    expected = correct_planes(given, done, 0).image
    close(made.get_fdata(dtype=np.float32).T, expected)
