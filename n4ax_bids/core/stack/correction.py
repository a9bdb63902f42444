"""What corrects a stack: fields, tables and gains, applied to any planes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.field import LogField, Section, basis_matrices, plane_lattices
from n4ax_bids.core.stack.matching import Matching
from n4ax_bids.core.stack.samples import Thinning

SLAB = 1 << 20
"""voxels corrected at a time: larger arrays would be new memory each time, and filling that takes
as long as the division"""
GROUP = 64
"""rows that are evaluated together, from the control points near them"""


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
    height : the most planes of any call for this stack; slabs of one height share one program
    part : first and last + 1 of the rows and of the columns that `planes` holds; None: all
    """
    n = planes.shape[0]
    found = Corrected(*(np.empty(planes.shape, np.float32) for _ in range(2)))
    at_once = max(1, min(max(n, height or n), SLAB // max(1, planes[0].size)))
    parts = _parts(done, part)
    for start in range(0, n, at_once):
        here = slice(start, min(start + at_once, n))
        with np.errstate(over="ignore"):
            values = np.asarray(planes[here], np.float32)
        missing = at_once - len(values)
        if missing:
            values = np.concatenate([values, np.ones((missing, *values.shape[1:]), np.float32)])
        places = np.minimum(first + start + np.arange(at_once), done.shape[0] - 1)
        lattices = _lattices(done, places)
        corrected, bias = _corrected(
            values, lattices, parts, _table(done, places), np.float32(done.strength)
        )
        found.image[here] = np.asarray(corrected)[: len(values) - missing]
        found.bias[here] = np.asarray(bias)[: len(values) - missing]
    return found


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
    """The matrices of a field in the plane."""

    rows: np.ndarray
    """(groups, rows of a group, control points that weigh there)"""
    points: np.ndarray
    """(groups, control points that weigh there), int32, which these are"""
    columns: np.ndarray
    """(columns, control points)"""


class _Table(NamedTuple):
    """What is done to the intensities of some planes before they are divided."""

    threshold: np.float32
    high: np.float32
    new: np.ndarray | None
    """(planes, bins + 1), intensities at the edges of the bins"""
    gains: np.ndarray
    """(planes,)"""
    scales: np.ndarray
    """(planes,), ln of the factors"""


def _parts(
    done: StackCorrection, part: tuple[tuple[int, int], tuple[int, int]] | None
) -> tuple[_Part, ...]:
    box = [(0, 0), *(part or ((0, done.shape[1]), (0, done.shape[2])))]
    fields = [section.log_field for section in done.sections[:1]]
    fields += [] if done.whole is None else [done.whole]
    parts = []
    for field in fields:
        rows, columns = (m.astype(np.float32) for m in basis_matrices(field, box)[1:])
        parts.append(_Part(*_grouped(rows), columns))
    return tuple(parts)


def _grouped(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of each group of rows, and the few control points that have any there."""
    n, m = matrix.shape
    groups = [matrix[start : start + GROUP] for start in range(0, n, GROUP)]
    used = [np.flatnonzero(group.any(axis=0)) for group in groups]
    width = max(int(each[-1] - each[0]) + 1 for each in used)
    weights = np.zeros((len(groups), len(groups[0]), width), np.float32)
    points = np.empty((len(groups), width), np.int32)
    for k, (group, its) in enumerate(zip(groups, used, strict=True)):
        first = min(int(its[0]), m - width)
        points[k] = np.arange(first, first + width)
        weights[k, : len(group)] = group[:, first : first + width]
    return weights, points


def _lattices(done: StackCorrection, places: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the lattices of some planes, for each field an array (planes, m_1, m_2)."""
    sections = (section_lattices(done.sections, places),) if done.sections else ()
    return sections + (() if done.whole is None else (plane_lattices(done.whole, places),))


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
    values: jax.Array,
    lattices: tuple[jax.Array, ...],
    parts: tuple[_Part, ...],
    table: _Table,
    strength: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Correct planes one after the other, while they are in the processor's cache."""

    def of_plane(one: Any) -> tuple[jax.Array, jax.Array]:
        values, lattices, new, gain, scale = one
        log_bias = jnp.broadcast_to(-scale, values.shape)
        for lattice, part in zip(lattices, parts, strict=True):
            log_bias = log_bias + _on_plane(lattice, part)[: len(values)]
        bias = jnp.exp(log_bias)
        tissue = values > table.threshold
        prepared = jnp.where(tissue, _mapped(values, new, table) * gain, values)
        corrected = strength * (prepared / bias) + (1 - strength) * values
        return jnp.where(strength > 0, corrected, values), bias

    planes = (values, lattices, table.new, table.gains, table.scales)
    return jax.lax.map(of_plane, planes)


def _on_plane(lattice: jax.Array, part: _Part) -> jax.Array:
    """Evaluate the lattice of a plane; rows are filled up to a whole number of groups."""
    on_columns = bspline.along(lattice, jnp.asarray(part.columns).T, 1)
    found = jax.lax.dot_general(
        jnp.asarray(part.rows),
        on_columns[jnp.asarray(part.points)],
        (((2,), (1,)), ((0,), (0,))),
        precision=jax.lax.Precision.HIGHEST,
    )
    return found.reshape(-1, found.shape[2])


def _mapped(values: jax.Array, new: jax.Array | None, table: _Table) -> jax.Array:
    """Map intensities by the table of their plane, linearly between the edges of its bins."""
    if new is None:
        return values
    n_bins = len(new) - 1
    place = (values - table.threshold) * (n_bins / (table.high - table.threshold))
    place = jnp.clip(place, 0, n_bins)
    left = jnp.minimum(place.astype(jnp.int32), n_bins - 1)
    at_left, at_right = new[left], new[left + 1]
    mapped = at_left + (place - left) * (at_right - at_left)
    return jnp.where(values > table.high, values * (new[-1] / table.high), mapped)


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
