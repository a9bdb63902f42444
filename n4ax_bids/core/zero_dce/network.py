"""The network of about 3000 weights that predicts the tone map and the bias map of an image."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.core.products import einsum, matmul

KERNEL = 3
"""voxels of a depthwise kernel on each axis"""


class Layer(NamedTuple):
    """A depthwise convolution, then a pointwise one."""

    depthwise: jax.Array
    """(channels in, 3^D)"""
    depthwise_bias: jax.Array
    """(channels in,)"""
    pointwise: jax.Array
    """(channels out, channels in)"""
    pointwise_bias: jax.Array
    """(channels out,)"""


def channels(width: int) -> tuple[tuple[int, int], ...]:
    """Return the channels in and out of each layer."""
    f = width
    return ((1, f), (f, f), (f, f), (f, f), (2 * f, f), (2 * f, f), (2 * f, 2))


def n_parameters(width: int, n_axes: int = 3) -> int:
    """Return the number of weights of the network."""
    taps = KERNEL**n_axes
    return sum(i * (taps + 1) + o * (i + 1) for i, o in channels(width))


def initial(key: jax.Array, width: int, n_axes: int = 3) -> list[Layer]:
    """Return random weights, uniform within 1/sqrt(inputs of a sum).

    The last layer's are a tenth of that, so that the tone map begins near 0 and the bias map near
    1/2.

    Parameters
    ----------
    key : of jax.random
    width : channels of the inner layers
    n_axes : 2 or 3

    Returns
    -------
    list of seven Layer
    """
    taps = KERNEL**n_axes
    layers = []
    for number, (n_in, n_out) in enumerate(channels(width)):
        shapes = ((n_in, taps), (n_in,), (n_out, n_in), (n_out,))
        sums = (taps, taps, n_in, n_in)
        keys = jax.random.split(jax.random.fold_in(key, number), 4)
        parts = [
            jax.random.uniform(one, shape, jnp.float32, -1, 1) / n**0.5
            for one, shape, n in zip(keys, shapes, sums, strict=True)
        ]
        layers.append(Layer(*parts))
    layers[-1] = jax.tree.map(lambda weights: 0.1 * weights, layers[-1])
    return layers


def predict(
    layers: list[Layer], image: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Predict both maps.

    Parameters
    ----------
    layers : from `initial`
    image : array (n_1, ..., n_D), 0 to 1, on the coarse grid
    inside : array like `image`, 0 in padding; every layer sees zeros there, so that padding
        changes nothing

    Returns
    -------
    alpha : array like `image`, -1 to 1, the tone map
    bias : array like `image`, 0 to 1
    """

    def block(layer: Layer, *inputs: jax.Array) -> jax.Array:
        return _separable(layer, jnp.concatenate(inputs)) * inside[None]

    first = jax.nn.relu(block(layers[0], (image * inside)[None]))
    second = jax.nn.relu(block(layers[1], first))
    third = jax.nn.relu(block(layers[2], second))
    fourth = jax.nn.relu(block(layers[3], third))
    fifth = jax.nn.relu(block(layers[4], third, fourth))
    sixth = jax.nn.relu(block(layers[5], second, fifth))
    last = _separable(layers[6], jnp.concatenate((first, sixth)))
    return jnp.tanh(last[0]), jax.nn.sigmoid(last[1])


def _separable(layer: Layer, values: jax.Array) -> jax.Array:
    """Apply one layer to (channels, n_1, ..., n_D), with zeros outside."""
    total = _depthwise(layer.depthwise, values)
    flat = total.reshape(total.shape[0], -1) + layer.depthwise_bias[:, None]
    flat = matmul(layer.pointwise, flat)
    return (flat + layer.pointwise_bias[:, None]).reshape(-1, *values.shape[1:])


def _depthwise(kernels: jax.Array, values: jax.Array) -> jax.Array:
    """Convolve each channel with its kernel.

    Along the last axis this is a product with a matrix that has three diagonals. XLA's grouped
    convolution takes 30 times as long on a CPU, and a sum of 27 shifted copies three times.
    """
    n_channels, *rest, n = values.shape
    kernels = kernels.reshape(n_channels, *(KERNEL,) * (values.ndim - 1))
    diagonals = np.stack([np.eye(n, k=1 - tap, dtype=np.float32) for tap in range(KERNEL)])
    bands = einsum("...t,tio->...io", kernels, diagonals.astype(values.dtype))
    for axis in range(1, 1 + len(rest)):
        values = _neighbours(values, axis)
    rows = values.reshape(n_channels, math.prod(rest), -1)
    bands = bands.reshape(n_channels, -1, n)
    total = matmul(rows, bands)
    return total.reshape(n_channels, *rest, n)


def _neighbours(values: jax.Array, axis: int) -> jax.Array:
    """Put each voxel beside its two neighbours on an axis, along the next to last axes."""
    n = values.shape[axis]
    pads = [(0, 0)] * values.ndim
    pads[axis] = (1, 1)
    padded = jnp.pad(values, pads)
    copies = [jax.lax.slice_in_dim(padded, tap, tap + n, axis=axis) for tap in range(KERNEL)]
    return jnp.stack(copies, axis=-2)
