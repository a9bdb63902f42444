"""Parts of a GPU day that measure: the machine, whole calls, the loop alone, its kernels."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.candidates import NO_GRAPHS
from benchmarks.gpu.day import ROOT, Day
from benchmarks.gpu.loop import SMALL_ZOOMS, Loop, shared
from n4ax_bids.core import threshold
from n4ax_bids.core.n4 import convergence
from n4ax_bids.core.n4.call import n4
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import PRESETS, N4Options

BANDWIDTH = 4.3e12
"""bytes a second, of the device that the figures are compared with"""
TESTS = (
    "tests/core/n4/test_sharpen.py",
    "tests/core/test_bspline.py",
    "tests/core/n4/test_estimate.py",
)
"""which need jax, numpy, scipy and pytest alone"""


def machine(day: Day) -> dict[str, Any]:
    """Name device and versions; measure a copy and a loop that does next to nothing."""
    about = {
        "device": f"{day.device.platform}: {day.device.device_kind}",
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "cores": len(os.sched_getaffinity(0)),
        "quick": day.quick,
    }
    if shutil.which("nvidia-smi"):
        words = "name,driver_version,memory.total,clocks.sm,clocks.mem"
        call = ["nvidia-smi", f"--query-gpu={words}", "--format=csv,noheader"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=20, check=False)
        about["nvidia-smi"] = done.stdout.strip()
    n = 1 << (20 if day.quick else 28)
    copied = partial(jax.jit(lambda values: values + 1), jnp.arange(n, dtype=jnp.float32))
    about["copy_GB_per_s"] = round(8 * n / day.warm(copied)["min_ms"] / 1e6, 1)
    ones = jnp.ones(256, jnp.float32)
    short, long = (day.warm(partial(_chain(k), ones))["median_ms"] for k in (100, 1100))
    about["us_per_step_of_a_tiny_loop"] = round(long - short, 3)
    return about


def _chain(n_steps: int) -> Callable[[jax.Array], jax.Array]:
    """A loop of cumulative sums, small kernels that the compiler cannot fuse."""

    def step(_: int, values: jax.Array) -> jax.Array:
        return jnp.cumsum(values[::-1]) * 0.01

    return jax.jit(lambda values: jax.lax.fori_loop(0, n_steps, step, values))


def calls(day: Day) -> dict[str, Any]:
    """Time whole calls: one image and a batch, from the host and on the device."""
    sizes = day.sizes
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    full_there, small_there = (tuple(map(jax.device_put, pair)) for pair in (full, small))
    robust = replace(PRESETS["robust"], n_iterations=sizes.levels)
    batch = [inputs.head(sizes.small_shape, sizes.small_semi_axes, i) for i in range(sizes.batch)]
    batch_there = [tuple(map(jax.device_put, pair)) for pair in batch]
    of_batch = f"batch of {sizes.batch} at shrink 4"
    shrunk = partial(_lattice, options=sizes.fmriprep, zooms=SMALL_ZOOMS)
    own_mask = partial(n4, full_there[0], "otsu", options=sizes.full)
    timed: dict[str, Callable[[], Any]] = {
        "shrink 4, list, host arrays": partial(shrunk, *small, on_device=False),
        "shrink 4, whole rows, device arrays": partial(shrunk, *small_there),
        "shrink 4, shared solve, one image": partial(shared, batch[:1], sizes.fmriprep),
        "shrink 4, shared solve, eight images": partial(shared, batch[:8], sizes.fmriprep),
        f"{of_batch}, host arrays": partial(_lattices, batch, sizes.fmriprep),
        f"{of_batch}, device arrays": partial(_lattices, batch_there, sizes.fmriprep),
        "full, list, host arrays": partial(_lattice, *full, sizes.full, on_device=False),
        "full, whole rows, device arrays": partial(_lattice, *full_there, sizes.full),
        "full, whole rows, device arrays, robust": partial(_lattice, *full_there, robust),
        "n4() with its own mask, device array to device array": own_mask,
        "otsu_mask alone, device array": partial(threshold.otsu_mask, full_there[0]),
    }
    result: dict[str, Any] = {
        "levels": sizes.levels,
        "full shape": sizes.shape,
        "memory before": day.memory(),
        "voxels in mask": int(np.count_nonzero(full[1])),
    }
    for name, call in timed.items():
        if not day.has_room(10):
            result[name] = "no time"
            continue
        result[name] = day.warm(call) | {"memory": day.memory()}
        if name.startswith(of_batch):
            result[name]["ms_per_image"] = round(result[name]["median_ms"] / sizes.batch, 3)
        day.save()
    return result


def _lattice(
    image: Any,
    mask: Any,
    options: N4Options,
    *,
    on_device: bool | None = None,
    zooms: tuple[float, ...] | None = None,
) -> Any:
    made = plan(options, np.shape(image), zooms)
    return estimate(image, mask, plan=made, on_device=on_device).log_field.lattice


def _lattices(pairs: list[tuple[Any, ...]], options: N4Options) -> list[Any]:
    n = len(pairs)
    images, masks = zip(*pairs, strict=True)
    plans = [plan(options, np.shape(images[0]), SMALL_ZOOMS)] * n
    found = estimate_batch(images, masks, [None] * n, plans=plans, together=True)
    return [each.log_field.lattice for each in found]


def iterations(day: Day) -> dict[str, Any]:
    """Time the compiled loop alone."""
    sizes, result = day.sizes, {}
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    shrunk = partial(Loop, day, *small, sizes.fmriprep, zooms=SMALL_ZOOMS)
    made = {
        "list": partial(Loop, day, *full, sizes.full, on_device=False),
        "whole rows": partial(Loop, day, *full, sizes.full, on_device=True),
        f"batch of {sizes.batch}, list": partial(shrunk, on_device=False, n=sizes.batch),
        f"batch of {sizes.batch}, whole rows": partial(shrunk, on_device=True, n=sizes.batch),
        "shrink 4, list": partial(shrunk, on_device=False),
    }
    for name, make in made.items():
        if not day.has_room(10):
            result[name] = "no time"
            continue
        loop = make()
        each = loop.per_iteration()
        n_bytes = each["us_per_iteration"] * 1e-6 * BANDWIDTH / loop.n_voxels
        result[name] = {
            **each,
            "whole": day.warm(loop.run),
            "voxels": loop.n_voxels,
            f"bytes a voxel at {BANDWIDTH / 1e12} TB/s": round(n_bytes, 1),
        }
        day.save()
    return result


def kernels(day: Day) -> Any:
    """Return the kernels of some iterations by the profiler, with their mean microseconds.

    Without CUDA graphs, in which the profiler misses some. What runs once a level is left out.
    """
    sizes, result = day.sizes, {}
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    shrunk = partial(Loop, day, *small, sizes.fmriprep, zooms=SMALL_ZOOMS, on_device=True)
    made = {
        "whole rows": partial(Loop, day, *full, sizes.full, on_device=True),
        "shrink 4, whole rows": shrunk,
        f"batch of {sizes.batch}, whole rows": partial(shrunk, n=sizes.batch),
    }
    for case, make in made.items():
        if not day.has_room(10):
            result[case] = "no time"
            continue
        loop, n = make(), 8
        function = loop.fresh(NO_GRAPHS)
        jax.block_until_ready(loop.run(function, most=n))
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, create_perfetto_trace=True):
                jax.block_until_ready(loop.run(function, most=n))
            traces = [*Path(folder).rglob("perfetto_trace.json.gz")]
            n_all = n * loop.n_levels
            result[case] = _kernels_of(traces[0], n_all) if traces else "no trace"
    return result


def _kernels_of(trace: Path, n_iterations: int) -> dict[str, Any]:
    events = json.loads(gzip.decompress(trace.read_bytes()))
    events = events["traceEvents"] if isinstance(events, dict) else events
    processes = {
        event["pid"]: event["args"]["name"]
        for event in events
        if event.get("ph") == "M" and event.get("name") == "process_name"
    }
    total: dict[str, tuple[int, float]] = {}
    for event in events:
        if event.get("ph") == "X" and "GPU" in processes.get(event.get("pid"), ""):
            n, time = total.get(event["name"], (0, 0.0))
            total[event["name"]] = n + 1, time + event.get("dur", 0.0)
    often = {name: found for name, found in total.items() if found[0] >= n_iterations}
    longest = sorted(often.items(), key=lambda item: -item[1][1])
    return {
        "kernels an iteration": round(sum(n for n, _ in often.values()) / n_iterations, 1),
        "us an iteration": round(sum(time for _, time in often.values()) / n_iterations, 1),
        "each": {name[:60]: [n, round(time / n, 2)] for name, (n, time) in longest},
    }


def statistic_on_host(day: Day) -> dict[str, Any]:
    """Time ITK's stopping statistic, which the preset `robust` computes on the host."""
    n = 20_000 if day.quick else 2_000_000
    values = np.random.default_rng(0).normal(0, 1e-3, n).astype(np.float32)
    there = jax.device_put(values)
    return {
        "convergence.itk, host": day.warm(lambda: convergence.itk(values), 3),
        "copy of the list to the host": day.warm(lambda: np.asarray(there + 0), 3),
    }


def tests(day: Day) -> dict[str, Any]:
    """Run the project's tests that need no other package; a rehearsal only collects them."""
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        [*call, *(["--collect-only"] if day.quick else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=min(600, max(20, day.left() - 10)),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-400:]}")
    return {"end": done.stdout[-300:]}
