"""The time of one iteration beside what reading each voxel alone would take.

A long warm run minus a short one, divided by the iterations between. The limit: an iteration has
to move about 16 bytes for each voxel of the mask, at the bandwidth at which this machine copies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import jax
import numpy as np

from benchmarks import images
from benchmarks.machine import (
    THREADS,
    arguments,
    computing_on,
    figure,
    head,
    placed,
    publish,
    ratio,
    row,
    size,
    timed,
)
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options

BYTES = 16
"""a voxel of the mask and an iteration: four float32 numbers, read or written"""
LEVELS = 4


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("iteration", __doc__, argv)
    with computing_on(given.device, quick=given.quick) as device:
        publish(given, "Time of one iteration", page(given, device))


def page(given: argparse.Namespace, device: jax.Device) -> Iterator[str]:
    image = images.usual(given)
    mask = otsu_mask(image.values)
    repeats = 2 if given.quick else 5
    size_of_copy = 1 << (20 if given.quick else 29)
    found = bandwidth(size_of_copy, device, repeats)
    yield "## Copy bandwidth"
    yield ""
    yield (
        f"Copies of {size_of_copy / 2**20:.0f} MiB of float32; bytes read and bytes written are "
        f"both counted; median of {repeats}."
    )
    yield ""
    yield from head("copy", "GB/s")
    for name, speed in found.items():
        yield row(name, figure(speed / 1e9))
    best = max(found.values())
    yield from ("", "## Iterations", "")
    yield (
        f"Image: {image.name}, {size(image.values.shape)}; Otsu's mask, given. {LEVELS} levels "
        "with equal numbers of iterations. Time of an iteration: (long run − short run) / "
        f"difference of their iterations, median of {repeats} pairs. Limit: {BYTES} bytes for "
        "each voxel of the mask at the speed of the fastest copy above; arrays that stay in a "
        "cache can be faster."
    )
    yield ""
    yield from head("work", "voxels in mask", "ms an iteration", "limit, ms", "iteration / limit")
    for name, shrink, short, long in (
        ("full resolution", 1, 1, 5),
        ("shrink 4", 4, 25, 125),
    ):
        if given.quick:
            short, long = 1, 9
        both = [placed(array, device) for array in (image.values, mask)]
        runs = []
        for n in (short, long):
            options = N4Options(shrink_factor=shrink, n_iterations=(n,) * LEVELS)
            runs.append(partial(estimate, *both, plan=plan(options, image.values.shape)))
        n_voxels = runs[0]().n_voxels
        pairs = [[timed(run)[1] for run in runs] for _ in range(repeats + 1)][1:]
        seconds = median(b - a for a, b in pairs) / (long - short) / LEVELS
        limit = BYTES * n_voxels / best
        yield row(
            name, n_voxels, figure(1e3 * seconds), figure(1e3 * limit), ratio(seconds, limit)
        )


def bandwidth(n_bytes: int, device: jax.Device, repeats: int) -> dict[str, float]:
    """Return bytes read and written in a second, by kind of copy."""
    if device.platform != "cpu":
        array = jax.device_put(np.ones(n_bytes // 4, np.float32), device)
        copy = jax.jit(lambda values: values + 1)
        call = partial(copy, array)
        timed(call)
        # Many in a row: the start of a program on the device takes longer than a copy there.
        rounds = [timed(lambda: [call() for _ in range(10)])[1] / 10 for _ in range(repeats)]
        return {"device to device": 2 * n_bytes / median(rounds)}
    source = np.ones(n_bytes // 4, np.float32)
    target = np.zeros_like(source)
    found = {}
    for n in sorted({1, THREADS}):
        parts = [np.array_split(array, n) for array in (target, source)]
        with ThreadPoolExecutor(n) as pool:
            copy = partial(_copy, pool, *parts)
            rounds = [timed(copy)[1] for _ in range(repeats + 1)][1:]
        name = "numpy, 1 thread" if n == 1 else f"numpy, {n} threads"
        found[name] = 2 * n_bytes / median(rounds)
    return found


def _copy(
    pool: ThreadPoolExecutor, targets: Sequence[np.ndarray], sources: Sequence[np.ndarray]
) -> None:
    list(pool.map(np.copyto, targets, sources))


if __name__ == "__main__":
    main()
