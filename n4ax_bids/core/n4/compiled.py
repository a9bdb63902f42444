"""The compiled loop, for one image or a batch.

These functions run inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.n4.iterate import State, run_levels
from n4ax_bids.core.n4.levels import Counted, Levels
from n4ax_bids.core.n4.residual import Numbers, Program
from n4ax_bids.core.n4.storage import Storage
from n4ax_bids.core.n4.whole_rows import WholeRows

GPU_COPIES, PER_COPY = (16, 256), 4096
"""fewest and most copies of the histogram on a GPU, and values for each one
(docs/benchmarks/gpu.md)"""


SIDE_BY_SIDE = {"xla_gpu_command_buffer_scheduling_mode": "CONCURRENT"}
"""option of the compiler: kernels of a CUDA graph that do not need each other run side by side"""


@partial(jax.jit, static_argnames="program")
def run(
    voxels: Storage, state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    """Iterate to the end of the last level, or until the host must decide how to continue."""
    return run_levels(voxels, jax.tree.map(jnp.asarray, state), levels, numbers, program)


@partial(jax.jit, static_argnames="program")
def run_batch(
    voxels: WholeRows | list[Storage],
    state: State,
    levels: Levels,
    numbers: Numbers,
    program: Program,
) -> State:
    """Run several images of equal sizes; the first axis of the state counts images.

    The voxels are given one by one, or as whole rows with the same axis in front. Images of one
    plan and layout share the levels; else their first axis counts images as well. If no statistic
    can end a level, the images share the counters: `level`, `iteration`, `waits` and `done` of
    the state then have no such axis.
    """
    state = jax.tree.map(jnp.asarray, state)
    apart = jax.tree.map(lambda _: 0, state)
    if not program.can_stop:
        apart = apart._replace(level=None, iteration=None, waits=None, done=None)
    shared = levels.values[0].ndim == 3
    each = jax.tree.map(lambda _: None if shared else 0, levels)._replace(max_iterations=None)
    mapped = jax.vmap(partial(run_levels, program=program), (0, apart, each, None), apart)
    together = stacked(voxels) if isinstance(voxels, list) else voxels
    return mapped(together, state, levels, numbers)


@lru_cache
def on_gpu(compiled: Callable[..., State]) -> Callable[..., State]:
    """Return `run` or `run_batch` with the options of the compiler that pay on a GPU."""
    function: Any = compiled
    return jax.jit(
        function.__wrapped__, static_argnames="program", compiler_options=_accepted_options()
    )


@lru_cache
def _accepted_options() -> dict[str, str]:
    """Return the options, or none if this version of the compiler does not know them."""
    try:
        jax.jit(jnp.negative, compiler_options=SIDE_BY_SIDE)(np.float32(1)).block_until_ready()
    except Exception:  # which error it is depends on the version
        return {}
    return SIDE_BY_SIDE


def for_gpu(program: Program, n_values: int, counted: Counted | None = None) -> Program:
    """Return how a program is compiled for a GPU.

    Numbers of iterations that the compiler knows cost a program for each set of them; on a CPU
    they gain nothing.
    """
    fewest, most = GPU_COPIES
    copies = min(most, max(fewest, 1 << (n_values // PER_COPY).bit_length()))
    return program._replace(copies=copies, counted=counted)


def stacked(trees: Sequence[Any]) -> Any:
    """Stack the arrays of trees of equal structure: numpy's on the host, others on the device."""

    def stack(*leaves: Any) -> Any:
        on_host = all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
        return (np if on_host else jnp).stack(leaves)

    return jax.tree.map(stack, *trees)
