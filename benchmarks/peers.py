"""The peers, each run in a process of its own: SimpleITK's N4 and the ANTs program.

The thread count of ITK is read when it is loaded, and the ANTs program ends its process on a bad
input, so neither runs in the caller's process.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

ANTS_PROGRAM = (
    "import sys; from ants.internal import get_lib_fn; "
    "sys.exit(get_lib_fn('N4BiasFieldCorrection')(sys.argv[1:]))"
)


class Peer(NamedTuple):
    """What ITK's filter made of an image."""

    corrected: np.ndarray
    log_bias: np.ndarray
    n_iterations: tuple[int, ...]
    seconds: float


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}


def itk_n4(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    n_iterations: tuple[int, ...],
    threshold: float = 0.0,
    threads: int = 2,
    keep: Path | None = None,
    **settings,
) -> Peer:
    """Run SimpleITK's N4 on an array (axes in NIfTI order) with a number of threads.

    `settings` are names of the filter's setters without "Set", e.g. `SplineOrder=2`. In the folder
    `keep` results are kept, and taken from there the next time.
    """
    arrays = {
        "image": image.astype(np.float32),
        "mask": np.ones(image.shape, np.uint8) if mask is None else mask.astype(np.uint8),
    }
    words = [repr(list(n_iterations)), repr(threshold), repr(settings)]
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        if keep:
            key = hashlib.sha256(repr((words, threads, version("SimpleITK"))).encode())
            for array in arrays.values():
                key.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
            made = keep / f"{key.hexdigest()}.npz"
        if not made.exists():
            np.savez(given, **arrays)
            call = [sys.executable, __file__, str(given), str(made), *words]
            subprocess.run(call, check=True, env=_environment(threads))
        with np.load(made) as found:
            counts = tuple(int(n) for n in found["n_iterations"])
            return Peer(found["corrected"], found["log_bias"], counts, float(found["seconds"]))


def _itk_worker(given: str, made: str, n_iterations: str, threshold: str, settings: str) -> None:
    import ast

    import SimpleITK as sitk

    with np.load(given) as arrays:
        image, mask = (sitk.GetImageFromArray(np.ascontiguousarray(arrays[k].T)) for k in arrays)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ast.literal_eval(n_iterations))
    n4.SetConvergenceThreshold(float(threshold))
    for name, value in ast.literal_eval(settings).items():
        getattr(n4, f"Set{name}")(value)
    counts: dict[int, int] = {}
    n4.AddCommand(
        sitk.sitkIterationEvent,
        lambda: counts.__setitem__(n4.GetCurrentLevel(), n4.GetElapsedIterations()),
    )
    start = time.perf_counter()
    corrected = n4.Execute(image, mask)
    seconds = time.perf_counter() - start
    np.savez(
        made,
        corrected=sitk.GetArrayFromImage(corrected).T,
        log_bias=sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T,
        n_iterations=[counts[level] for level in sorted(counts)],
        seconds=seconds,
    )


def ants_n4(*words: str | Path, threads: int = 2) -> float:
    """Run the ANTs program with its own words and return its seconds, start of process included.

    Raises
    ------
    subprocess.CalledProcessError
        If it does not exit with 0; -11 is a segmentation fault, e.g. of a missing input.
    """
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", ANTS_PROGRAM, *map(str, words)],
        check=True,
        env=_environment(threads),
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    _itk_worker(*sys.argv[1:])
