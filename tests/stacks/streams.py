"""What tests of streams share: the budget of a plane, stacks as files, the memory taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.core.stack.call import thinned_stack as thinned_at_once
from n4ax_bids.stacks.steps import plan_stream, thinned_stack
from tests.core.stack.stacks import OPTIONS

PLANE_GB = 56 * 56 * (4 + 44) / 0.6e9  # the budget of one plane


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-7)


def require_same_samples(given, image, memory_gb):
    """What is read slab by slab is what the estimate gets of the whole array, to the bit."""
    thin, _, _ = thinned_stack(plan_stream(given, "tissue", None, OPTIONS, memory_gb), nothing)
    expected = thinned_at_once(image, None, (1.0, 1.0, 1.0), OPTIONS)
    np.testing.assert_array_equal(thin, expected.thin)


def nothing(step, done, of):
    """Progress that nobody looks at."""


def write_as(kind: str, folder: Path, image: np.ndarray) -> object:
    """Write a stack; return what `stream` takes."""
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    path = folder / f"in{kind}"
    if kind in (".nii", ".nii.gz"):
        nb.Nifti1Image(image.T, np.eye(4)).to_filename(path)
    elif kind == ".tif":
        tifffile.imwrite(path, image)
    elif kind == "/":
        path = folder / "in"
        path.mkdir()
        for k, plane in enumerate(image):  # planes 2 and 10 are in the order of their numbers
            tifffile.imwrite(path / f"plane{k}.tif", plane)
    elif kind == ".npy":
        np.save(path, image)
        return np.load(path, mmap_mode="r")
    elif kind == "zarr":
        return zarr.array(image, chunks=(4, 32, 32))
    else:
        zarr.save_array(path, image)
    return path


def raising(error):
    def function(*_):
        raise error

    return function


MEMORY = """
import json, sys
import numpy as np
from n4ax_bids.options import StackOptions
from n4ax_bids.stacks.streaming import stream

def status(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name)) * 1024

given, made, budget = sys.argv[1], sys.argv[2], float(sys.argv[3])
small = np.random.default_rng(0).uniform(1, 2, (16, 64, 64)).astype(np.float32)
# Compiling takes about 100 MB whatever the volume, much of so small a budget: hence shrink 8.
options = StackOptions(
    shrink_factor=8, n_iterations=(8, 8), section_spline_mm=1000, global_spline_mm=1000
)
stream(small, small, options=options)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
if given.endswith(".npy"):
    vol = np.load(given, mmap_mode="r")
    out = np.lib.format.open_memmap(made, "w+", np.float32, vol.shape)
else:
    vol, out = given, made
done = stream(vol, out, options=options, memory_gb=budget / 1e9)
print(json.dumps({"rise": status("VmHWM") - before, **done.seconds}))
"""


def rise_of(given: Path, made: Path, budget: float) -> dict[str, float]:
    """Return how far a stream's peak of resident memory lies above that of a small stream."""
    call = [sys.executable, "-c", MEMORY, str(given), str(made), str(budget)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        call, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
