"""Stacks of sections: our time and error of the field beside ITK's, with linumpy's figures.

Ellipsoids as in linumpy's documentation: inside 1.0, outside 0.3, noise 0.02, mask radius 1.2,
amplitude of the field 0.5, iterations 25, 25, 25, spline 20 mm. SimpleITK gets the axes in their
right order and the same lattice. Times are those of the wall and, in parentheses, of all CPU cores
together, which other work on the machine changes less. `--first` and `--rows` choose rows; ITK
alone takes minutes on the last ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from n4ax_bids.core.stack.call import correct_stack
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
    """Return image, field and mask."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    z, y, x = (
        axis.reshape([-1 if d == k else 1 for d in range(3)]) for k, axis in enumerate(axes)
    )
    distance = 2.25 * (z**2 + y**2 + x**2)
    ramp = 0.6 * x - 0.4 * y + 0.5 * z + 0.4 * x * y - 0.3 * z**2
    field = np.exp(0.5 * ramp / np.abs(ramp).max())
    image = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    image += np.where(distance <= 1, np.float32(1), np.float32(0.3))
    image *= field
    return image, field, distance <= 1.44


def error(bias: np.ndarray, field: np.ndarray, mask: np.ndarray) -> float:
    """Return the coefficient of variation of estimated/true field in the mask."""
    ratio = bias[mask] / field[mask]
    return float(ratio.std(dtype=np.float64) / ratio.mean(dtype=np.float64))


class Seconds(NamedTuple):
    wall: float
    cpu: float
    """of all cores together"""

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Seconds:
        now = self.now()
        return Seconds(now.wall - self.wall, now.cpu - self.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.2f} ({self.cpu:.2f})"


def itk(
    image: np.ndarray, mask: np.ndarray, shrink: int, points: Sequence[int]
) -> tuple[Seconds, np.ndarray]:
    """Correct by SimpleITK; return seconds and the field."""
    whole, inside = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask.astype(np.uint8))
    start = Seconds.now()
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetConvergenceThreshold(0.001)
    n4.SetNumberOfControlPoints(list(points))
    n4.Execute(sitk.Shrink(whole, [shrink] * 3), sitk.Shrink(inside, [shrink] * 3))
    bias = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)))
    image / np.maximum(bias, 1e-6)  # the division belongs to the time
    return start.since(), bias


def ours(image: np.ndarray, mask: np.ndarray, options: StackOptions) -> tuple[Seconds, np.ndarray]:
    """Correct by this package, once for the compiler and once for the clock."""
    seconds = []
    for _ in range(2):
        start = Seconds.now()
        bias = correct_stack(image, mask, options=options).bias
        seconds.append(start.since())
    return min(seconds), bias


def measured(row: Row) -> str:
    """Return a row of the table."""
    image, field, mask = phantom(row.shape)
    found = {}
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
        seconds, bias = ours(image, mask, options)
        found[sampling] = seconds, error(bias, field, mask)
        del bias
    points = section_plan(options, row.shape, (1, 1, 1), 20).n_control_points
    its_seconds, bias = itk(image, mask, row.shrink, points)
    its = its_seconds, error(bias, field, mask)
    del bias
    start = Seconds.now()
    compute_tissue_mask(image)
    masking = start.since()
    cells = [
        "×".join(map(str, row.shape)),
        f"{row.shrink}",
        f"{found['mean'][0]}",
        f"{found['itk'][0]}",
        f"{its[0]}",
        f"{masking}",
        f"{row.cpu:.2f}",
        f"{row.gpu:.2f}",
        f"{found['mean'][1]:.4f}",
        f"{found['itk'][1]:.4f}",
        f"{its[1]:.4f}",
        f"{row.cv_cpu:.3f}",
        f"{row.cv_gpu:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """\
| volume | shrink | s, means | s, ITK's samples | s, SimpleITK | s, tissue mask | linumpy CPU s \
| linumpy GPU s | CV, means | CV, ITK's samples | CV, SimpleITK | linumpy CPU CV | linumpy GPU CV |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table, or write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="rows that are left out")
    parser.add_argument("--rows", type=int, default=len(ROWS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    lines = [HEAD]
    print(HEAD, flush=True)
    for row in ROWS[given.first :][: given.rows]:
        lines.append(measured(row))
        print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
