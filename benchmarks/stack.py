"""Stacks of sections: our error of the field and our time beside ITK's, with linumpy's figures.

Ellipsoids as in linumpy's documentation: inside 1.0, outside 0.3, noise 0.02, mask radius 1.2,
amplitude of the field 0.5, iterations 25, 25, 25, spline 20 mm. SimpleITK gets the axes in their
right order and the same lattice. Times are CPU seconds of all cores together, which other work on
the machine changes less than the time of the wall: from array to array (shrinking, solve, field,
division), and of the solve alone. `--rows` chooses rows; ITK takes minutes on each of the later
ones. The last row needs 8 GB of memory. `--no-itk` leaves SimpleITK out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from n4ax_bids.core.stack.call import correct_stack, thinned_stack
from n4ax_bids.core.stack.estimate import estimate_stack
from n4ax_bids.core.stack.samples import section_plan
from n4ax_bids.core.tissue_mask import compute_tissue_mask
from n4ax_bids.options import StackOptions


class Row(NamedTuple):
    shape: tuple[int, int, int]
    shrink: int
    cpu: float
    """linumpy's published seconds on a CPU, with SimpleITK"""
    gpu: float
    """the same on an NVIDIA GPU of 47 GB"""
    cv_cpu: float
    cv_gpu: float


ROWS = (
    Row((64, 128, 128), 2, 0.64, 0.18, 0.004, 0.034),
    Row((128, 256, 256), 2, 1.95, 0.23, 0.011, 0.007),
    Row((128, 512, 512), 2, 5.66, 0.64, 0.015, 0.008),
    Row((256, 512, 512), 2, 21.83, 1.37, 0.045, 0.023),
    Row((128, 1024, 1024), 4, 9.54, 0.83, 0.015, 0.010),
    Row((128, 1536, 1536), 4, 24.00, 2.42, 0.017, 0.010),
)
ITERATIONS = (25, 25, 25)


def phantom(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image, field and mask, made plane by plane because the last row is large."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    y, x = axes[1][:, None], axes[2]

    def ramp(z: np.float32) -> np.ndarray:
        return 0.6 * x - 0.4 * y + 0.5 * z + 0.4 * x * y - 0.3 * z**2

    most = max(float(np.abs(ramp(z)).max()) for z in axes[0])
    rng = np.random.default_rng(0)
    image, field = (np.empty(shape, np.float32) for _ in range(2))
    mask = np.empty(shape, bool)
    for k, z in enumerate(axes[0]):
        distance = 2.25 * (z**2 + y**2 + x**2)
        field[k] = np.exp(0.5 * ramp(z) / np.float32(most))
        image[k] = rng.normal(0, 0.02, distance.shape)
        image[k] += np.where(distance <= 1, np.float32(1), np.float32(0.3))
        image[k] *= field[k]
        mask[k] = distance <= 1.44
    return image, field, mask


def error(bias: np.ndarray, field: np.ndarray, mask: np.ndarray) -> float:
    """Return the coefficient of variation of estimated/true field in the mask."""
    ratio = bias[mask] / field[mask]
    return float(ratio.std(dtype=np.float64) / ratio.mean(dtype=np.float64))


class Found(NamedTuple):
    """What one program needs for one volume, and how well it does."""

    cv: float
    whole: float
    """CPU seconds from array to array"""
    solve: float
    """CPU seconds of the solve on the shrunk volume"""


def itk(
    image: np.ndarray, field: np.ndarray, mask: np.ndarray, shrink: int, points: Sequence[int]
) -> Found:
    """Correct by SimpleITK."""
    start = time.process_time()
    whole, inside = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask.astype(np.uint8))
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetConvergenceThreshold(0.001)
    n4.SetNumberOfControlPoints(list(points))
    small = sitk.Shrink(whole, [shrink] * 3), sitk.Shrink(inside, [shrink] * 3)
    del inside
    before = time.process_time()
    n4.Execute(*small)
    solve = time.process_time() - before
    log_bias = n4.GetLogBiasFieldAsImage(whole)
    del whole
    bias = np.exp(sitk.GetArrayViewFromImage(log_bias))
    del log_bias
    np.divide(image, bias)  # the division belongs to the time
    seconds = time.process_time() - start
    return Found(error(bias, field, mask), seconds, solve)


def ours(image: np.ndarray, field: np.ndarray, mask: np.ndarray, options: StackOptions) -> Found:
    """Correct by this package, after a first time for the compiler."""
    for _ in range(2):
        start = time.process_time()
        bias = correct_stack(image, mask, options=options).bias
        seconds = time.process_time() - start
        cv = error(bias, field, mask)
        del bias
    stack = thinned_stack(image, mask, (1, 1, 1), options)
    start = time.process_time()
    estimate_stack(stack, options)
    return Found(cv, seconds, time.process_time() - start)


def measured(row: Row, with_itk: bool) -> tuple[str, str]:
    """Return a row of each table: errors and seconds."""
    image, field, mask = phantom(row.shape)
    found = []
    for sampling in ("mean", "itk"):
        options = StackOptions(
            mode="global",
            match="none",
            global_spline_mm=20,
            shrink_factor=row.shrink,
            n_iterations=ITERATIONS,
            sampling=sampling,
            zero_outside=False,
        )
        found.append(ours(image, field, mask, options))
    points = section_plan(options, row.shape, (1, 1, 1), 20).n_control_points
    if with_itk:
        found.append(itk(image, field, mask, row.shrink, points))
    for _ in range(2):  # the first time is the compiler's
        start = time.process_time()
        compute_tissue_mask(image)
        masking = time.process_time() - start
    name = ["×".join(map(str, row.shape)), str(row.shrink)]
    errors = [f"{each.cv:.4f}" for each in found] + ["–"] * (not with_itk)
    errors.append(f"{row.cv_cpu:.3f} / {row.cv_gpu:.3f}")
    seconds = [f"{value:.2f}" for each in found for value in (each.whole, each.solve)]
    seconds += ["–"] * (2 * (not with_itk))
    seconds += [f"{masking:.2f}", f"{row.cpu:.2f} / {row.gpu:.2f}", f"{6 * row.gpu:.2f}"]
    return _line(name + errors), _line(name + seconds)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


HEADS = (
    ("volume", "shrink", "means", "ITK's samples", "SimpleITK", "linumpy CPU / GPU"),
    (
        *("volume", "shrink", "means", "solve", "ITK's samples", "solve", "SimpleITK", "solve"),
        *("tissue mask", "linumpy CPU / GPU", "GPU × 6"),
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print both tables, or write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = range(1, len(ROWS) + 1)
    parser.add_argument("--rows", nargs="+", type=int, choices=every, default=every)
    parser.add_argument("--itk", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    lines = []
    for number in given.rows:
        lines.append(measured(ROWS[number - 1], given.itk))
        print(*lines[-1], sep="\n", flush=True)
    tables = []
    for head, rows in zip(HEADS, zip(*lines, strict=True), strict=True):
        tables.append("\n".join([_line(head), _line(["---"] * len(head)), *rows]))
    text = "\n\n".join(tables) + "\n"
    print(f"\n{text}", end="")
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
