"""Holes and gaps of binary planes, 32 planes at a time.

Planes are packed: bit k of a word belongs to plane k, so that one operation on words works on 32
planes.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

LANES = 32
"""planes of a word"""


@jax.jit
def packed(values: jax.Array, threshold: np.float32) -> jax.Array:
    """Pack what is above a threshold (Z, Y, X) into words (W, Y, X).

    Bits beyond the last plane are 0.
    """
    mask = values > threshold
    n_words = -(-mask.shape[0] // LANES)
    bits = jnp.pad(mask, ((0, n_words * LANES - mask.shape[0]), (0, 0), (0, 0)))
    bits = bits.reshape(n_words, LANES, *mask.shape[1:]).astype(jnp.uint32)
    place = jnp.arange(LANES, dtype=jnp.uint32)[None, :, None, None]
    return (bits << place).sum(axis=1, dtype=jnp.uint32)


@partial(jax.jit, static_argnums=1)
def unpacked(words: jax.Array, n_planes: int) -> jax.Array:
    bits = jnp.arange(LANES, dtype=jnp.uint32)[None, :, None, None]
    planes = (words[:, None] >> bits) & 1
    return planes.reshape(-1, *words.shape[1:])[:n_planes] != 0


@partial(jax.jit, static_argnums=1)
def filled(words: jax.Array, on_gpu: bool) -> jax.Array:
    """Fill what no path through the background connects with the edge of its plane.

    The background is flooded from the edge in the four directions of the plane in turn, each as
    far as it goes, until nothing changes.
    """
    free = ~words
    n_y, n_x = words.shape[1:]
    edge = np.zeros((1, n_y, n_x), bool)
    edge[:, [0, -1]] = edge[:, :, [0, -1]] = True
    flood = _flood_by_doubling if on_gpu else _flood_row_by_row

    def spread(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        before, _ = state
        after = before
        for axis in (1, 2):
            for reverse in (False, True):
                after = flood(after, free, axis, reverse)
        return after, (after != before).any()

    outside = jnp.where(jnp.asarray(edge), free, jnp.uint32(0))
    outside, _ = jax.lax.while_loop(lambda state: state[1], spread, (outside, jnp.asarray(True)))
    return ~outside


def _flood_row_by_row(reached: jax.Array, free: jax.Array, axis: int, reverse: bool) -> jax.Array:
    """Let what is reached run along an axis through free pixels: one row after another."""

    def step(before: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        now = (row[0] | before) & row[1]
        return now, now

    rows = (jnp.moveaxis(reached, axis, 0), jnp.moveaxis(free, axis, 0))
    _, found = jax.lax.scan(step, jnp.zeros_like(rows[0][0]), rows, reverse=reverse)
    return jnp.moveaxis(found, 0, axis)


def _flood_by_doubling(reached: jax.Array, free: jax.Array, axis: int, reverse: bool) -> jax.Array:
    """The same in a logarithmic number of steps, each of which a GPU makes everywhere at once."""

    def joined(
        one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return other[0] | (one[0] & other[1]), one[1] & other[1]

    found, _ = jax.lax.associative_scan(joined, (reached, free), reverse=reverse, axis=axis)
    return found


@partial(jax.jit, static_argnums=1)
def closed(words: jax.Array, radius: int) -> jax.Array:
    """Close gaps of each plane by a disk; beyond the plane lies background."""
    return ~_dilated(~_dilated(words, radius), radius, beyond=True)


def _dilated(words: jax.Array, radius: int, beyond: bool = False) -> jax.Array:
    """Dilate each plane by a disk {dx² + dy² <= radius²}; `beyond` is the value outside."""
    n_y, n_x = words.shape[1:]
    outside = jnp.uint32(0xFFFFFFFF if beyond else 0)
    padded = jnp.pad(words, ((0, 0), (radius, radius), (radius, radius)), constant_values=outside)
    total = None
    widths = [int(np.floor(np.sqrt(radius**2 - dy**2))) for dy in range(radius + 1)]
    runs = {width: _run(padded, width) for width in sorted(set(widths))}
    for dy in range(-radius, radius + 1):
        run = runs[widths[abs(dy)]][:, radius + dy : radius + dy + n_y, radius : radius + n_x]
        total = run if total is None else total | run
    assert total is not None
    return total


def _run(words: jax.Array, width: int) -> jax.Array:
    """Dilate along X by `width` on both sides. The margin of the padding need not be right."""
    total = words
    for offset in range(1, width + 1):
        total = total | jnp.roll(words, offset, 2) | jnp.roll(words, -offset, 2)
    return total
