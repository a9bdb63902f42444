"""Changes to the compiled loop that may pay on a GPU, tried by putting them in place of its parts.

Without Fourier transforms the whole loop can be one CUDA graph, and atomic additions of 0 can be
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.day import Day
from benchmarks.gpu.loop import SMALL_ZOOMS, Loop
from n4ax_bids.core.n4 import sharpen

GRAPHS = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,"
    "DYNAMIC_SLICE_FUSION",
    "xla_gpu_graph_min_graph_size": 1,
}
"""options of the compiler by which a loop without Fourier transforms becomes one CUDA graph"""


def candidates(day: Day) -> dict[str, Any]:
    """Time an iteration as it is and with its parts replaced."""
    result: dict[str, Any] = {}
    for case, loop in _cases(day):
        for name, (functions, options) in _changes().items():
            key = f"{case}: {name}"
            if not day.has_room(15):
                result[key] = "no time"
                continue
            try:
                result[key], lattice = _timed(day, loop, functions, options)
            except Exception as error:  # a compiler that does not know the options, for example
                result[key] = f"{type(error).__name__}: {error}"[:300]
                continue
            if not functions:
                as_it_is = lattice
            difference = float(np.abs(lattice - as_it_is).max())
            result[key]["largest difference of the lattice"] = difference
            day.save()
        if not loop.n:
            result |= _by_copies(day, case, loop)
    return result


def _changes() -> dict[str, tuple[dict[str, Callable[..., Any]], dict[str, Any] | None]]:
    matrices = {"sharpening_map": map_by_matrices}
    without_idle = matrices | {"tally": tally_without_idle}
    return {
        "as it is": ({}, None),
        "matrices, one graph": (matrices, GRAPHS),
        "matrices, one graph, no idle atomics": (without_idle, GRAPHS),
    }


def _cases(day: Day) -> Iterator[tuple[str, Loop]]:
    sizes = day.sizes
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    yield "list", Loop(day, *full, sizes.full, dense=False)
    yield (
        "batch",
        Loop(day, *small, sizes.fmriprep, dense=False, zooms=SMALL_ZOOMS, n=sizes.batch),
    )
    yield "dense", Loop(day, *full, sizes.full, dense=True)


def _timed(
    day: Day, loop: Loop, functions: dict[str, Callable[..., Any]], options: dict[str, Any] | None
) -> tuple[dict[str, Any], np.ndarray]:
    with replaced(**functions):
        function = loop.fresh(options) if functions else None
        each = loop.per_iteration(function)
        lattice = np.asarray(loop.run(function).lattice)
    return {**each, "whole": day.warm(lambda: loop.run(function))}, lattice


def _by_copies(day: Day, case: str, loop: Loop) -> dict[str, Any]:
    """Time an iteration with other numbers of copies of the histogram."""
    result: dict[str, Any] = {}
    program = loop.program
    for copies in (1, 16):
        if not day.has_room(15):
            break
        loop.program = program._replace(copies=copies)
        try:
            result[f"{case}: copies={copies}"] = loop.per_iteration(loop.fresh())
        except Exception as error:
            result[f"{case}: copies={copies}"] = f"{type(error).__name__}: {error}"[:200]
    loop.program = program
    return result


@contextmanager
def replaced(**functions: Callable[..., Any]) -> Iterator[None]:
    """Put functions in place of those of `sharpen` within a block."""
    before = {name: getattr(sharpen, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(sharpen, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(sharpen, name, function)


def map_by_matrices(counts, v_min, slope, *, fwhm, noise):
    """`sharpen.sharpening_map` with its Fourier transforms as products with float64 matrices."""
    real, n_bins = slope.dtype, counts.shape[0]
    padded = sharpen.padded_size(n_bins)
    offset, half = (padded - n_bins) // 2, padded // 2 + 1
    forward, back = map(jnp.asarray, _fourier_matrices(padded))
    histogram = jnp.zeros(padded).at[offset : offset + n_bins].set(_rounded(counts, real))
    gaussian_hat = (sharpen._gaussian(padded, slope, fwhm) @ forward)[:half]
    twice = jnp.concatenate([gaussian_hat, gaussian_hat])
    wiener = twice / (twice**2 + _rounded(noise, real))
    deblurred = jnp.maximum(((histogram @ forward) * wiener) @ back, 0)
    steps = _rounded((jnp.arange(padded) - offset) * slope.astype(jnp.float64), real)
    value = _rounded(v_min.astype(jnp.float64) + steps, real)
    both = jnp.stack([value * deblurred, deblurred])
    numerator, denominator = ((both @ forward) * twice[None]) @ back
    known = denominator != 0
    expected = jnp.where(known, numerator / jnp.where(known, denominator, 1), 0)
    return expected[offset : offset + n_bins].astype(real)


def _rounded(value, dtype):
    return jnp.asarray(value, jnp.float64).astype(dtype).astype(jnp.float64)


def _fourier_matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of a real Fourier transform, cosines beside sines, and of its inverse."""
    half = n // 2 + 1
    angle = 2 * np.pi * (np.outer(np.arange(n), np.arange(half)) % n) / n
    forward = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)
    weight = np.full(half, 2.0 / n)
    weight[0] = weight[-1] = 1.0 / n
    back = np.concatenate([(np.cos(angle) * weight).T, (-np.sin(angle) * weight).T], axis=0)
    return forward, back


def tally_without_idle(bins, mask, n_bins, n_values, *, repeats=0, copies=1):
    """`sharpen.tally` where what does not count is not added at all: no atomic additions of 0."""
    bits, one = sharpen._packing(n_values)
    fixed = jnp.round(bins.offset * (1 << bits)).astype(jnp.int32).astype(jnp.int64)
    counts = bins.offset >= 0 if mask is None else mask & (bins.offset >= 0)
    word = jnp.where(counts, fixed + one, 0)
    place = bins.lower
    if copies > 1:
        place = place + n_bins * (jnp.arange(place.size, dtype=jnp.uint32) % copies)
    place = jnp.where(counts, place, copies * n_bins)
    added = jnp.zeros(copies * n_bins, jnp.int64).at[place].add(word, mode="drop")
    total = added.reshape(copies, n_bins).sum(axis=0)
    return total.at[bins.lower[-1]].add(-word[-1] * repeats)
