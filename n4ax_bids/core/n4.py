"""N4 bias field correction (Tustison et al. 2010), with the numbers of ITK's implementation.

v = ln(intensity) = u + b: u is sharp, b a smooth spline. Each iteration sharpens what is left,
fits a lattice to what the sharpening took away and adds it to the field; each level halves the
knot spacing. Facts and roundings: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline, convergence, sharpen
from n4ax_bids.core.field import LogField, basis_matrices, divide
from n4ax_bids.core.plan import Plan, plan
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options


class N4Result(NamedTuple):
    """The field and how the solve went."""

    log_field: LogField
    """on the grid of the full image"""
    n_iterations: tuple[int, ...]
    """iterations done at each level"""
    convergence: tuple[float, ...]
    """last value of the stopping statistic at each level; NaN where no iteration was asked for"""
    converged: tuple[bool, ...]
    """whether a level ended because that value was not above the threshold"""
    n_voxels: int
    """voxels that took part, after shrinking"""


class _Grid(NamedTuple):
    """What stays the same over the levels, on the shrunk grid in raster order (first axis last)."""

    log_image: jax.Array
    mask: jax.Array
    weight: jax.Array
    n_voxels: jax.Array
    raster: jax.Array
    """raster index of each mask voxel in turn, filled up with the grid's size"""


class _State(NamedTuple):
    """One level's loop."""

    iteration: jax.Array
    lattice: jax.Array
    previous: jax.Array
    """the lattice before the last iteration"""
    bias: jax.Array
    change: jax.Array
    """the exact convergence statistic of the last iteration"""


class _Numbers(NamedTuple):
    """Options that may change without compiling again."""

    max_iterations: int
    stop_at: float
    """the loop ends when the exact statistic is not above this"""
    fwhm: float
    noise: float
    over_relaxation: float


def n4(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | str | None = "otsu",
    weight: jax.Array | np.ndarray | None = None,
    *,
    zooms: Sequence[float] | None = None,
    options: N4Options | None = None,
    return_bias: bool = False,
):
    """Correct the bias field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), intensities; axes in NIfTI order
    mask : array like `image` (non-zero = inside), "otsu" for the voxels above Otsu's threshold,
        or None for all voxels (as the ANTs program without a mask)
    weight : array like `image`, confidence of each voxel; voxels with weight <= 0 take no part
    zooms : voxel size of each axis in mm, 1 where not given; matters with a spline distance only
    options : N4Options, the ANTs program's defaults where not given
    return_bias : also return the field

    Returns
    -------
    corrected : float32 array like `image`, image / exp(log_bias) at every voxel, also outside the
        mask; a jax array if `image` is one, else numpy
    log_bias : float32 array like `image`, ln of the field; only with `return_bias`

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, the mask is empty or the image is constant in it.

    References
    ----------
    N. J. Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE Trans Med Imaging 29(6),
    2010, doi 10.1109/TMI.2010.2046908.
    """
    if isinstance(mask, str):
        if mask != "otsu":
            raise ValueError(f"mask is {mask!r}; expected an array, 'otsu' or None")
        mask = otsu_mask(image)
    solved = plan(options or N4Options(), np.shape(image), zooms)
    result = estimate(image, mask, weight, plan=solved)
    corrected, log_bias = divide(image, result.log_field)
    return (corrected, log_bias) if return_bias else corrected


def estimate(
    image: jax.Array | np.ndarray,
    mask: jax.Array | np.ndarray | None = None,
    weight: jax.Array | np.ndarray | None = None,
    *,
    plan: Plan,
) -> N4Result:
    """Estimate the log field of an image.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), full resolution
    mask : array like `image`, non-zero = inside; None for all voxels
    weight : array like `image`, or None for equal weights
    plan : Plan for the image's shape

    Raises
    ------
    ValueError
        As `n4`.
    """
    options = plan.options
    dtype = np.dtype(options.precision)
    with jax.enable_x64(True):
        grid = _grid(image, mask, weight, plan, dtype)
        field = _first_field(plan, dtype)
        bias = jnp.zeros(grid.log_image.shape, dtype)
        done, values, ended = [], [], []
        for level, most in enumerate(options.n_iterations):
            if level and options.refine:
                field = _refined(field)
            field, bias, n, value = _level(grid, field, bias, most, options)
            done.append(n)
            values.append(value)
            ended.append(most > 0 and value <= options.convergence_threshold)
        axes = [axis.image for axis in plan.axes]
        scale = (field.lattice.shape[-1] - field.order) / (
            plan.n_control_points[0] - field.order
        )
        first, step, clamp = (tuple(v * scale for v in column) for column in zip(*axes))
        log_field = LogField(np.asarray(field.lattice).T, field.order, first, step, clamp)
    return N4Result(log_field, tuple(done), tuple(values), tuple(ended), int(grid.n_voxels))


