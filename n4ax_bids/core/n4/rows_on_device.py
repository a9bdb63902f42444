"""The rows of a solve, found and laid out on the device that holds the image.

The host learns a few numbers, in one copy: how many rows contain voxels of the mask, and where
their columns begin and end. All else stays on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.rows import Layout, eighth, multiple
from n4ax_bids.core.n4.whole_rows import WholeRows

STEP = 16
"""columns; the length of a row is a multiple of it"""


class Grid(NamedTuple):
    """The samples of some images of one shape on their device, each (B, Z, Y, X)."""

    values: jax.Array
    """float32"""
    inside: jax.Array
    """bool"""
    weight: jax.Array | None
    """float32"""


class Seen(NamedTuple):
    """What the host must know of a grid before the solve."""

    n_voxels: int
    n_rows: int
    columns: tuple[int, int]
    """first and last + 1 of those that contain voxels of the mask"""
    low: float
    high: float
    """lowest and highest intensity inside the mask; NaN if a value or a weight is not finite"""
    odd_mask: bool
    """whether the mask has values that are not finite"""


@partial(jax.jit, static_argnames="plan")
def grid_of(images: Any, masks: Any, weights: Any, *, plan: Plan | None) -> tuple[Grid, jax.Array]:
    """Take the samples of images of one shape on their device.

    Parameters
    ----------
    images, masks, weights : tuples of arrays, or an array with one more axis, in front; the
        weights may be None, the masks only with a plan
    plan : that takes the samples; None: they are taken already

    Returns
    -------
    grid : Grid
    numbers : array (B, 7), float64; `seen` reads each row on the host
    """
    given = (
        jnp.stack(each) if isinstance(each, tuple) else each for each in (images, masks, weights)
    )
    return jax.vmap(partial(_grid_of, plan=plan))(*given)


def _grid_of(image: Any, mask: Any, weight: Any, *, plan: Plan | None) -> tuple[Grid, jax.Array]:
    """Take the samples of one image."""
    starts = plan and (plan.image_start, plan.mask_start, plan.weight_start)
    if plan and starts:
        mask = jnp.broadcast_to(True, plan.shape) if mask is None else mask
        given = zip((image, mask, weight), starts, strict=True)
        image, mask, weight = (None if a is None else plan.sample(a, at) for a, at in given)
    values = _in_three(image).astype(jnp.float32)
    mask = _in_three(mask)
    inside = mask != 0
    # NaN is not 0, so it would count as inside.
    odd_mask = ~jnp.isfinite(mask).all() if mask.dtype.kind == "f" else jnp.bool_(False)
    if weight is not None:
        weight = _in_three(weight).astype(jnp.float32)
        inside = inside & ~(weight <= 0)  # NaN stays inside and is refused later
    grid = Grid(values, inside, weight)
    return grid, _survey(grid, odd_mask)


def _in_three(array: jax.Array) -> jax.Array:
    """Return an array in raster order with three axes."""
    array = array.T
    return array if array.ndim == 3 else array[None]


def _survey(grid: Grid, odd_mask: jax.Array) -> jax.Array:
    """Return the numbers of `Seen` on the device."""
    values, inside, weight = grid
    columns = inside.any(axis=(0, 1))
    at = jnp.arange(columns.size)
    odd = ~jnp.isfinite(values) & inside
    if weight is not None:
        odd |= ~jnp.isfinite(weight) & inside
    bad = jnp.where(odd.any(), jnp.nan, 0.0)
    found = (
        jnp.count_nonzero(inside),
        jnp.count_nonzero(inside.any(axis=2)),
        jnp.where(columns, at, columns.size).min(),
        jnp.where(columns, at + 1, 0).max(),
        jnp.where(inside, values, jnp.float32(jnp.inf)).min() + bad,
        jnp.where(inside, values, -jnp.float32(jnp.inf)).max() + bad,
        odd_mask,
    )
    return jnp.stack([jnp.asarray(each, jnp.float64) for each in found])


def seen(numbers: np.ndarray) -> Seen:
    """Return what `grid_of` has found, from its numbers on the host."""
    n_voxels, n_rows, begin, end = map(int, numbers[:4])
    low, high = map(float, numbers[4:6])
    return Seen(n_voxels, n_rows, (begin, end), low, high, bool(numbers[6]))


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Return the layout for which the matrices are made; its rows have all columns of the grid.

    They are longer than the grid by what `sizes_of` may add at its end.
    """
    n0, n1, n2 = shape
    plane = (1 << (n0 - 1).bit_length(), 1 << (n1 - 1).bit_length())
    return Layout((n0, n1, n2), (0, n2), (*plane, multiple(n2 + STEP - 1, STEP)))


