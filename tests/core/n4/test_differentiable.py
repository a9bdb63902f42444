"""Gradients through N4, and transformations that compose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from n4ax_bids import N4Options, n4
from n4ax_bids.core.n4.differentiable import differentiable_n4
from n4ax_bids.phantoms import phantom

SHAPE = (20, 22, 18)
OPTIONS = N4Options(shrink_factor=1, n_iterations=(6, 4))
GRADIENT = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from n4ax_bids import N4Options
from n4ax_bids.core.n4.differentiable import differentiable_n4
from n4ax_bids.phantoms import phantom

made = phantom((12, 14, 10))
image, mask = np.asarray(made.image, np.float64), np.asarray(made.labels) > 0
options = N4Options(shrink_factor=1, n_iterations=(4, 3))
rng = np.random.default_rng(0)
wanted, direction = rng.normal(size=image.shape), rng.normal(size=image.shape)
direction *= 1e-3 * image

@jax.jit
@lambda f: jax.value_and_grad(f, has_aux=True)
def both(image):
    found = differentiable_n4(image, mask, options=options)
    return jnp.vdot(wanted, found.corrected), found.log_bias

loss = lambda image: both(image)[0][0]
(_, log_bias), gradient = both(image)
gradient = np.asarray(gradient)
assert gradient.dtype == np.float64 and np.isfinite(gradient).all()
along = np.vdot(gradient, direction)
plain = np.vdot(wanted / np.exp(log_bias), direction)
for step in (1e-4, 1e-5):  # larger ones cross the centres of bins, where the slope changes
    difference = (loss(image + step * direction) - loss(image - step * direction)) / (2 * step)
    assert abs(along / difference - 1) < 1e-6, (along, difference)
assert abs(along / plain - 1) > 1e-2  # the field itself depends on the image
"""


@pytest.fixture(scope="module")
def made():
    return phantom(SHAPE)


@jax.jit
def found_log_bias(image, mask):
    return differentiable_n4(image, mask, options=OPTIONS).log_bias


def test_it_is_the_same_method_as_n4(made):
    mask = np.asarray(made.labels) > 0
    found = np.asarray(found_log_bias(made.image, mask))
    _, expected = n4(made.image, mask, options=OPTIONS, return_bias=True)
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)


def test_gradients_match_finite_differences_in_float64():
    """In a process of its own, because 64 bits are switched on for all of JAX."""
    root = Path(__file__).parents[3]
    words = [sys.executable, "-c", GRADIENT]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_jit_and_vmap_compose(made):
    images = np.stack([made.image, 2 * made.image[::-1]])
    masks = np.stack([made.labels > 0, made.labels[::-1] > 0])
    together = jax.jit(jax.vmap(found_log_bias))(images, masks)
    for image, mask, found in zip(images, masks, together, strict=True):
        np.testing.assert_allclose(found, found_log_bias(image, mask), atol=2e-4)


def test_a_constant_image_has_no_field_and_a_finite_gradient():
    @jax.jit
    def total(image):
        return differentiable_n4(image, options=N4Options(n_iterations=(2,))).corrected.sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(np.full((9, 9), 5.0, np.float32))
    assert value == pytest.approx(5 * 81, rel=1e-5) and np.isfinite(gradient).all()


def test_what_cannot_have_a_gradient_is_refused(made):
    with pytest.raises(ValueError, match="convergence_threshold is 0.001; expected 0"):
        differentiable_n4(made.image, options=N4Options(convergence_threshold=0.001))
    with pytest.raises(ValueError, match="image has the type int32; expected float32 or float64"):
        differentiable_n4(np.ones((9, 9), np.int32))
