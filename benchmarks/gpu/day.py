"""What the parts of a GPU day share: sizes, time that is left, clocks, and the file of results."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.options import PRESETS, N4Options

ROOT = Path(__file__).parents[2]


class Sizes(NamedTuple):
    """How large the work is."""

    shape: tuple[int, int, int]
    """of an image at full resolution"""
    semi_axes: tuple[float, float, float]
    """of the head in it, voxels"""
    small_shape: tuple[int, int, int]
    """of an image at shrink 4"""
    small_semi_axes: tuple[float, float, float]
    levels: tuple[int, ...]
    """iterations of a solve at full resolution"""
    batch: int
    """images in a batch"""
    repeats: int
    """warm calls of which the median is taken"""

    @property
    def full(self) -> N4Options:
        """Options of a solve at full resolution."""
        return N4Options(shrink_factor=1, n_iterations=self.levels)

    @property
    def fmriprep(self) -> N4Options:
        """Options of a solve with images that are shrunk already."""
        most = min(50, self.levels[0])
        return replace(PRESETS["fmriprep"], shrink_factor=1, n_iterations=(most,) * 5)


FULL = Sizes(
    shape=(256, 176, 256),
    semi_axes=(85, 70, 80),
    small_shape=(64, 44, 64),
    small_semi_axes=(21, 17, 20),
    levels=(50, 50, 30, 20),
    batch=16,
    repeats=7,
)
QUICK = Sizes(
    shape=(48, 36, 44),
    semi_axes=(19, 14, 17),
    small_shape=(16, 12, 16),
    small_semi_axes=(6, 5, 6),
    levels=(3, 3, 2, 2),
    batch=3,
    repeats=2,
)


@dataclass
class Day:
    """One run: what was asked for, what was found, and the time that is left."""

    quick: bool
    budget: float
    """seconds"""
    out: Path | None = None
    """file for the results, written again after every part"""
    found: dict[str, Any] = field(
        default_factory=lambda: {"parts": {}, "skipped": [], "failed": {}, "took": {}}
    )
    start: float = field(default_factory=time.perf_counter)
    deadline: float = np.inf
    """of the part that runs, by the clock of `start`"""

    @property
    def sizes(self) -> Sizes:
        return QUICK if self.quick else FULL

    @property
    def device(self) -> jax.Device:
        return jax.devices()[0]

    @property
    def on_gpu(self) -> bool:
        return self.device.platform != "cpu"

    def left(self) -> float:
        """Return the seconds that the budget still has."""
        return self.budget - (time.perf_counter() - self.start)

    def has_room(self, seconds: float) -> bool:
        """Say whether the part that runs has time for something more."""
        return min(self.left(), self.deadline - time.perf_counter()) > seconds

    def save(self) -> None:
        self.found["date"] = str(date.today())
        self.found["seconds"] = round(time.perf_counter() - self.start, 1)
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(as_json(self.found, indent=1), encoding="utf-8")

    def warm(self, call: Callable[[], Any], repeats: int | None = None) -> dict[str, float]:
        """Return milliseconds of a first call, and median, least and most of warm ones."""
        cold = _milliseconds(call)
        times = sorted(_milliseconds(call) for _ in range(repeats or self.sizes.repeats))
        return {
            "cold_ms": round(cold, 2),
            "median_ms": round(float(np.median(times)), 3),
            "min_ms": round(times[0], 3),
            "max_ms": round(times[-1], 3),
        }

    def memory(self) -> dict[str, int] | None:
        """Return what the device says of its memory."""
        known = self.device.memory_stats() if self.on_gpu else None
        names = ("peak_bytes_in_use", "bytes_in_use", "bytes_limit")
        return {name: known[name] for name in names if name in known} if known else None


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return 1000 * (time.perf_counter() - start)


def as_json(found: Any, indent: int | None = None) -> str:
    """Return results as JSON; numbers of numpy and jax become floats."""
    return json.dumps(found, indent=indent, default=float)


def digest(array: jax.Array | np.ndarray) -> str:
    """Return what two arrays share only if their bits are the same."""
    return hashlib.sha256(np.ascontiguousarray(np.asarray(array)).tobytes()).hexdigest()[:16]
