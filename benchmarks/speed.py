"""How long the solve takes, beside SimpleITK, and the whole call with and without a mask.

Both programs are given the same arrays and the same mask, in memory; reading, writing and the
start of a process are in `benchmarks.command`. On a GPU, and with --quick, there is a third table:
from device array to device array, one volume and a batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple

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
    publish,
    ratio,
    row,
    size,
    timed,
)
from benchmarks.peers import itk_n4
from n4ax_bids.core.n4.call import n4, n4_batch
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import PRESETS, N4Options


class Work(NamedTuple):
    """What both programs are asked for."""

    name: str
    shrink: int
    n_iterations: tuple[int, ...]
    itk_runs: int


FULL = (
    Work("full resolution", 1, (5,) * 4, 1),
    Work("shrink 4", 4, (50,) * 4, 3),
)
QUICK = (
    Work("full resolution", 1, (1, 1), 1),
    Work("shrink 4", 4, (2, 2), 1),
)
ON_DEVICE = (256, 176, 256)
BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("speed", __doc__, argv)
    with computing_on(given.device, quick=given.quick) as device:
        publish(given, "Time of the solve", page(given, device))


def page(given: argparse.Namespace, device: jax.Device) -> Iterator[str]:
    image = images.usual(given)
    mask, seconds = timed(partial(otsu_mask, image.values))
    repeats = 2 if given.quick else 5
    yield (
        f"Image: {image.name}, {size(image.values.shape)}; mask: Otsu's, "
        f"{np.count_nonzero(mask)} voxels, made in {figure(seconds)} s."
    )
    works = QUICK if given.quick else FULL
    yield from ("", "## Compared with SimpleITK", "")
    yield from against_itk(image.values, mask, works, device, repeats)
    yield from ("", "## With a given mask and with Otsu's mask", "")
    yield from whole_call(image.values, mask, works, device, repeats)
    if given.quick or device.platform != "cpu":
        yield from ("", "## From device array to device array", "")
        yield from on_device(images.QUICK if given.quick else ON_DEVICE, device, repeats)


def against_itk(
    image: np.ndarray, mask: np.ndarray, works: Sequence[Work], device: jax.Device, repeats: int
) -> Iterator[str]:
    """Both programs get the shrunk arrays and return the corrected ones."""
    yield (
        "Threshold 0, so all iterations run. *First call*: nothing is compiled yet. *Next calls*: "
        f"solve and division, as in SimpleITK's filter, median of {repeats}; *solve* is the solve "
        "alone. SimpleITK: median of the given number of runs, without loading; at full "
        "resolution it takes minutes and runs once. Ratio: SimpleITK / next calls."
    )
    yield ""
    yield from head(
        "work",
        "iterations",
        "shape",
        "voxels in mask",
        "first call, s",
        "next calls, s",
        "solve, s",
        "SimpleITK, s (runs)",
        "ratio",
    )
    for work in works:
        step = (slice(work.shrink // 2, None, work.shrink),) * image.ndim
        values, inside = image[step], mask[step]
        options = N4Options(shrink_factor=1, n_iterations=work.n_iterations)
        both = [placed(array, device) for array in (values, inside)]
        call = partial(n4, *both, options=options)
        jax.clear_caches()
        cold = timed(call)[1]
        solve = partial(estimate, *both, plan=plan(options, values.shape))
        warm, alone = in_turn(repeats, call, solve)
        peer = itk(values, inside, work)
        yield row(
            work.name,
            " + ".join(map(str, work.n_iterations)),
            size(values.shape),
            np.count_nonzero(inside),
            figure(cold),
            figure(warm),
            figure(alone),
            "–" if peer is None else f"{figure(peer)} ({work.itk_runs})",
            ratio(peer, warm),
        )


def itk(image: np.ndarray, mask: np.ndarray, work: Work) -> float | None:
    """Return SimpleITK's seconds; None where it is not installed."""
    if not has("SimpleITK"):
        return None
    run = partial(itk_n4, image, mask, n_iterations=work.n_iterations, threads=THREADS)
    return median(run().seconds for _ in range(work.itk_runs))


def whole_call(
    image: np.ndarray, mask: np.ndarray, works: Sequence[Work], device: jax.Device, repeats: int
) -> Iterator[str]:
    """`n4` on the whole image, which shrinks for the solve and divides every voxel."""
    yield (
        "`n4ax_bids.n4` on the whole image: shrinking, solve, and division of every voxel. "
        f"Medians of {repeats} warm calls each, taken in turn. Ratio: time with Otsu's mask made "
        "in the call / time with a given mask."
    )
    yield ""
    yield from head("work", "iterations", "mask given, s", 'mask "otsu", s', "ratio")
    values, inside = placed(image, device), placed(mask, device)
    for work in works:
        options = N4Options(shrink_factor=work.shrink, n_iterations=work.n_iterations)
        calls = [partial(n4, values, region, options=options) for region in (inside, "otsu")]
        for call in calls:
            timed(call)
        with_one, without = in_turn(repeats, *calls)
        yield row(
            work.name,
            " + ".join(map(str, work.n_iterations)),
            figure(with_one),
            figure(without),
            ratio(without, with_one),
        )


def on_device(shape: tuple[int, ...], device: jax.Device, repeats: int) -> Iterator[str]:
    """Mask made inside, image and corrected image on the device."""
    yield (
        f"Synthetic ellipsoids, {size(shape)}, 1 mm. Otsu's mask is made inside the call. The "
        "images are on the device before the call, and the corrected images stay there. *First "
        f"call*: nothing is compiled yet; *next calls*: median of {repeats}."
    )
    yield ""
    yield from head("work", "images", "first call, s", "next calls, ms", "ms an image")
    image = images.synthetic(shape).values
    whole = N4Options(shrink_factor=1, n_iterations=(50, 50, 30, 20))
    fmriprep = PRESETS["fmriprep"]
    several = 2 if shape == images.QUICK else BATCH
    if several == 2:
        whole, fmriprep = (replace(each, n_iterations=(2, 1)) for each in (whole, fmriprep))
    one = jax.device_put(image, device)
    many = [jax.device_put(each, device) for each in images.variants(image, several)]
    zooms = (1.0,) * image.ndim
    single = partial(n4, one, zooms=zooms, options=fmriprep)
    batch = partial(n4_batch, many, zooms=[zooms] * several, options=fmriprep)
    full = "full resolution, 50 + 50 + 30 + 20, threshold 0"
    for name, call, n in (
        (full, partial(n4, one, options=whole), 1),
        ("preset `fmriprep`", single, 1),
        ("preset `fmriprep`", batch, several),
    ):
        jax.clear_caches()
        cold = timed(call)[1]
        (warm,) = in_turn(repeats, call)
        yield row(name, n, figure(cold), figure(1000 * warm), figure(1000 * warm / n))


if __name__ == "__main__":
    main()