def sizes_of(found: Sequence[Seen]) -> tuple[int, int]:
    """Return how many rows, and of which length, the images of a batch are padded to."""
    width = max(each.columns[1] - each.columns[0] for each in found)
    return eighth(max(each.n_rows for each in found) + 1), multiple(width, STEP)


def n_bytes(found: Seen, itemsize: int) -> int:
    """Return about how many bytes the program takes for its voxels."""
    n_rows, width = sizes_of([found])
    return n_rows * width * (4 * itemsize + 8)


@partial(jax.jit, static_argnames=("sizes", "dtype", "first"))
def lay_out(
    grid: Grid, number: Any, begin: Any, *, sizes: tuple[int, int], dtype: str, first: int
) -> WholeRows:
    """Lay out the rows that contain voxels of the mask.

    Parameters
    ----------
    grid : Grid
    number : of the image in it; an array (B,) gives a batch, whose arrays have one more axis
    begin : first column that contains voxels of the mask, of each image
    sizes : from `sizes_of`
    dtype : of the solve
    first : number of voxels that are searched for a rising run
    """

    def one(number: jax.Array, begin: jax.Array) -> WholeRows:
        own = jax.tree.map(lambda array: array[number], grid)
        return _laid_out(own, begin, sizes, dtype, first)

    return jax.vmap(one)(number, begin) if jnp.ndim(number) else one(number, begin)


def _laid_out(
    grid: Grid, begin: jax.Array, sizes: tuple[int, int], dtype: str, first: int
) -> WholeRows:
    """Lay out the rows of one image."""
    n0, n1, n2 = grid.inside.shape
    p0, p1, _ = layout_of(grid.inside.shape).sizes
    n_rows, width = sizes
    filled = grid.inside.any(axis=2)
    at = jnp.flatnonzero(filled, size=n_rows, fill_value=n0 * n1)
    is_row = at < n0 * n1
    columns = begin + jnp.arange(width)
    taken = jnp.minimum(at, n0 * n1 - 1)[:, None] * n2 + jnp.minimum(columns, n2 - 1)[None]

    def rows_of(array: jax.Array) -> jax.Array:
        return array.ravel().at[taken].get(mode="promise_in_bounds")

    inside = rows_of(grid.inside) & is_row[:, None] & (columns < n2)[None]
    values = rows_of(grid.values).astype(dtype)
    logs = jnp.where(values > 0, jnp.log(jnp.where(values > 0, values, 1)), values)
    z, y = jnp.divmod(at, n1)
    place = jnp.where(is_row, z * p1 + y, 0)
    row = jnp.full(p0 * p1, n_rows - 1, jnp.int32)
    row = row.at[jnp.where(is_row, place, p0 * p1)].set(
        jnp.arange(n_rows, dtype=jnp.int32), mode="drop"
    )
    # Each row has a voxel of the mask, so the first F voxels are in the first F rows.
    start = inside[:first].ravel()
    begins = jnp.flatnonzero(start, size=min(max(2, first), start.size), fill_value=inside.size)
    return WholeRows(
        jnp.where(inside, logs, jnp.nan),
        None if grid.weight is None else jnp.where(inside, rows_of(grid.weight), 0).astype(dtype),
        jnp.count_nonzero(inside),
        begins.astype(jnp.int32),
        place.astype(jnp.int32),
        row.reshape(p0, p1),
        jnp.asarray(begin, jnp.int32),
    )
