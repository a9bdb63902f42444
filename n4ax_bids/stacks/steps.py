"""The steps of `stream`: plan, read and thin, estimate, correct slab by slab."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from n4ax_bids.core.stack.call import require_stack_options, voxel_sizes
from n4ax_bids.core.stack.correction import StackCorrection, correct_planes, enlarged
from n4ax_bids.core.stack.estimate import estimate_stack, stack_of, thin_tissue_mask
from n4ax_bids.core.stack.levels import OnLevel, on_level, spacing
from n4ax_bids.core.stack.samples import Thinning, thinned, thinning
from n4ax_bids.options import StackOptions
from n4ax_bids.planes.base import Sink, Source
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices
from n4ax_bids.runtime.timing import timed
from n4ax_bids.stacks.files import close, open_source
from n4ax_bids.stacks.journal import Journal

Progress = Callable[[str, int, int], None]
"""Called with the step ("read", "matching", "sections", "whole stack", "correct"), the planes that
are done and their number."""

PER_VOXEL = 44
"""bytes per voxel of a slab that is corrected, besides those of the source's own type; measured"""
SHARE = 0.6
"""share of the budget that a slab takes; the rest is for the thinned planes and the solve"""
SHARE_OF_CHUNKS = 0.1
"""share of the budget that chunks take while they are decoded and encoded"""
SHARE_OF_SOLVE = 0.6
"""share of the budget that the voxels of a solve take; N4 then works through them in parts"""


