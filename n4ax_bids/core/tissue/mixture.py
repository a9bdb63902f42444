"""Gaussian classes of a histogram and a uniform class of outliers, by expectation maximisation."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core import bspline
from n4ax_bids.core.products import einsum, matmul

N_BINS = 256
"""bins of the logarithm of the corrected intensity"""
N_TISSUES = 3
"""groups of neighbouring classes whose levels the field may not change"""
N_NOISES = 6
"""bins of the variance that noise causes"""
WIDTH = 5.0
"""standard deviations on each side of the mean that the histogram spans"""
FEWEST = 1e-3
"""weight below which a class keeps its mean and variance"""
LEAST_OUTLIERS = 1e-3
"""share of outliers is at least this; without it, the estimate may end in a degenerate class"""
TINY = 1e-30
RARE = 1e-4
"""density, relative to its largest value, below which intensities gain no more weight"""


class Classes(NamedTuple):
    """A mixture; arrays (K,), on the device or on the host."""

    mean: Any
    share: Any
    variance: Any
    """without that of noise"""
    outliers: Any
    """scalar, share of the uniform class"""


class Histogram(NamedTuple):
    """Weights of corrected intensities and variances of noise."""

    local: jax.Array
    """(areas, bins * noises), the weights in each area"""
    counts: jax.Array
    """(bins, noises), their sum over areas"""
    x: jax.Array
    """(bins,), centres"""
    nu: jax.Array
    """(noises,), mean variance that noise causes"""
    uniform: jax.Array
    """scalar, density of the uniform class"""
    place: jax.Array
    """index into the flattened `local` of each block"""


class Demands(NamedTuple):
    """What the classes demand of the field."""

    weights: tuple[jax.Array, ...]
    """for each tissue the precision with which a block shows the field"""
    targets: tuple[jax.Array, ...]
    """for each tissue these weights times the true ln of intensity that the classes expect"""


def histogram(
    r: jax.Array,
    h: jax.Array,
    noise_bin: jax.Array,
    nu: jax.Array,
    listed: jax.Array,
    area: jax.Array,
    n_areas: int,
) -> Histogram:
    """Count corrected intensities.

    Parameters
    ----------
    r : array, ln of intensity minus ln of the field
    h : array like `r`, weights from 0 to 1; 0 = not counted
    noise_bin : array like `r`, int
    nu : (noises,)
    listed : (n,), flat indices of the blocks with a weight, and the number of blocks as padding.
        Counting is slow, and about half of the blocks have no weight.
    area : array like `r`, int, the area that each block lies in
    n_areas : number of areas
    """
    n = h.sum()
    mean = (h * r).sum() / n
    sd = jnp.sqrt((h * (r - mean) ** 2).sum() / n) + 1e-6
    low = jnp.maximum(mean - WIDTH * sd, jnp.where(h > 0, r, jnp.inf).min() - 0.02)
    high = jnp.minimum(mean + WIDTH * sd, jnp.where(h > 0, r, -jnp.inf).max() + 0.02)
    width = (high - low) / N_BINS
    row = jnp.clip((r - low) / width, 0, N_BINS - 1).astype(jnp.int32)
    n_bins = N_BINS * N_NOISES
    place = (area * N_BINS + row) * N_NOISES + noise_bin
    # Sums of integers do not depend on the order in which a device adds.
    weights = jnp.take(h.ravel(), listed, mode="fill", fill_value=0)
    bins = jnp.take(place.ravel(), listed, mode="fill", fill_value=0)
    whole = jnp.round(weights * 2**20).astype(jnp.int64)
    exact = jnp.zeros(n_areas * n_bins, jnp.int64).at[bins].add(whole).reshape(n_areas, n_bins)
    local = (exact.astype(jnp.float64) / 2**20).astype(r.dtype)
    counts = (exact.sum(axis=0).astype(jnp.float64) / 2**20).astype(r.dtype)
    counts = counts.reshape(N_BINS, N_NOISES)
    x = low + (jnp.arange(N_BINS, dtype=r.dtype) + 0.5) * width
    return Histogram(local, counts, x, nu, 1 / (high - low), place)


def first_classes(seen: Histogram, n_classes: int) -> Classes:
    """Return classes from k-means of the histogram, begun at its quantiles."""
    counts, x = seen.counts.sum(axis=1), seen.x
    below = jnp.cumsum(counts) / counts.sum()
    at = (jnp.arange(n_classes, dtype=x.dtype) + 0.5) / n_classes

    def members(mean: jax.Array) -> jax.Array:
        nearest = jnp.argmin(jnp.abs(x[:, None] - mean[None]), axis=1)
        return (nearest[:, None] == jnp.arange(n_classes)[None]) * counts[:, None]

    def step(_: int, mean: jax.Array) -> jax.Array:
        each = members(mean)
        n = each.sum(axis=0)
        return jnp.where(n > 0, (each * x[:, None]).sum(axis=0) / jnp.maximum(n, 1e-9), mean)

    mean = jax.lax.fori_loop(0, 30, step, jnp.interp(at, below, x))
    each = members(mean)
    n = each.sum(axis=0)
    variance = (each * (x[:, None] - mean[None]) ** 2).sum(axis=0) / jnp.maximum(n, 1e-9)
    share = n / n.sum() * 0.98 + 1e-4
    return Classes(mean, share, jnp.maximum(variance, 1e-4), jnp.asarray(0.02, x.dtype))


def densities(seen: Histogram, classes: Classes) -> tuple[jax.Array, jax.Array]:
    """Return variances (1, noises, K) and densities (bins, noises, K) of the classes."""
    variance = classes.variance[None, None] + seen.nu[None, :, None]
    away = seen.x[:, None, None] - classes.mean[None, None]
    return variance, jnp.exp(-(away**2) / 2 / variance) / jnp.sqrt(2 * jnp.pi * variance)


def maximised(seen: Histogram, classes: Classes, n_steps: int, least_sd: Any) -> Classes:
    """Return the classes after steps of expectation maximisation; noise is no part of a class."""
    x = seen.x[:, None, None]

    def step(_: int, old: Classes) -> Classes:
        variance, each = densities(seen, old)
        each = each * old.share[None, None]
        total = each.sum(axis=-1) + old.outliers * seen.uniform
        per_total = seen.counts / jnp.maximum(total, TINY)
        belongs = each * per_total[..., None]
        n = belongs.sum(axis=(0, 1))
        n_outliers = (per_total * old.outliers * seen.uniform).sum()
        some = n > FEWEST
        precise = (belongs / variance).sum(axis=(0, 1))
        mean = (belongs / variance * x).sum(axis=(0, 1)) / jnp.maximum(precise, TINY)
        mean = jnp.where(some, mean, old.mean)
        own = old.variance[None, None]
        true = (x - mean[None, None]) * (own / variance)
        rest = own * seen.nu[None, :, None] / variance
        spread = (belongs * (true**2 + rest)).sum(axis=(0, 1)) / jnp.maximum(n, TINY)
        spread = jnp.where(some, jnp.maximum(spread, least_sd**2), old.variance)
        whole = n.sum() + n_outliers
        share = jnp.maximum(n / whole, 1e-5)
        return Classes(mean, share, spread, jnp.maximum(n_outliers / whole, LEAST_OUTLIERS))

    return jax.lax.fori_loop(0, n_steps, step, classes)


def tissues_of(classes: Classes) -> jax.Array:
    """Return which of three tissues, from dark to bright, each class belongs to: (K, 3), 0 and 1.

    The classes, sorted by their means, are split where the means scatter least around those of
    their tissues.
    """
    n = len(classes.mean)
    counts = [(a, b - a, n - b) for a, b in itertools.combinations(range(1, n), 2)]
    splits = [np.eye(N_TISSUES)[np.repeat(np.arange(N_TISSUES), each)] for each in counts]
    members = jnp.asarray(np.array(splits), classes.mean.dtype)
    order = jnp.argsort(classes.mean)
    mean, share = classes.mean[order], classes.share[order]
    weight = einsum("skt,k->st", members, share)
    middle = einsum("skt,k->st", members, share * mean) / weight
    away = einsum("skt,st->sk", members, middle) - mean[None]
    best = jnp.argmin((share[None] * away**2).sum(axis=1))
    return jnp.zeros((n, N_TISSUES), mean.dtype).at[order].set(members[best])


def local_shares(
    seen: Histogram, classes: Classes, old: jax.Array, smoothing: Any, pull: Any
) -> jax.Array:
    """Return the share of each class in each area after a step of expectation maximisation.

    Parameters
    ----------
    seen, classes : of the whole image
    old : (areas, K)
    smoothing : one matrix for each axis, that averages an area with its neighbours
    pull : weight of the shares of the whole image, in blocks
    """
    density = densities(seen, classes)[1].reshape(-1, len(classes.mean))
    total = matmul(old, density.T) + classes.outliers * seen.uniform
    belongs = old * matmul(seen.local / jnp.maximum(total, TINY), density)
    cells = [len(each) for each in smoothing]
    both = jnp.concatenate([belongs, seen.local.sum(axis=1, keepdims=True)], axis=1)
    smooth = bspline.contract(both.reshape(*cells, -1), smoothing).reshape(both.shape)
    return (smooth[:, :-1] + pull * classes.share[None]) / (smooth[:, -1:] + pull)


def demands(seen: Histogram, classes: Classes, shares: jax.Array, balance: Any) -> Demands:
    """Return what the classes demand of the field at each block.

    Parameters
    ----------
    seen, classes : of the whole image
    shares : (areas, K), of the classes in each area
    balance : power by which frequent intensities lose weight
    """
    variance, each = densities(seen, classes)
    total = (each * classes.share[None, None]).sum(axis=-1) + classes.outliers * seen.uniform
    per_noise = seen.counts.sum(axis=0) / seen.counts.sum()
    frequent = (total * per_noise[None]).sum(axis=1)
    rare = jnp.repeat(jnp.maximum(frequent / frequent.max(), RARE) ** -balance, N_NOISES)
    density, precise = (part.reshape(len(rare), -1) for part in (each, each / variance))
    here = jnp.maximum(matmul(shares, density.T) + classes.outliers * seen.uniform, TINY)
    # For each tissue the weight, then the weight times the mean: (K, 2, 3, bins * noises).
    members = tissues_of(classes)[:, None, :, None]
    terms = jnp.stack([precise.T, (precise * classes.mean[None]).T], axis=1)
    terms = terms[:, :, None] * members
    table = matmul(shares, terms.reshape(len(terms), -1))
    table = table.reshape(len(shares), 2 * N_TISSUES, -1)
    table = table / here[:, None]
    sums = seen.local * table[:, :N_TISSUES].sum(axis=1)
    before, after = sums.sum(), (sums * rare[None]).sum()
    table = table * (rare * (before / after))[None, None]
    n_bins = N_BINS * N_NOISES
    area = seen.place // n_bins
    first = seen.place + area * (2 * N_TISSUES - 1) * n_bins
    flat = table.ravel()

    def at_blocks(channel: int) -> jax.Array:
        return flat.at[first + channel * n_bins].get(mode="promise_in_bounds")

    weights = tuple(map(at_blocks, range(N_TISSUES)))
    targets = tuple(map(at_blocks, range(N_TISSUES, 2 * N_TISSUES)))
    return Demands(weights, targets)