def _grid(image, mask, weight, plan: Plan, dtype: np.dtype) -> _Grid:
    """Check the arrays and take the voxels that the solve sees, in raster order."""
    for name, array in (("image", image), ("mask", mask), ("weight", weight)):
        if array is not None and tuple(array.shape) != plan.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; expected the image's {plan.shape}"
            )
    # ITK reads every pixel type into float32, whatever the solve's precision.
    values = _samples(plan, image, plan.image_start, dtype)
    if mask is None:
        mask = np.broadcast_to(np.True_, plan.shape)
    inside = np.asarray(plan.sample(mask, plan.mask_start)).T != 0
    weights = inside.astype(dtype)
    if weight is not None:
        weights = _samples(plan, weight, plan.weight_start, dtype)
        inside = inside & (weights > 0)
        weights = np.where(inside, weights, 0)
    taken = values[inside]
    if taken.size == 0:
        raise ValueError(f"no voxel of {values.size} takes part: mask or weight is empty there")
    if not np.isfinite(taken).all() or not np.isfinite(weights).all():
        raise ValueError("image or weight has values inside the mask that are not finite")
    if taken.min() == taken.max():
        raise ValueError(f"image is constant ({taken[0]}) inside the mask; expected contrast")
    positive = values > 0
    log_image = np.where(positive, np.log(np.where(positive, values, 1)), values)
    raster = np.full(values.size, values.size, np.int32)
    raster[: taken.size] = np.flatnonzero(inside)
    return _Grid(
        *map(jnp.asarray, (np.where(inside, log_image, 0), inside, weights)),
        jnp.asarray(taken.size),
        jnp.asarray(raster),
    )