class StreamPlan(NamedTuple):
    """A checked call."""

    source: Source
    mask: Source | None
    tissue: bool
    """whether the tissue has to be found"""
    options: StackOptions
    zooms: tuple[float, float, float]
    how: Thinning
    budget: float
    """bytes"""
    level: Source | None = None
    """level of a pyramid that the estimate reads; None: the source itself"""
    on: OnLevel | None = None
    """how that level is thinned"""

    @property
    def n_bytes(self) -> int:
        """Size of the stack in float32."""
        n_z, n_y, n_x = self.source.shape
        return 4 * n_z * n_y * n_x

    def height(self, per_voxel: float, source: Source | None = None) -> int:
        """Return how many planes of the source, or of one of its levels, fit into a slab."""
        source = source or self.source
        plane = source.shape[1] * source.shape[2]
        most = int(SHARE * self.budget // (plane * per_voxel))
        height = max(1, min(most, self.source.shape[0]))
        whole = int(getattr(source, "slab", 1))
        return height - height % whole if height > whole else height


def plan_stream(vol: Any, mask: Any, sizes: Any, options: Any, memory_gb: float) -> StreamPlan:
    """Check what is read and how."""
    options = require_stack_options(options)
    if not (isinstance(memory_gb, int | float) and 0 < memory_gb < 1e6):
        raise ValueError(f"memory_gb is {memory_gb!r}; expected a positive number")
    source = open_source(vol)
    zooms = voxel_sizes(source.zooms or (1.0,) * 3 if sizes is None else sizes)
    inside = None
    if mask is not None and not isinstance(mask, str) or isinstance(mask, str) and _is_file(mask):
        inside = open_source(mask, "mask")
        if inside.shape != source.shape:
            raise ValueError(
                f"{inside.name} has shape {inside.shape}; expected the stack's {source.shape}"
            )
    elif mask not in (None, "tissue"):
        raise ValueError(
            f"mask is {mask!r}; expected 'tissue', None, an array or the path of an existing file"
        )
    how = thinning(options, source.shape, zooms)
    tissue = inside is None and mask is not None
    level, on = _nearest_level(source, options, how)
    if on is not None:
        how = on.how
    budget = memory_gb * 1e9
    for each in (source, level, inside):
        limit_chunks(each, budget)
    return StreamPlan(source, inside, tissue, options, zooms, how, budget, level, on)


def limit_chunks(stack: Any, budget: float) -> None:
    """Limit what reading or writing takes besides planes, where the stack is stored in chunks."""
    limit = getattr(stack, "limit", None)
    if limit is not None:
        limit(SHARE_OF_CHUNKS * budget)


def _nearest_level(
    source: Source, options: StackOptions, how: Thinning
) -> tuple[Source | None, OnLevel | None]:
    """Return the level of a pyramid that is nearest to the wanted distance of samples."""
    found = []
    for level in getattr(source, "levels", tuple)():
        its = on_level(options, how, source.shape, level.source.shape, level.factors, level.first)
        if its is not None:
            found.append((level.source, its))
    return max(found, key=lambda each: spacing(each[1]), default=(None, None))


def _is_file(word: str) -> bool:
    """Return whether a word for a mask is the path of one."""
    return word != "tissue" and Path(word).exists()


def estimated(
    plan: StreamPlan, where: jax.Device, tell: Progress, seconds: dict[str, float]
) -> StackCorrection:
    """Thin the planes and estimate the correction from them; after an error, close the inputs."""
    try:
        return _estimated(plan, where, tell, seconds)
    except BaseException:
        for each in (plan.source, plan.level, plan.mask):
            close(each)
        raise


def _estimated(
    plan: StreamPlan, where: jax.Device, tell: Progress, seconds: dict[str, float]
) -> StackCorrection:
    with timed(seconds, "read"):
        thin, means, inside = thinned_stack(plan, tell)
    n = plan.source.shape[0]
    with timed(seconds, "estimate"), devices.use(where), compilation.kept():
        if inside is None:
            inside = thin_tissue_mask(thin if means is None else means, plan.how, plan.options)
        del means
        _return_memory()
        stack = stack_of(thin, inside, plan.source.shape, plan.zooms, plan.how)
        memory = None if where.platform != "cpu" else int(SHARE_OF_SOLVE * plan.budget)

        def say(step: str) -> None:
            _return_memory()
            tell(step, n, n)

        try:
            return estimate_stack(stack, plan.options, say, memory=memory)
        except ValueError as error:
            raise ValueError(f"{plan.source.name}: {error}") from error


def thinned_stack(
    plan: StreamPlan, tell: Progress
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Read the stack once; return its samples, means for the mask, and a given mask."""
    n, how = plan.source.shape[0], plan.how
    thin = np.empty((n, *how.shape), np.float32)
    blocks = (how.blocks[0].n, how.blocks[1].n)
    means = np.empty((n, *blocks), np.float32) if plan.tissue and not how.means else None
    inside = None if plan.tissue else np.ones(thin.shape, bool)
    source, grid = plan.level or plan.source, plan.on.grid if plan.on else how
    places = plan.on.planes if plan.on else np.arange(n)
    height = plan.height(2 * source.dtype.itemsize + 8, source)
    for start in range(0, n, height):
        part = slice(start, min(start + height, n))
        first, last = int(places[part.start]), int(places[part.stop - 1])
        slab = source.read(first, last + 1)
        thin[part] = thinned(slab, grid, means=grid.means)[places[part] - first]
        if means is not None:
            means[part] = thinned(slab, how, means=True)
        del slab
        if plan.mask is not None and inside is not None:
            shares = thinned(plan.mask.read(part.start, part.stop) != 0, how, means=how.means)
            inside[part] = shares >= 0.5
        trim()
        tell("read", part.stop, n)
    odd = ~np.isfinite(thin)
    if odd.any():
        where = tuple(int(i) for i in np.argwhere(odd)[0])
        raise ValueError(
            f"{source.name} has values that are not finite, the first in plane {where[0]}; "
            "expected numbers (set them to 0)"
        )
    return thin, means, inside


def correct_slabs(
    plan: StreamPlan,
    done: StackCorrection,
    sinks: tuple[Sink, Sink | None],
    journal: Journal | None,
    span: tuple[int, int],
    tell: Progress,
) -> None:
    """Read, correct and write one slab after the other."""
    first, last = span
    _return_memory()
    height = plan.height(plan.source.dtype.itemsize + PER_VOXEL)
    for start in range(first, last, height):
        stop = min(start + height, last)
        slab = plan.source.read(start, stop)
        corrected, bias = correct_planes(slab, done, start, height=min(height, last - first))
        del slab
        if plan.options.zero_outside:
            corrected = np.where(_inside(plan, done, start, stop), corrected, np.float32(0))
        sinks[0].write(start, corrected)
        if sinks[1] is not None:
            sinks[1].write(start, bias)
        for sink in sinks:
            if sink is not None:
                sink.flush()
        del corrected, bias
        trim()
        if journal:
            journal.note(stop)
        tell("correct", stop, plan.source.shape[0])


def _return_memory() -> None:
    """Give the system back what the estimate has freed; the C library would keep it."""
    gc.collect()
    trim()


def trim() -> None:
    """Let the C library return what threads have freed, such as those that decode chunks."""
    with suppress(AttributeError, OSError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


def _inside(plan: StreamPlan, done: StackCorrection, start: int, stop: int) -> np.ndarray:
    if plan.mask is not None:
        return plan.mask.read(start, stop) != 0
    return enlarged(done.thin_mask[start:stop], done.shape, done.how)
