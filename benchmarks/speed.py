"""How long N4 takes, beside SimpleITK and the ANTs program.

`python -m benchmarks.speed` prints two tables: the solve on arrays, and one file from the
start of a process to the result on disk. The image is the phantom of the MNI152 template, 1 mm.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

import nibabel as nb
import numpy as np

from benchmarks.peers import ants_n4, itk_n4
from n4ax_bids import device
from n4ax_bids.core.n4 import estimate
from n4ax_bids.core.plan import plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import PRESETS
from n4ax_bids.phantoms import mni152, mni152_affine

T = TypeVar("T")

THREADS = len(os.sched_getaffinity(0))
REPEATS = 3
ONE_FILE = "import sys; from n4ax_bids.correct import correct; correct(*sys.argv[1:3])"


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "antspyx", "jax"))
    print(f"{processor()}, {THREADS} threads for each program; here: ", end="")
    print(f"{device.describe(device.resolve())}; {versions}")
    image = mni152("T1w", field="coils", amplitude=0.5).image
    print(f"image {image.shape}\n")
    on_arrays(image)
    on_a_file(image)


def on_arrays(image: np.ndarray) -> None:
    """Time the estimate of the field alone, mask given; ITK is given the shrunk arrays."""
    mask, seconds = timed(lambda: otsu_mask(image))
    print(f"Otsu's mask, {mask.sum()} voxels inside: {seconds:.3f} s\n")
    print("| preset | shrink | first call, s | next calls, s | SimpleITK, s |")
    print("|" + " --- |" * 5, flush=True)
    for name in ("ants", "simpleitk"):
        options = replace(PRESETS[name], shrink_factor=4)
        solve = plan(options, image.shape)
        call = partial(estimate, image, mask, plan=solve)
        cold, *warm = (timed(call)[1] for _ in range(1 + REPEATS))
        peer = itk_n4(
            solve.sample(image, solve.image_start),
            solve.sample(mask, solve.mask_start),
            n_iterations=options.n_iterations,
            threshold=options.convergence_threshold,
            threads=THREADS,
        )
        print(f"| {name} | 4 | {cold:.2f} | {median(warm):.3f} | {peer.seconds:.1f} |", flush=True)


def on_a_file(image: np.ndarray) -> None:
    """Time a new process from its start to the result on disk, without a mask as ANTs' default."""
    with tempfile.TemporaryDirectory() as folder:
        given, ours, theirs = (str(Path(folder, f"{n}.nii.gz")) for n in ("in", "ours", "ants"))
        nb.Nifti1Image(image, mni152_affine()).to_filename(given)
        words = [sys.executable, "-c", ONE_FILE, given, ours]
        seconds = [timed(partial(subprocess.run, words, check=True))[1] for _ in range(REPEATS)]
        peer = ants_n4("-d", "3", "-i", given, "-o", theirs, threads=THREADS)
    print("\n| one file, new process | n4ax_bids, s | ANTs program, s |\n|" + " --- |" * 3)
    print(f"| defaults, no mask | {median(seconds):.1f} | {peer:.1f} |")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    made = call()
    return made, time.perf_counter() - start


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
