"""How the time of the solve grows: with voxels, iterations, control points and images at once.

Synthetic ellipsoids, Otsu's mask given, full resolution, warm calls. `--large` adds 512 voxels to
an axis, which takes about 20 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks import images
from benchmarks.machine import (
    THREADS,
    arguments,
    computing_on,
    figure,
    has,
    head,
    in_turn,
    placed,
    plot_path,
    publish,
    ratio,
    row,
    size,
    timed,
)
from benchmarks.peers import itk_n4
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options

SIDES = (32, 64, 96, 128, 192, 256)
WITH_ITK = 128
"""voxels to an axis; more takes SimpleITK minutes"""
LEVELS = (3, 3, 3, 3)
MIDDLE = 128
"""voxels to an axis where something else grows"""
ITERATIONS = (5, 10, 20, 40, 80)
POINTS = (4, 5, 7, 11, 19, 35)
BATCHES = (1, 2, 4, 8, 16)
SMALL = 64
"""voxels to an axis of the images of a batch, about a head at shrink 4"""

Points = list[tuple[float, float | None, float | None]]
"""what grows, our seconds, SimpleITK's"""


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("scaling", __doc__, argv, "--large")
    with computing_on(given.device, quick=given.quick) as device:
        publish(given, "How the time of the solve grows", page(given, device))


def page(given: argparse.Namespace, device: jax.Device) -> Iterator[str]:
    repeats = 2 if given.quick else 5
    sides = (12, 16) if given.quick else SIDES + ((512,) if given.large else ())
    middle = sides[-1] if given.quick else MIDDLE
    small = sides[0] if given.quick else SMALL
    few = slice(0, 2 if given.quick else None)
    yield (
        "Synthetic ellipsoids with Otsu's mask, given; full resolution; threshold 0. Times are "
        f"medians of {repeats} warm calls of `n4ax_bids.core.n4.estimate.estimate` (3 calls if "
        "they take more than 5 s). Images and masks are in the "
        f"{'memory of the device' if device.platform != 'cpu' else 'host memory'}."
    )
    drawn: dict[str, Points] = {}
    for subject, unit, rows in (
        ("Voxels", "voxels in mask", partial(with_voxels, sides)),
        ("Iterations", "iterations, one level", partial(with_iterations, middle, few)),
        ("Control points", "control points on each axis", partial(with_points, middle, few)),
        ("Images at once", "images", partial(with_batch, small, few)),
    ):
        drawn[unit] = []
        yield from ("", f"## {subject}", "")
        yield from rows(device, repeats, drawn[unit])
    target = plot_path(given)
    if target and has("matplotlib"):
        plot(drawn, target)
        yield from ("", f"![The four tables, drawn]({target.name})")
    elif target:
        yield from ("", "matplotlib is not installed: no plot.")


def with_voxels(
    sides: Sequence[int], device: jax.Device, repeats: int, drawn: Points
) -> Iterator[str]:
    yield (
        f"{' + '.join(map(str, LEVELS))} iterations. SimpleITK gets the same arrays, runs once, "
        f"and only up to {WITH_ITK} voxels on each axis; its time includes the division of the "
        "image."
    )
    yield ""
    yield from head("shape", "voxels in mask", "s", "ns a voxel and iteration", "ITK, s", "ratio")
    for side in sides:
        image, mask = made(side)
        options = N4Options(shrink_factor=1, n_iterations=LEVELS)
        seconds = warm(solve(image, mask, options, device), repeats)
        peer, n = None, int(np.count_nonzero(mask))
        if side <= WITH_ITK and has("SimpleITK"):
            peer = itk_n4(image, mask, n_iterations=LEVELS, threads=THREADS).seconds
        drawn.append((n, seconds, peer))
        each = figure(1e9 * seconds / n / sum(LEVELS))
        yield row(size(image.shape), n, figure(seconds), each, figure(peer), ratio(peer, seconds))


