"""Products of matrices with all digits of their type.

On a GPU, JAX multiplies float32 matrices with 10 binary digits (TF32) unless it is told
otherwise: that has moved the voxels of a realigned volume by 0.008 mm.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
