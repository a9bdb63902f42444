"""Programs compiled for an NVIDIA H200 on a machine that has none.

JAX's CUDA plug-in has to be installed. What the compiler would time on the device, it chooses by
rule here: which kernel a matrix product gets may differ there.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

NAME = "NVIDIA H200"
BANDWIDTH = 4.3e12
"""bytes a second that a copy reaches; the data sheet says 4.8e12"""
FIGURES = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_core": 228 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": (1 << 31) - 1,
    "block_dim_limit_y": (1 << 16) - 1,
    "block_dim_limit_z": (1 << 16) - 1,
    "memory_bandwidth": 4_800_000_000_000,
    "l2_cache_size": 50 << 20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 141 << 30,
    "registers_per_core_limit": 1 << 16,
    "registers_per_block_limit": 1 << 16,
}
"""of the data sheet and of CUDA's compute capability 9.0"""
PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
DUMP = {"xla_dump_hlo_as_text": True}
FIXED = {"xla_gpu_enable_triton_gemm": False}
"""Triton's products need sizes that are found by timing them on the device."""


class Compiled(NamedTuple):
    """A program as text."""

    hlo: str
    thunks: str
    """what the host starts, in order, as a tree"""
    temporary: int
    """bytes"""
    arguments: int
    """bytes"""


def missing() -> str | None:
    """Return why nothing can be compiled for a GPU; None if it can."""
    if importlib.util.find_spec("jax_plugins") and any(map(_is_there, PLUGINS)):
        return None
    return "JAX's CUDA plug-in is not installed; make kernels installs it into .venv-cuda"


def _is_there(plugin: str) -> bool:
    return importlib.util.find_spec(plugin) is not None


def compile_for_gpu(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any] | None = None,
) -> Compiled:
    """Compile a jitted function for the device.

    Parameters
    ----------
    function : from `jax.jit`
    arguments : trees of arrays, of which only shapes and types matter; what is not an array, but a
        number, is passed on
    options : of the compiler
    """
    place = SingleDeviceSharding(_topology().devices[0])
    with tempfile.TemporaryDirectory() as folder:
        given = {"xla_dump_to": folder, **DUMP, **FIXED, **(options or {})}
        lowered = function.trace(*jax.tree.map(_abstract(place), arguments)).lower(
            lowering_platforms=("cuda",)
        )
        made = lowered.compile(compiler_options=given)
        thunks = _newest(Path(folder))
    memory = made.memory_analysis()
    return Compiled(
        made.as_text(), thunks, memory.temp_size_in_bytes, memory.argument_size_in_bytes
    )


def _topology() -> Any:
    lines = [f"  {name}: {value}" for name, value in FIGURES.items()]
    capability = "major: 9 feature_extension: ACCELERATED_FEATURES"
    lines += [f"  cuda_compute_capability {{ {capability} }}"]
    lines += [f'  {name}: "{value}"' for name, value in _versions().items()]
    head = "\n".join(("gpu_device_info {", *lines, "}", 'platform_name: "CUDA"'))
    target = f'{head}\ndnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: "{NAME}"'
    return topologies.get_topology_desc(
        platform="cuda", target_config=target + "\n", topology="1x1x1"
    )


def _versions() -> dict[str, str]:
    cuda = dict.fromkeys(("runtime_version", "compile_time_toolkit_version"), "12.9.0")
    return {"driver_version": "13.0.0", "dnn_version": "9.10.0", **cuda}


def _abstract(place: SingleDeviceSharding) -> Callable[[Any], Any]:
    def one(value: Any) -> Any:
        if isinstance(value, (bool, int, float)):
            return value
        array = value if hasattr(value, "dtype") else np.asarray(value)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)

    return one


def _newest(folder: Path) -> str:
    """Return the last list of thunks that the compiler has written; the passes may change none."""
    for name in ("thunk_sequence_after_thunk_passes", "thunk_sequence"):
        found = [*folder.glob(f"*{name}.txt")]
        if found:
            return max(found, key=lambda path: path.stat().st_size).read_text(encoding="utf-8")
    raise FileNotFoundError("the compiler has written no list of thunks")
