"""The compiled loop: for one image or a batch, for a CPU or as one CUDA graph on a GPU.

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
from n4ax_bids.core.n4.levels import Levels
from n4ax_bids.core.n4.residual import Numbers, Program
from n4ax_bids.core.n4.storage import Storage

ONE_GRAPH = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,"
    "DYNAMIC_SLICE_FUSION",
    "xla_gpu_graph_min_graph_size": 1,
}
"""options of the compiler"""


@partial(jax.jit, static_argnames="program")
def run(
    voxels: Storage, state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    """Iterate to the end of the last level, or until the host must decide how to continue."""
    return run_levels(voxels, jax.tree.map(jnp.asarray, state), levels, numbers, program)


@partial(jax.jit, static_argnames="program")
def run_batch(
    voxels: tuple[Storage, ...], state: State, levels: Levels, numbers: Numbers, program: Program
) -> State:
    """Run several images of equal sizes; the first axis of the state counts images.

    Images of one plan and layout share the levels; else their first axis counts images as well.
    If no statistic can end a level, the images share the counters: `level`, `iteration`, `waits`
    and `done` of the state then have no such axis.
    """
    state = jax.tree.map(jnp.asarray, state)
    apart = jax.tree.map(lambda _: 0, state)
    if not program.can_stop:
        apart = apart._replace(level=None, iteration=None, waits=None, done=None)
    shared = levels.values[0].ndim == 3
    each = jax.tree.map(lambda _: None if shared else 0, levels)._replace(max_iterations=None)
    mapped = jax.vmap(partial(run_levels, program=program), (0, apart, each, None), apart)
    return mapped(stacked(voxels), state, levels, numbers)


@lru_cache
def as_one_graph(compiled: Callable[..., State]) -> Callable[..., State]:
    """Return `run` or `run_batch` for a GPU, where the loops become one CUDA graph.

    The host then starts a whole solve at once and waits only for its end.
    """
    function: Any = compiled
    return jax.jit(function.__wrapped__, static_argnames="program", compiler_options=ONE_GRAPH)


def stacked(trees: Sequence[Any]) -> Any:
    """Stack the arrays of trees of equal structure: numpy's on the host, others on the device."""

    def stack(*leaves: Any) -> Any:
        on_host = all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
        return (np if on_host else jnp).stack(leaves)

    return jax.tree.map(stack, *trees)
