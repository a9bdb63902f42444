"""What the compiled loop costs on a GPU, counted for an H200 on a machine that has none.

Kernels, bytes, graphs and waits of one iteration, from the compiler's own texts, and the time
that they would take by a simple model. Needs JAX's CUDA plug-in: `make kernels` runs it in an
environment of its own. A run with --keep, before a change, stores its figures; the pages of later
runs show them as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import hlo, inputs, target
from benchmarks.gpu.day import FULL, QUICK, Day, Sizes
from benchmarks.gpu.loop import SMALL_ZOOMS, Loop
from benchmarks.machine import arguments, figure, head, publish, row, versions
from n4ax_bids.options import PRESETS

BEFORE = Path(__file__).parent / "gpu" / "kernels_before.json"
LAUNCH = ((1.2, 2.2), (2.0, 4.0))
"""microseconds from kernel to kernel, least and most: inside a CUDA graph, and outside"""
GRAPH = (4.0, 8.0)
"""microseconds to start a graph"""
WAIT = (8.0, 16.0)
"""microseconds of a copy to the host that is waited for"""
RESISTS = (
    "The aims are at most 25 kernels and 60 bytes a voxel. A batch moves more bytes. Its rows "
    "are padded to equal sizes, and hold a voxel of the mask in about half of their places; "
    "seven passes over them (the image is read, v is written and read three times, the residual "
    "is written and read) are 52 bytes a voxel already. The rest are the sums over the plane, "
    "which grow with the control points from level to level.",
    "Tried for the last kernels: one scatter for all images of a batch and one look-up of their "
    "rows, instead of an array of two axes for each (kept: one kernel less, and fewer bytes); "
    "the first voxels of ITK's minimum together with the last step of minimum and maximum (kept: "
    "one kernel less); the images of a batch side by side in the sums over the plane (kept: one "
    "transpose less, as long as the rows are looked up in that order; to transpose their index "
    "would take a kernel again, and the loop does it in every iteration even if it is done "
    "before); a histogram that is never emptied, of which the last one is subtracted (not kept: "
    "the compiler then copies the sums, so that there is a kernel for a kernel).",
)
"""what was tried, and what resists"""
Case = Callable[[], Loop]


def main(argv: Sequence[str] | None = None) -> None:
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = arguments("kernels", __doc__, argv, "--keep")
    if reason := target.missing():
        print(f"kernels: skipped: {reason}", file=sys.stderr)
        return
    publish(given, "Kernels of an iteration on a GPU", page(given))


def page(given: argparse.Namespace) -> Iterator[str]:
    found = dict(measured(QUICK if given.quick else FULL))
    if given.keep:
        kept = {"versions": versions(), "cases": found}
        BEFORE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    yield (
        f"Compiled for an {target.NAME} on a machine without a GPU, and counted; [gpu.md](gpu.md) "
        "has what was measured on one. "
        "*Kernels* are all that one iteration of the innermost loop starts, with copies on the "
        "device; *moved* are the bytes that they read and write, the mean of all iterations; "
        "*graphs* are the CUDA graphs "
        "that the host starts in each iteration, 0 if the whole loop is part of one; *waits* are "
        "the times that the host waits for the device in each iteration. *Solve, ms* is a model: "
        f"each kernel takes {_range(LAUNCH[0])} µs in a graph or {_range(LAUNCH[1])} µs outside, "
        f"the bytes pass at {target.BANDWIDTH / 1e12} TB/s, the start of a graph takes "
        f"{_range(GRAPH)} µs and a wait {_range(WAIT)} µs; all of these are added. Atomic "
        "additions that wait for one another are not in it, nor is the work before the loop."
    )
    yield ""
    yield from table(found)
    for paragraph in RESISTS:
        yield ""
        yield paragraph
    if BEFORE.exists() and not given.quick and not given.keep:
        before = json.loads(BEFORE.read_text(encoding="utf-8"))
        yield from ("", "## Before", "")
        yield f"The same count before these changes, with {', '.join(before['versions'])}."
        yield ""
        yield from table(before["cases"])


def measured(sizes: Sizes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compile every case and count."""
    day = Day(sizes is QUICK, float("inf"))
    for name, make in cases(day).items():
        loop = make()
        made = loop.compiled_for_gpu()
        yield name, counted(made, loop)
        print(f"{name}: done", file=sys.stderr, flush=True)


def cases(day: Day) -> dict[str, Case]:
    """Return the solves that are counted."""
    sizes = day.sizes
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    robust = PRESETS["robust"]
    batch = partial(Loop, day, *small, sizes.fmriprep, zooms=SMALL_ZOOMS, n=sizes.batch)
    there = {"on_device": True}
    return {
        "full resolution, whole rows": partial(Loop, day, *full, sizes.full, **there),
        "full resolution, whole rows, preset robust": partial(Loop, day, *full, robust, **there),
        "full resolution, list": partial(Loop, day, *full, sizes.full, on_device=False),
        "shrink 4, whole rows": partial(
            Loop, day, *small, sizes.fmriprep, zooms=SMALL_ZOOMS, **there
        ),
        f"shrink 4, whole rows, batch of {sizes.batch}": partial(batch, **there),
        f"shrink 4, list, batch of {sizes.batch}": partial(batch, on_device=False),
    }


def counted(made: target.Compiled, loop: Loop) -> dict[str, Any]:
    """Return the figures of one case."""
    known = hlo.trips_known(made.hlo)
    started = hlo.iteration(hlo.thunks(made.thunks), trips_known=known)
    n_bytes, scatters = hlo.moved(made.hlo)
    n = loop.n or 1
    return {
        **started._asdict(),
        "scatters": scatters,
        "bytes": n_bytes,
        "voxels": loop.n_voxels,
        "iterations": loop.n_iterations,
        "images": n,
        "temporary": made.temporary,
        "arguments": made.arguments,
        "ms": [round(loop.n_iterations * each / 1000, 2) for each in model(started, n_bytes)],
    }


def model(started: hlo.Started, n_bytes: int) -> tuple[float, float]:
    """Return the least and the most microseconds of an iteration."""
    outside = not (started.loops_in_graph or started.graphs)
    least, most = (
        started.kernels * LAUNCH[outside][end]
        + started.graphs * GRAPH[end]
        + started.waits * WAIT[end]
        + n_bytes / target.BANDWIDTH * 1e6
        for end in (0, 1)
    )
    return least, most


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from head(
        "case",
        "kernels (FFT/product/scatter)",
        "MB moved",
        "bytes a voxel",
        "graphs",
        "waits",
        "memory, MB",
        "solve, ms",
        "ms an image",
    )
    for name, each in found.items():
        low, high = each["ms"]
        n = each["images"]
        yield row(
            name,
            f"{each['kernels']} ({each['ffts']}/{each['products']}/{each['scatters']})",
            figure(each["bytes"] / 1e6),
            figure(each["bytes"] / each["voxels"]),
            each["graphs"],
            each["waits"],
            figure((each["temporary"] + each["arguments"]) / 1e6),
            f"{figure(low)}–{figure(high)}",
            f"{figure(low / n)}–{figure(high / n)}",
        )


def _range(ends: tuple[float, float]) -> str:
    return "–".join(map(figure, ends))


if __name__ == "__main__":
    main()
