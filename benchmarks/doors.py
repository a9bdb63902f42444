"""Scripts for SimpleITK and ANTsPy with one import changed: numbers and CPU seconds, in pairs.

With ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1, `taskset -c 0 python -m benchmarks.doors` takes about
a quarter of an hour. Each volume is corrected as FastSurfer calls SimpleITK, and as most scripts
call ANTsPy.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import ants
import numpy as np
import SimpleITK as sitk

from benchmarks.images import DATA
from benchmarks.parity_cases import (
    BOUNDS,
    Difference,
    difference,
    largest,
    within_full_run_bounds,
)
from n4ax_bids import antspy, simpleitk

VOLUMES = (
    "head-philips3t_T1w.nii.gz",
    "head-niivue_T2w.nii.gz",
    "brain-niivue_FLAIR.nii.gz",
    "kidney-ge3t_GRE.nii.gz",
)


def by_simpleitk(package: ModuleType, path: Path) -> np.ndarray:
    """Return ln b: a mask of Otsu's, shrink 4, four levels of 50 iterations, threshold 0."""
    image = package.ReadImage(str(path), package.sitkFloat32)
    mask = package.OtsuThreshold(image, 0, 1, 200)
    factors = [4] * image.GetDimension()
    n4 = package.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50] * 4)
    n4.SetConvergenceThreshold(0.0)
    n4.Execute(package.Shrink(image, factors), package.Shrink(mask, factors))
    log_bias = n4.GetLogBiasFieldAsImage(image)
    return package.GetArrayFromImage(log_bias)[package.GetArrayFromImage(mask) > 0]


def by_antspy(package: ModuleType, path: Path) -> np.ndarray:
    """Return ln b of a call with ANTsPy's defaults."""
    image = package.image_read(str(path))
    return np.log(package.n4_bias_field_correction(image, return_bias_field=True).numpy())


DOORS: dict[str, tuple[Callable[[ModuleType, Path], np.ndarray], ModuleType, ModuleType]] = {
    "SimpleITK": (by_simpleitk, sitk, simpleitk),
    "ANTsPy": (by_antspy, ants, antspy),
}


def rows(volumes: tuple[str, ...] = VOLUMES) -> Iterator[str]:
    """Yield a line of the table for each package and volume."""
    for name, (correct, theirs, ours) in DOORS.items():
        for volume in volumes:
            seconds, fields = [], []
            for package in (theirs, ours, ours):
                start = time.process_time()
                fields.append(correct(package, DATA / volume))
                seconds.append(time.process_time() - start)
            found = difference(fields[2], fields[0])
            itself = _of_themselves(name, volume, found, fields[0])
            within = within_full_run_bounds(found, itself)
            figures = [" / ".join(f"{value:.1e}" for value in each) for each in (found, itself)]
            yield (
                f"| {name} | {volume} | {' | '.join(figures)} | {'yes' if within else '**no**'} | "
                f"{seconds[0]:.1f} | {seconds[1]:.2f} | {seconds[2]:.2f} | "
                f"{seconds[0] / seconds[2]:.0f} |"
            )


def _of_themselves(name: str, volume: str, found: Difference, field: np.ndarray) -> Difference:
    """Return how much the original differs from itself with more threads, where that matters."""
    itself = Difference(0, 0, 0)
    for threads in (2, 4, 8):
        if within_full_run_bounds(found, itself):
            break
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "field.npy")
            code = "import sys; from benchmarks import doors; doors.save(*sys.argv[1:])"
            subprocess.run(
                [sys.executable, "-c", code, name, volume, str(out)],
                check=True,
                env=os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)},
            )
            itself = largest([itself, difference(np.load(out), field)])
    return itself


def save(name: str, volume: str, out: str) -> None:
    """Write the field of the original to a file."""
    correct, theirs, _ = DOORS[name]
    np.save(out, correct(theirs, DATA / volume))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="PAGE")
    page = parser.parse_args().out
    versions = ", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "antspyx", "jax"))
    bounds = " / ".join(f"{value:.0e}" for value in BOUNDS)
    lines = [
        "# Scripts for SimpleITK and ANTsPy",
        "",
        f"Written by `python -m benchmarks.doors`; {versions}; one core.",
        "",
        *textwrap.wrap(
            "Each volume is corrected by the same function with SimpleITK and with "
            "`n4ax_bids.simpleitk` (Otsu's mask, shrink 4, four levels of 50 iterations, "
            "threshold 0), and with ANTsPy and with `n4ax_bids.antspy` (the defaults, without a "
            "mask). Figures are |ours/theirs - 1| of corrected intensities, in the mask or "
            "everywhere: mean / 99th percentile / max. *Itself* is the same for the original on "
            "one thread and on 2, 4 or 8, measured where our difference is beyond the bounds of a "
            f"full run ({bounds}); three times that is within them, too. CPU seconds of "
            "one process, with reading the file: theirs, ours in the first call, which may "
            "compile, and ours again; the ratio is that of theirs to ours again.",
            95,
        ),
        "",
        "| package | volume | difference | itself | within | theirs, s | ours first, s | ours, s "
        "| ratio |",
        "|" + " --- |" * 9,
    ]
    print("\n".join(lines), flush=True)
    for row in rows():
        print(row, flush=True)
        lines.append(row)
    if page:
        page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