def _samples(plan: Plan, array, start: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.asarray(plan.sample(array, start)).T.astype(np.float32).astype(dtype)


def _first_field(plan: Plan, dtype: np.dtype) -> LogField:
    """A zero field on the shrunk grid at the first level, axes in raster order."""
    first, step, clamp = zip(*(axis.sample for axis in reversed(plan.axes)))
    lattice = jnp.zeros(plan.n_control_points[::-1], dtype)
    return LogField(lattice, plan.options.bspline_order, first, step, clamp)


def _refined(field: LogField) -> LogField:
    """The same function with twice the spans."""
    twice = [tuple(2 * v for v in values) for values in (field.first, field.step, field.clamp)]
    return LogField(bspline.refine(field.lattice, field.order), field.order, *twice)


def _level(
    grid: _Grid, field: LogField, bias: jax.Array, most: int, options: N4Options
) -> tuple[LogField, jax.Array, int, float]:
    """Run one fitting level: the field, ln b on the grid, iterations and last statistic.

    The loop is compiled and ends by itself; only where ITK's own statistic might end it does it
    come back to the host, which decides and sends it on.
    """
    if most == 0:
        return field, bias, 0, float("nan")
    dtype = field.lattice.dtype
    shape = grid.log_image.shape
    matrices = basis_matrices(field, [(0, n) for n in shape])
    numerators, denominators = zip(*map(bspline.fit_matrices, matrices))
    matrices, numerators, denominators = (
        tuple(jnp.asarray(m, dtype) for m in group)
        for group in (matrices, numerators, denominators)
    )
    threshold = options.convergence_threshold
    by_itk = options.convergence_statistic == "itk" and threshold > convergence.NO_STOP
    fwhm, noise, n_bins = options.histogram_sharpening
    numbers = _Numbers(
        max_iterations=most,
        stop_at=threshold * convergence.MARGIN if by_itk else threshold,
        fwhm=fwhm,
        noise=noise,
        over_relaxation=options.over_relaxation,
    )
    state = _State(jnp.asarray(0), field.lattice, field.lattice, bias, jnp.asarray(np.inf))
    run = partial(
        _run,
        n_bins=n_bins,
        can_stop=threshold > convergence.NO_STOP,
        skip_rising=options.itk_version == "5",
    )
    while True:
        state, change = run(grid, state, matrices, numerators, denominators, numbers)
        value, n = float(change), int(state.iteration)
        if by_itk and value <= numbers.stop_at:
            value = convergence.itk(_last_difference(grid, state, matrices))
            if n < most and value > threshold:
                continue
        return field._replace(lattice=state.lattice), state.bias, n, value


@partial(jax.jit, static_argnames=("n_bins", "can_stop", "skip_rising"))
def _run(
    grid, state, matrices, numerators, denominators, numbers, *, n_bins, can_stop, skip_rising
):
    """Iterate until the last iteration or until the exact statistic is not above `stop_at`."""
    weight_sum = bspline.contract(grid.weight, denominators)

    def goes_on(state):
        return (state.iteration < numbers.max_iterations) & (state.change > numbers.stop_at)

    def iterate(state):
        view = grid.log_image - state.bias
        residual = _residual(grid, view, numbers, n_bins, skip_rising)
        update = bspline.fit(grid.weight * residual, weight_sum, numerators)
        lattice = state.lattice + update * numbers.over_relaxation
        bias = bspline.expand(lattice, matrices)
        change = state.change
        if can_stop:
            change = convergence.exact(state.bias - bias, grid.mask, grid.n_voxels)
        return _State(state.iteration + 1, lattice, state.lattice, bias, change)

    state = jax.lax.while_loop(goes_on, iterate, state._replace(change=jnp.asarray(np.inf)))
    difference = bspline.expand(state.previous, matrices) - state.bias
    return state, convergence.exact(difference, grid.mask, grid.n_voxels)


def _residual(grid: _Grid, view: jax.Array, numbers: _Numbers, n_bins: int, skip_rising: bool):
    """What the sharpening takes away from each voxel: v - E(u|v); 0 outside the mask."""
    infinity = jnp.asarray(np.inf, view.dtype)
    v_max = jnp.where(grid.mask, view, -infinity).max()
    v_min = jnp.where(grid.mask, view, infinity).min()
    if skip_rising:
        v_min = _minimum_after_rise(grid, view, v_min)
    width = (v_max - v_min).astype(jnp.float64)
    slope = (width / (n_bins - 1)).astype(view.dtype)
    flat = slope <= 0
    slope = jnp.where(flat, 1, slope)
    bins, offset = sharpen.bin_position(view, v_min, slope)
    counts = sharpen.histogram(bins, offset, grid.mask, n_bins)
    expected = sharpen.sharpening_map(
        counts, v_min, slope, fwhm=numbers.fwhm, noise=numbers.noise
    )
    residual = view - sharpen.sharpened(bins, offset, expected)
    return jnp.where(grid.mask & ~flat, residual, 0)


def _minimum_after_rise(grid: _Grid, view: jax.Array, v_min: jax.Array) -> jax.Array:
    """The minimum as ITK 5 finds it: values of a rising run at the very start never count.

    Its scan asks "new maximum?" and only else "new minimum?" (n4-reference §4.1).
    """
    block = min(256, view.size)
    values = view.ravel()

    def next_in_order(start):
        places = jnp.clip(start + jnp.arange(block + 1), 0, view.size - 1)
        return values.at[grid.raster[places]].get(mode="clip")

    def rises(start):
        here = next_in_order(start)
        return jnp.where(here[1:] > here[:-1], 0, 1).argmax(), (here[1:] > here[:-1]).all()

    def look(carry):
        start, _, _ = carry
        length, whole = rises(start)
        step = jnp.where(whole, block, length)
        return start + step, whole, (start + step + 1).astype(jnp.int64)

    def more(carry):
        start, whole, _ = carry
        return whole & (start + 1 < grid.n_voxels)

    start = jnp.zeros((), jnp.int64)
    _, _, after = jax.lax.while_loop(more, look, (start, jnp.asarray(True), start))
    first = grid.raster[jnp.minimum(after, view.size - 1)]
    place = jax.lax.broadcasted_iota(jnp.int32, (view.size,), 0).reshape(view.shape)
    infinity = jnp.asarray(np.inf, view.dtype)
    later = jnp.where(grid.mask & (place >= first), view, infinity).min()
    return jnp.where((after < grid.n_voxels) & jnp.isfinite(later), later, v_min)


@jax.jit
def _difference(state, matrices):
    return bspline.expand(state.previous, matrices) - state.bias


def _last_difference(grid: _Grid, state: _State, matrices) -> np.ndarray:
    """ln b before minus after the last iteration, of the mask's voxels in raster order."""
    difference = np.asarray(_difference(state, matrices))
    return difference[np.asarray(grid.mask)].astype(np.float32)
