"""What the host does for a solve whose samples and iterations are a device's work.

    python -m benchmarks.host_work

The path for a GPU runs on this CPU, with arrays that are JAX's already. The loop's answer is kept
from the first call, so that it costs nothing again. Counted is the processor time of the thread
that calls: checks, plan, tables, dispatch, results. The programs that find the mask's rows run on
other threads; the calling thread waits for them, which takes no processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any
from unittest import mock

import jax

from benchmarks.gpu import inputs
from benchmarks.gpu.day import FULL, QUICK, Sizes
from benchmarks.gpu.loop import SMALL_ZOOMS
from benchmarks.machine import arguments, computing_on, figure, head, publish, row
from n4ax_bids.core.n4 import solve
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan

REPEATS = 30


def calls(sizes: Sizes) -> dict[str, Callable[[], Any]]:
    """Return the calls that are measured, by name."""
    full = tuple(map(jax.device_put, inputs.head(sizes.shape, sizes.semi_axes)))
    small = [
        tuple(map(jax.device_put, inputs.head(sizes.small_shape, sizes.small_semi_axes, number)))
        for number in range(sizes.batch)
    ]
    images, masks = zip(*small, strict=True)
    of_full = plan(sizes.full, sizes.shape)
    of_small = plan(sizes.fmriprep, sizes.small_shape, SMALL_ZOOMS)
    n = sizes.batch
    together = partial(estimate_batch, images, masks, [None] * n, plans=[of_small] * n)
    return {
        "one image at full resolution": partial(estimate, *full, plan=of_full, on_device=True),
        "one image at shrink 4": partial(estimate, *small[0], plan=of_small, on_device=True),
        f"batch of {n} at shrink 4": partial(together, on_device=True, together=True),
    }


def kept(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose answer is that of its first call."""
    answers: list[Any] = []

    def first(*given: Any) -> Any:
        if not answers:
            answers.append(jax.block_until_ready(real(*given)))
        return answers[0]

    return first


def measured(call: Callable[[], Any]) -> tuple[float, float]:
    """Return milliseconds of the calling thread's processor time, and of the clock."""
    with (
        mock.patch.object(solve, "run", kept(solve.run)),
        mock.patch.object(solve, "run_batch", kept(solve.run_batch)),
    ):
        for _ in range(3):
            call()
        used, clock = [], []
        for _ in range(REPEATS):
            began = time.thread_time(), time.perf_counter()
            call()
            used.append(time.thread_time() - began[0])
            clock.append(time.perf_counter() - began[1])
    return 1e3 * median(used), 1e3 * median(clock)


def lines(sizes: Sizes) -> Iterator[str]:
    """Write the page."""
    yield (
        f"Medians of {REPEATS} calls; images of {'×'.join(map(str, sizes.shape))} voxels, or "
        f"{'×'.join(map(str, sizes.small_shape))} after shrinking. The goal is 5 ms for a batch "
        "and for one image at full resolution. The clock also counts what a GPU would do."
    )
    yield ""
    yield from head("call", "ms of the host", "ms by the clock, here")
    for name, call in calls(sizes).items():
        yield row(name, *map(figure, measured(call)))


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("host_work", __doc__, argv)
    with computing_on(given.device, quick=given.quick):
        publish(given, "Work of the host", lines(QUICK if given.quick else FULL))


if __name__ == "__main__":
    main()