def with_iterations(
    side: int, few: slice, device: jax.Device, repeats: int, drawn: Points
) -> Iterator[str]:
    image, mask = made(side)
    yield f"{size(image.shape)}, one level of 4×4×4 control points."
    yield ""
    yield from head("iterations", "s", "ms an iteration")
    for n in ITERATIONS[few]:
        options = N4Options(shrink_factor=1, n_iterations=(n,))
        seconds = warm(solve(image, mask, options, device), repeats)
        drawn.append((n, seconds, None))
        yield row(n, figure(seconds), figure(1000 * seconds / n))


def with_points(
    side: int, few: slice, device: jax.Device, repeats: int, drawn: Points
) -> Iterator[str]:
    n_iterations = ITERATIONS[1]
    image, mask = made(side)
    yield (
        f"{size(image.shape)}, one level, {n_iterations} iterations. After 4, each number of "
        "control points is that of one more fitting level."
    )
    yield ""
    yield from head("control points", "s", "ms an iteration")
    for n in POINTS[few]:
        options = N4Options(shrink_factor=1, n_iterations=(n_iterations,), n_control_points=(n,))
        seconds = warm(solve(image, mask, options, device), repeats)
        drawn.append((n, seconds, None))
        yield row(f"{n}×{n}×{n}", figure(seconds), figure(1000 * seconds / n_iterations))


def with_batch(
    side: int, few: slice, device: jax.Device, repeats: int, drawn: Points
) -> Iterator[str]:
    image, mask = made(side)
    n_iterations = (3,) * 2 if few.stop else (50,) * 4
    options = N4Options(shrink_factor=1, n_iterations=n_iterations)
    yield (
        f"Images of {size(image.shape)} voxels, {' + '.join(map(str, n_iterations))} iterations, "
        "by `estimate_batch`: in one solve, or one by one (on a CPU as many at the same time as "
        "there are cores). By default it uses one solve on a GPU and one by one on a CPU."
    )
    yield ""
    yield from head("images", "in one solve, s", "ms an image", "one by one, s", "ms an image")
    several = images.variants(image, max(BATCHES[few]))
    several = [placed(each, device) for each in several]
    for n in BATCHES[few]:
        masks, plans = [placed(mask, device)] * n, [plan(options, image.shape)] * n
        call = partial(estimate_batch, several[:n], masks, [None] * n, plans=plans)
        one, each = (warm(partial(call, together=way), repeats) for way in (True, False))
        drawn.append((n, one, None))
        yield row(
            n, *(figure(x) for seconds in (one, each) for x in (seconds, 1000 * seconds / n))
        )


def made(side: int) -> tuple[np.ndarray, np.ndarray]:
    image = images.synthetic((side,) * 3).values
    return image, otsu_mask(image)


def solve(
    image: np.ndarray, mask: np.ndarray, options: N4Options, device: jax.Device
) -> Callable[[], object]:
    both = (placed(array, device) for array in (image, mask))
    return partial(estimate, *both, plan=plan(options, image.shape))


def warm(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call that has been made once before."""
    _, first = timed(call)
    return in_turn(min(repeats, 3) if first > 5 else repeats, call)[0]


def plot(drawn: dict[str, Points], target: Path) -> None:
    """Draw each table; voxels and the time for them on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    settings = {"svg.fonttype": "none", "svg.hashsalt": "n4ax", "font.size": 9}
    with matplotlib.rc_context(settings):
        figures, axes = plt.subplots(2, 2, figsize=(8, 5.5), layout="constrained")
        for axis, (unit, points) in zip(axes.flat, drawn.items(), strict=True):
            x, ours, peer = (np.array(column, float) for column in zip(*points, strict=True))
            axis.plot(x, ours, "o-", label="n4ax_bids")
            if np.isfinite(peer).any():
                axis.plot(x, peer, "s--", label="SimpleITK")
                axis.legend()
            axis.set(xlabel=unit, ylabel="s")
            if unit.startswith("voxels"):
                axis.set(xscale="log", yscale="log")
            else:
                axis.set(xticks=x, ylim=(0, None))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        target.parent.mkdir(parents=True, exist_ok=True)
        figures.savefig(target, metadata={"Date": None})
        plt.close(figures)


if __name__ == "__main__":
    main()
