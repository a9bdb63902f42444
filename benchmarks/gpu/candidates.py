"""Changes to the compiled loop that may pay on a GPU, tried by putting them in place of its parts.

They take choices back that were made before: that the kernels of a CUDA graph may run side by
side, that the loops are no graph of their own, that there are no Fourier transforms, and how often
the histogram is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.day import Day
from benchmarks.gpu.loop import SMALL_ZOOMS, Loop
from n4ax_bids.core.n4 import compiled, sharpen, sharpen_direct, whole_rows

ONE_GRAPH = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,"
    "DYNAMIC_SLICE_FUSION",
    "xla_gpu_graph_min_graph_size": 1,
}
NO_GRAPHS = {"xla_gpu_enable_command_buffer": ""}


def candidates(day: Day) -> dict[str, Any]:
    """Time an iteration as it is and with its parts replaced."""
    result: dict[str, Any] = {}
    for case, loop in _cases(day):
        for name, (parts, options) in _changes().items():
            key = f"{case}: {name}"
            if not day.has_room(15):
                result[key] = "no time"
                continue
            try:
                result[key], lattice = _timed(day, loop, parts, options)
            except Exception as error:  # a compiler that does not know the options, for example
                result[key] = f"{type(error).__name__}: {error}"[:300]
                continue
            if name == "as it is":
                as_it_is = lattice
            difference = float(np.abs(lattice - as_it_is).max())
            result[key]["largest difference of the lattice"] = difference
            day.save()
        if not loop.n:
            result |= _by_copies(day, case, loop)
    return result


def _changes() -> dict[str, tuple[dict[tuple[Any, str], Any], dict[str, Any] | None]]:
    return {
        "as it is": ({}, compiled.SIDE_BY_SIDE),
        "one graph": ({}, ONE_GRAPH),
        "kernels one after the other": ({}, None),
        "no graphs": ({}, NO_GRAPHS),
        "Fourier transforms": (
            {(sharpen_direct, "sharpening_map"): sharpen.sharpening_map},
            compiled.SIDE_BY_SIDE,
        ),
        "each thread another copy": ({(sharpen, "TOGETHER"): 1}, compiled.SIDE_BY_SIDE),
        "the plane summed by a product": ({(whole_rows, "FEW_POINTS"): 0}, compiled.SIDE_BY_SIDE),
        "the plane summed by hand": ({(whole_rows, "FEW_POINTS"): 1 << 20}, compiled.SIDE_BY_SIDE),
    }


def _cases(day: Day) -> Iterator[tuple[str, Loop]]:
    sizes = day.sizes
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    yield "whole rows", Loop(day, *full, sizes.full, on_device=True)
    batch = {"on_device": True, "zooms": SMALL_ZOOMS, "n": sizes.batch}
    yield "batch", Loop(day, *small, sizes.fmriprep, **batch)


def _timed(
    day: Day, loop: Loop, parts: dict[tuple[Any, str], Any], options: dict[str, Any] | None
) -> tuple[dict[str, Any], np.ndarray]:
    with replaced(parts):
        function = loop.fresh(options)
        each = loop.per_iteration(function)
        lattice = np.asarray(loop.run(function).lattice)
        return {**each, "whole": day.warm(lambda: loop.run(function))}, lattice


def _by_copies(day: Day, case: str, loop: Loop) -> dict[str, Any]:
    """Time an iteration with other numbers of copies of the histogram."""
    result: dict[str, Any] = {}
    program = loop.program
    for copies in (1, 16, 64):
        if not day.has_room(15):
            break
        loop.program = program._replace(copies=copies)
        try:
            result[f"{case}: copies={copies}"] = loop.per_iteration(
                loop.fresh(compiled.SIDE_BY_SIDE)
            )
        except Exception as error:
            result[f"{case}: copies={copies}"] = f"{type(error).__name__}: {error}"[:200]
    loop.program = program
    return result


@contextmanager
def replaced(parts: dict[tuple[Any, str], Any]) -> Iterator[None]:
    """Put other values in place of names of modules within a block."""
    before = {at: getattr(*at) for at in parts}
    try:
        for at, value in parts.items():
            setattr(*at, value)
        yield
    finally:
        for at, value in before.items():
            setattr(*at, value)
