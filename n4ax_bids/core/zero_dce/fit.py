"""The fit of the network to one image, compiled: a fixed number of steps of Adam."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from n4ax_bids.core import bspline
from n4ax_bids.core.zero_dce import losses, network
from n4ax_bids.core.zero_dce.network import Layer


class Arrays(NamedTuple):
    """What a fit sees of an image; sizes are padded, so that images share a compiled program."""

    coarse: jax.Array
    """the image shrunk for the network, 0 to 1"""
    inside: jax.Array
    """like `coarse`, 0 in padding"""
    image: jax.Array
    """means of blocks of voxels, 0 to 1"""
    weight: jax.Array
    """like `image`, the share of each block that counts"""
    enlarge: tuple[jax.Array, ...]
    """for each axis (coarse, blocks): weights of linear interpolation"""
    per_block: jax.Array
    """(D,): blocks of each axis / 256"""
    n_blocks: jax.Array
    """number of blocks that are not padding"""


class Form(NamedTuple):
    """Numbers that decide the compiled program."""

    n_curves: int
    n_steps: int
    regions: losses.Regions
    clip: bool


class Numbers(NamedTuple):
    """Numbers that may change without another compilation."""

    weights: losses.Terms
    exposure: float
    """brightness that is wanted"""
    learning_rate: float
    weight_decay: float
    gradient_clip: float
    """largest norm of a gradient; has no effect unless `Form.clip`"""


class Fitted(NamedTuple):
    """A fit: its maps on the coarse grid, and the loss before each step and after the last."""

    alpha: jax.Array
    bias: jax.Array
    losses: jax.Array
    """(n_steps + 1,)"""


def maps(layers: list[Layer], arrays: Arrays) -> tuple[jax.Array, jax.Array]:
    """Return both maps on the grid of blocks."""
    alpha, bias = network.predict(layers, arrays.coarse, arrays.inside)
    return bspline.contract(alpha, arrays.enlarge), bspline.contract(bias, arrays.enlarge)


def terms(layers: list[Layer], arrays: Arrays, form: Form, exposure: float) -> losses.Terms:
    """Return the terms of the loss without their factors."""
    alpha, bias = maps(layers, arrays)
    image, weight, regions = arrays.image, arrays.weight, form.regions
    bright = losses.curve(image, alpha, form.n_curves)
    return losses.Terms(
        smooth=losses.smoothness(alpha, arrays.per_block, arrays.n_blocks),
        spatial=losses.spatial(bright, image, weight, regions.spatial, regions.neighbours),
        exposure=losses.exposure(bright, exposure, weight, regions.exposure),
        prior=losses.prior(bright, bias, image, weight),
        smooth_bias=losses.smoothness(bias, arrays.per_block, arrays.n_blocks),
    )


def loss(layers: list[Layer], arrays: Arrays, form: Form, numbers: Numbers) -> jax.Array:
    """Return the sum of the terms, each with its factor."""
    parts = terms(layers, arrays, form, numbers.exposure)
    total = jnp.zeros(())
    for weight, part in zip(numbers.weights, parts, strict=True):
        total = total + weight * part
    return total


@partial(jax.jit, static_argnames="form")
def fit(layers: list[Layer], arrays: Arrays, form: Form, numbers: Numbers) -> Fitted:
    """Fit the network to one image, from the given weights.

    Parameters
    ----------
    layers : initial weights
    arrays : the image
    form, numbers : the settings

    Returns
    -------
    Fitted
    """
    return _fit(layers, arrays, form, numbers)


@partial(jax.jit, static_argnames="form")
def fit_batch(layers: list[Layer], arrays: Arrays, form: Form, numbers: Numbers) -> Fitted:
    """Fit a network to each of several images; all arrays of `arrays` have a batch axis first."""
    one = partial(_fit, form=form, numbers=numbers)
    return jax.vmap(one, in_axes=(None, 0))(layers, arrays)


def _fit(layers: list[Layer], arrays: Arrays, form: Form, numbers: Numbers) -> Fitted:
    import optax  # here, because the rest of the package does not need it

    optimiser = optax.chain(
        *([optax.clip_by_global_norm(numbers.gradient_clip)] if form.clip else []),
        optax.add_decayed_weights(numbers.weight_decay),
        optax.adam(numbers.learning_rate),
    )

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        layers, memory = state
        value, gradient = jax.value_and_grad(loss)(layers, arrays, form, numbers)
        updates, memory = optimiser.update(gradient, memory, layers)
        return (optax.apply_updates(layers, updates), memory), value

    start = (layers, optimiser.init(layers))
    (layers, _), curve = jax.lax.scan(step, start, length=form.n_steps)
    last = loss(layers, arrays, form, numbers)
    alpha, bias = network.predict(layers, arrays.coarse, arrays.inside)
    return Fitted(alpha, bias, jnp.append(curve, last))
