"""Streams equal the answer in memory: slabs, masks, buffers, shared work, dask arrays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.core.stack.call import thinned_stack as thinned_at_once
from n4ax_bids.core.stack.correction import correct_planes
from n4ax_bids.stacks.files import load_correction, save_correction
from n4ax_bids.stacks.steps import plan_stream, thinned_stack
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB, close, nothing, require_same_samples

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("planes", (1, 7, 1000))
def test_the_height_of_slabs_changes_nothing(known, whole, planes):
    out, bias = np.empty_like(known.image), np.empty_like(known.image)
    heights, memory_gb = [], planes * 1.001 * PLANE_GB
    require_same_samples(known.image, known.image, memory_gb)
    done = stream(
        known.image,
        out,
        bias_out=bias,
        options=OPTIONS,
        memory_gb=memory_gb,
        correction=None if planes == 7 else whole.correction,
        progress=lambda step, n, of: heights.append(n) if step == "correct" else None,
    )
    assert heights[0] == min(planes, 28)
    assert done.corrected is out and done.bias is bias
    close(out, whole.corrected)
    close(bias, whole.bias)


def test_in_place_equals_the_separate_call(known, whole):
    image = known.image.copy()
    done = stream(image, image, options=OPTIONS, memory_gb=5 * PLANE_GB)
    assert done.corrected is image
    close(image, whole.corrected, 1e-5)


def test_a_mask_file_is_read_by_slabs(known, whole, tmp_path):
    nb.Nifti1Image(known.mask.astype(np.uint8).T, np.eye(4)).to_filename(tmp_path / "mask.nii")
    out, mask, small = np.empty_like(known.image), tmp_path / "mask.nii", 3 * PLANE_GB
    plan = plan_stream(known.image, mask, None, OPTIONS, small)
    thin, _, inside = thinned_stack(plan, nothing)
    expected = thinned_at_once(known.image, known.mask, (1.0, 1.0, 1.0), OPTIONS)
    np.testing.assert_array_equal(inside, expected.mask)
    np.testing.assert_array_equal(thin, expected.thin)
    done = {"options": OPTIONS, "correction": whole.correction}
    stream(known.image, out, mask=mask, memory_gb=small, **done)
    everywhere = correct_planes(known.image, whole.correction, 0).image
    close(out, np.where(known.mask, everywhere, 0))


def test_a_correction_is_saved_and_shared_out(known, whole, tmp_path):
    """Two workers fill one array, each some of its planes."""
    save_correction(tmp_path / "c.npz", whole.correction)
    loaded = load_correction(tmp_path / "c.npz")
    assert [(each.start, each.stop) for each in loaded.sections] == [(0, 14), (14, 28)]
    out = np.zeros_like(known.image)
    for planes in ((0, 11), (11, 28)):
        stream(known.image, out, options=OPTIONS, correction=tmp_path / "c.npz", planes=planes)
    close(out, whole.corrected)


def test_workers_in_processes_of_their_own_fill_one_array(known, whole, tmp_path):
    """The worker of docs/serial-sections.md, twice at the same time, on ranges of chunks."""
    zarr = pytest.importorskip("zarr")
    page = (ROOT / "docs" / "serial-sections.md").read_text(encoding="utf-8")
    (worker,) = re.findall(r"`worker.py`:\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (words,) = re.findall(r"^(python worker.py .*) & wait$", page, re.MULTILINE)
    (tmp_path / "worker.py").write_text(worker)
    zarr.save_array(tmp_path / "stack.zarr", known.image)
    shape = known.image.shape
    zarr.create_array(tmp_path / "out.zarr", shape=shape, dtype="float32", chunks=(8, 56, 56))
    save_correction(tmp_path / "correction.npz", whole.correction)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen([sys.executable, *each.split()[1:]], cwd=tmp_path, env=env)
        for each in words.split(" & ")
    ]
    assert [each.wait(timeout=300) for each in workers] == [0, 0]
    close(zarr.open(tmp_path / "out.zarr", mode="r")[:], whole.corrected)


def test_a_dask_array_gives_dask_arrays(known, whole):
    dask = pytest.importorskip("dask.array")
    lazy = dask.from_array(known.image, chunks=(14, 31, 56))
    require_same_samples(lazy, known.image, 9 * PLANE_GB)
    done = stream(lazy, options=OPTIONS, correction=whole.correction)
    assert done.corrected.chunks == lazy.chunks and done.corrected.dtype == np.float32
    close(done.corrected.compute(scheduler="threads", num_workers=2), whole.corrected)
    close(done.bias[3:5, :7].compute(), whole.bias[3:5, :7])
