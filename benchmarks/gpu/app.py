"""A part of a GPU day: the App over a dataset, files in to files out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.day import ROOT, Day

MIB = 1 << 20
FAST = ("--no-reports",)
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "cold": (1, FAST),
    "warm": (1, FAST),
    "four runs at once": (4, FAST),
    "four images at a time": (1, (*FAST, "--nprocs", "4")),
    "no field": (1, (*FAST, "--no-bias-field")),
    "with reports": (1, ()),
}
"""How many runs share the images, and their flags. The first case compiles.

Threads of a process share Python's lock and one address space; runs beside one another do not. If
they are faster together than one run is, an App with several processes for a GPU would be too."""
REHEARSED = ("cold", "four runs at once", "with reports")


def app(day: Day) -> dict[str, Any]:
    """Run the App over a dataset in each of the cases."""
    try:
        import nibabel  # noqa: F401
        import nipype  # noqa: F401
    except ImportError as error:
        return {"left out": str(error)}
    n = 4 if day.quick else 64
    result: dict[str, Any] = {"images": n, "shape": day.sizes.shape}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset(day, root / "raw", n)
        for name, (n_runs, flags) in CASES.items():
            if day.quick and name not in REHEARSED:
                continue
            if not day.has_room(25):
                result[name] = "no time"
                continue
            result[name] = runs(root, n, n_runs, flags)
            day.save()
    return result


def dataset(day: Day, path: Path, n: int) -> None:
    """Write n images, int16, of which eight differ."""
    import nibabel as nb

    first: list[Path] = []
    for number in range(n):
        file = path / f"sub-{number:03}" / "anat" / f"sub-{number:03}_T1w.nii.gz"
        file.parent.mkdir(parents=True)
        if number >= 8:
            shutil.copy(first[number % 8], file)
            continue
        image, _ = inputs.head(day.sizes.shape, day.sizes.semi_axes, number)
        stored = np.rint(image).clip(0, 32767).astype(np.int16)
        nb.Nifti1Image(stored, np.eye(4)).to_filename(file)
        first.append(file)
    about = '{"Name": "throughput", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
    Path(path, "dataset_description.json").write_text(about)


def runs(root: Path, n: int, n_runs: int, flags: Sequence[str]) -> dict[str, Any]:
    """Let some runs share n images and write to one folder, and return what they took together."""
    before, start, clock = os.times(), time.perf_counter(), time.time()
    begun = [_begin(root, range(k, n, n_runs), flags) for k in range(n_runs)]
    failed = [k for k, process in enumerate(begun) if process.wait()]
    wall, after = time.perf_counter() - start, os.times()
    out = root / "out"
    files = [file.stat() for file in out.rglob("*") if file.is_file()]
    ends = sorted(file.stat().st_mtime - clock for file in out.rglob("*_desc-biascorr_T1w.nii.gz"))
    shutil.rmtree(out, ignore_errors=True)
    if failed:
        raise RuntimeError(_log(root, failed[0]).read_text()[-1500:])
    user, system = (after[k] - before[k] for k in (2, 3))
    return {
        "images a second": round(n / wall, 2),
        "wall, s": round(wall, 1),
        "CPU s an image": round((user + system) / n, 2),
        "system s an image": round(system / n, 2),
        "first image after, s": round(ends[0], 1),
        "images a second from the first to the last": round((n - 1) / (ends[-1] - ends[0]), 2),
        "corrected images": len(ends),
        "MiB written": round(sum(file.st_size for file in files) / MIB),
        "log": _log(root, 0).read_text()[-600:],
    }


def _begin(root: Path, numbers: range, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a run over the images of these numbers."""
    labels = [f"{number:03}" for number in numbers]
    words = [str(root / "raw"), str(root / "out"), "participant", "--mask", "otsu"]
    words += ["--skip-bids-validation", *flags, "--participant-label", *labels]
    with _log(root, numbers.start).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "n4ax_bids", *words],
            cwd=ROOT,
            env={**os.environ, "N4AX_CACHE_DIR": str(root / "programs")},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )


def _log(root: Path, number: int) -> Path:
    return root / f"log-{number}.txt"
