"""The compiled loop by itself: its arguments, taken from a real call, and its time.

The arguments are caught where the host hands them to the loop, so this module has to know only
the names of that loop: `solve.run` and `solve.run_batch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import target
from benchmarks.gpu.day import Day
from n4ax_bids.core.estimator import Estimate, Given
from n4ax_bids.core.n4 import solve as solving
from n4ax_bids.core.n4.compiled import SIDE_BY_SIDE, for_gpu
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.levels import counted
from n4ax_bids.core.n4.method import prepare
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options

SMALL_ZOOMS = (4.0, 4.0, 4.0)
"""mm, of an image at shrink 4"""


class _Caught(Exception):
    """Ends a call once the arguments of the loop are known."""


class Loop:
    """A solve whose arrays lie on the device: what the compiled loop alone takes.

    Parameters
    ----------
    day : Day
    image, mask : arrays
    options : N4Options
    on_device : find whole rows on the device instead of listing voxels on the host
    zooms : mm
    n : solve a batch of this many images alike
    """

    def __init__(
        self,
        day: Day,
        image: np.ndarray,
        mask: np.ndarray,
        options: N4Options,
        *,
        on_device: bool,
        zooms: Sequence[float] | None = None,
        n: int | None = None,
    ) -> None:
        self.day, self.n, self.n_levels = day, n, len(options.n_iterations)
        self.on_device = on_device
        self.compiled: Any = solving.run_batch if n else solving.run
        self.plan = made = plan(options, np.shape(image), zooms)
        if on_device:
            image, mask = jnp.asarray(image), jnp.asarray(mask)

        def call() -> None:
            if n:
                every = [image] * n, [mask] * n, [None] * n
                estimate_batch(*every, plans=[made] * n, on_device=on_device, together=True)
            else:
                estimate(image, mask, plan=made, on_device=on_device)

        rows, state, levels, self.numbers, self.program = _caught(call, batch=n is not None)
        with jax.enable_x64(True):
            self.rows, self.state, self.levels = jax.device_put(
                jax.tree.map(jnp.asarray, (rows, state, levels))
            )
        images = rows if isinstance(rows, list) else [rows]
        self.compiled = solving._for_device(images[0], self.compiled)
        self.n_voxels = sum(int(np.sum(np.asarray(each.n_voxels))) for each in images)
        self.n_iterations = sum(options.n_iterations)

    def run(self, function: Callable[..., Any] | None = None, most: int | None = None) -> Any:
        """Run the loop, or a function in its place, with as many iterations a level."""
        levels = self.levels
        if most is not None:
            levels = levels._replace(max_iterations=jnp.full(self.n_levels, most, jnp.int32))
        with jax.enable_x64(True):
            program = self.program
            if program.counted and most is not None:
                fewer = program.counted._replace(n_iterations=(most,) * self.n_levels)
                program = program._replace(counted=fewer)
            called = function or self.compiled
            return called(self.rows, self.state, levels, self.numbers, program)

    def fresh(self, compiler_options: dict[str, Any] | None = None) -> Callable[..., Any]:
        """Return the loop to be compiled anew, with what stands in place of its parts now."""
        loop = self.compiled.__wrapped__

        def again(rows, state, levels, numbers, program):
            return loop(rows, state, levels, numbers, program)

        options = compiler_options if self.day.on_gpu else None
        return jax.jit(again, static_argnames="program", compiler_options=options)

    def compiled_for_gpu(self) -> target.Compiled:
        """Return the loop as a GPU would run it, compiled without one."""
        known = self.on_device and not self.program.can_stop
        counts = counted(solving._fields(self.plan), self.levels) if known else None
        image = self.rows[0] if isinstance(self.rows, list) else self.rows
        n_values = math.prod(image.log_image.shape[-2:])
        loop, program = self.compiled.__wrapped__, for_gpu(self.program, n_values, counts)

        def whole(rows, state, levels, numbers):
            return loop(rows, state, levels, numbers, program)

        with jax.enable_x64(True):
            given = (self.rows, self.state, self.levels, self.numbers)
            return target.compile_for_gpu(jax.jit(whole), given, SIDE_BY_SIDE)

    def per_iteration(self, function: Callable[..., Any] | None = None) -> dict[str, float]:
        """Return microseconds of an iteration: a long run less a short one."""
        short, long = (1, 2) if self.day.quick else (2, 22)
        repeats = max(3, self.day.sizes.repeats)
        times = {
            n: self.day.warm(lambda n=n: self.run(function, n), repeats) for n in (short, long)
        }
        each = (times[long]["median_ms"] - times[short]["median_ms"]) / (long - short)
        return {
            "us_per_iteration": round(1000 * each / self.n_levels, 2),
            "cold_ms": times[short]["cold_ms"],
        }


def _caught(call: Callable[[], None], *, batch: bool) -> tuple[Any, ...]:
    """Return the arguments that a call hands to the compiled loop."""
    name = "run_batch" if batch else "run"
    caught: list[tuple[Any, ...]] = []

    def catch(*arguments: Any) -> None:
        caught.append(arguments)
        raise _Caught

    replaced = {name: catch, "_for_device": lambda voxels, compiled: compiled}
    before = {each: getattr(solving, each) for each in replaced}
    try:
        for each, function in replaced.items():
            setattr(solving, each, function)
        call()
    except _Caught:
        return caught[0]
    finally:
        for each, function in before.items():
            setattr(solving, each, function)
    raise AssertionError(f"the solve did not call {name}")


def shared(pairs: Sequence[tuple[Any, ...]], options: N4Options) -> list[Any]:
    """Return the lattices of images that are solved as in the App if they wait at one time."""
    given = (Given(image, mask, None, SMALL_ZOOMS) for image, mask in pairs)
    first, *others = (prepare(each, options).joint() for each in given)
    found = first.solve(others) if first else ()
    return [each.log_field.lattice for each in found if isinstance(each, Estimate)]
