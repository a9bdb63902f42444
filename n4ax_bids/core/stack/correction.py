"""What corrects a stack: fields, tables and gains, applied to any planes of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.field import LogField, Section, basis_matrices, plane_lattices
from n4ax_bids.core.stack.matching import Matching
from n4ax_bids.core.stack.samples import Thinning


class StackCorrection(NamedTuple):
    """Everything that is needed to correct any planes of a stack."""

    shape: tuple[int, int, int]
    """planes, rows, columns"""
    sections: tuple[Section, ...]
    """field of each section that was corrected on its own; none in the mode "global\""""
    whole: LogField | None
    """field of the whole stack; None in the mode "per_section\""""
    scales: np.ndarray
    """(planes,), factors that bring the sections to one scale; the field is divided by them"""
    matching: Matching | None
    gains: np.ndarray | None
    """(planes,), factors of tissue that smooth the profile along Z"""
    threshold: float
    """intensities above this are tissue"""
    strength: float
    thin_mask: np.ndarray
    """bool (planes, rows, columns) of the thinned stack, where the estimate looked"""
    how: Thinning
    notes: tuple[str, ...] = ()


class Corrected(NamedTuple):
    """Some planes of a stack."""

    image: np.ndarray
    """float32"""
    bias: np.ndarray
    """float32, the factor by which intensities were divided, without matching and gains"""


def correct_planes(
    planes: np.ndarray,
    done: StackCorrection,
    first: int,
    *,
    height: int | None = None,
    part: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> Corrected:
    """Correct consecutive planes; the answer does not depend on how many there are.

    Parameters
    ----------
    planes : array (planes, rows, columns)
    done : StackCorrection
    first : number of the first of these planes in the stack
    height : planes for which the division is compiled, at least as many as there are; slabs of
        one height share one program
    part : first and last + 1 of the rows and of the columns that `planes` holds; None: all
    """
    n = planes.shape[0]
    missing = max(n, height or n) - n
    with np.errstate(over="ignore"):
        values = np.asarray(planes, np.float32)
    if missing:
        values = np.concatenate([values, np.ones((missing, *values.shape[1:]), np.float32)])
    places = np.minimum(first + np.arange(n + missing), done.shape[0] - 1)
    corrected, bias = _corrected(
        values, _parts(done, places, part), _table(done, places), np.float32(done.strength)
    )
    return Corrected(np.asarray(corrected)[:n], np.asarray(bias)[:n])


def section_lattices(sections: tuple[Section, ...], places: np.ndarray) -> np.ndarray:
    """Return the lattice of each plane from the section that holds it."""
    found: np.ndarray | None = None
    for section in sections:
        mine = (places >= section.start) & (places < section.stop)
        if not mine.any():
            continue
        lattices = plane_lattices(section.log_field, places[mine] - section.start)
        if found is None:
            found = np.zeros((len(places), *lattices.shape[1:]), np.float32)
        found[mine] = lattices
    assert found is not None
    return found


class _Part(NamedTuple):
    """A field on some planes: a lattice for each of them, and the matrices of the plane."""

    lattices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


class _Table(NamedTuple):
    """What is done to the intensities of some planes before they are divided."""

    threshold: np.float32
    high: np.float32
    new: np.ndarray | None
    """(planes, bins + 1), intensities at the edges of the bins"""
    gains: np.ndarray
    scales: np.ndarray
    """ln of the factors"""


def _parts(
    done: StackCorrection,
    places: np.ndarray,
    part: tuple[tuple[int, int], tuple[int, int]] | None,
) -> tuple[_Part, ...]:
    parts = []
    box = [(0, 0), *(part or ((0, done.shape[1]), (0, done.shape[2])))]
    if done.sections:
        matrices = basis_matrices(done.sections[0].log_field, box)[1:]
        parts.append((section_lattices(done.sections, places), matrices))
    if done.whole is not None:
        matrices = basis_matrices(done.whole, box)[1:]
        parts.append((plane_lattices(done.whole, places), matrices))
    return tuple(_Part(lat, *(m.astype(np.float32) for m in both)) for lat, both in parts)


def _table(done: StackCorrection, places: np.ndarray) -> _Table:
    ones = np.ones(len(places), np.float32)
    gains = ones if done.gains is None else done.gains[places].astype(np.float32)
    scales = np.log(done.scales[places]).astype(np.float32)
    if done.matching is None:
        return _Table(np.float32(done.threshold), np.float32(np.inf), None, gains, scales)
    low, high, tables = done.matching
    return _Table(np.float32(low), np.float32(high), tables[places], gains, scales)


@jax.jit
def _corrected(
    values: jax.Array, parts: tuple[_Part, ...], table: _Table, strength: jax.Array
) -> tuple[jax.Array, jax.Array]:
    log_bias = jnp.broadcast_to(-table.scales[:, None, None], values.shape)
    for part in parts:
        lattices = jnp.asarray(part.lattices)
        on_columns = bspline.along(lattices, jnp.asarray(part.columns).T, 2)
        log_bias = log_bias + bspline.along(on_columns, jnp.asarray(part.rows).T, 1)
    bias = jnp.exp(log_bias)
    tissue = values > table.threshold
    prepared = jnp.where(tissue, _mapped(values, table) * table.gains[:, None, None], values)
    corrected = strength * (prepared / bias) + (1 - strength) * values
    return jnp.where(strength > 0, corrected, values), bias


def _mapped(values: jax.Array, table: _Table) -> jax.Array:
    """Map intensities by the table of their plane, linearly between the edges of its bins."""
    if table.new is None:
        return values
    n_bins = table.new.shape[1] - 1
    new = jnp.asarray(table.new)
    place = (values - table.threshold) * (n_bins / (table.high - table.threshold))
    place = jnp.clip(place, 0, n_bins)
    left = jnp.minimum(place.astype(jnp.int32), n_bins - 1)
    row = (jnp.arange(len(new), dtype=jnp.int32) * (n_bins + 1))[:, None, None]
    at_left, at_right = new.ravel()[left + row], new.ravel()[left + row + 1]
    mapped = at_left + (place - left) * (at_right - at_left)
    beyond = (new[:, -1] / table.high)[:, None, None]
    return jnp.where(values > table.high, values * beyond, mapped)


def enlarged(thin_mask: np.ndarray, done_shape: tuple[int, int, int], how: Thinning) -> np.ndarray:
    """Enlarge thinned planes of a mask: each voxel gets the value of the nearest sample.

    Parameters
    ----------
    thin_mask : bool array (planes, rows, columns), thinned
    done_shape : planes, rows and columns of the stack
    how : Thinning
    """
    rows, columns = (
        _nearest(n, positions) for n, positions in zip(done_shape[1:], how.positions, strict=True)
    )
    found: np.ndarray = thin_mask[:, rows[:, None], columns]
    return found


def _nearest(n: int, positions: np.ndarray) -> np.ndarray:
    between = (positions[1:] + positions[:-1]) / 2
    return np.searchsorted(between, np.arange(n))
