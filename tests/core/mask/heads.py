"""A head and its brain, made of ellipsoids."""

import numpy as np

ZOOMS = (3.0, 3.0, 3.0)


def ball(shape, radius, zooms=ZOOMS, centre=None):
    """Distance in units of an ellipsoid with these radii in mm."""
    centre = [n * z / 2 for n, z in zip(shape, zooms, strict=True)] if centre is None else centre
    axes = np.ix_(*(np.arange(n) * z for n, z in zip(shape, zooms, strict=True)))
    return np.sqrt(sum(((a - c) / radius) ** 2 for a, c in zip(axes, centre, strict=True)))


def made_head(white=100.0, grey=75.0, scalp=120.0, field=0.0, seed=0):
    """A head of 3 mm voxels: white and grey matter, a skull, a scalp; and its brain."""
    shape = (68, 72, 66)
    image = np.zeros(shape, np.float32)
    image[ball(shape, 92) < 1] = scalp
    image[ball(shape, 84) < 1] = 8
    brain = ball(shape, 74) < 1
    image[brain] = grey
    image[ball(shape, 58) < 1] = white
    rng = np.random.default_rng(seed)
    b = np.exp(field * (ball(shape, 92) ** 2 - 0.5))
    return np.abs(image * b + rng.normal(0, 2, shape)).astype(np.float32), brain


def coverage(mask, truth):
    """Return the share of the true voxels that a mask holds."""
    return np.count_nonzero(mask & truth) / np.count_nonzero(truth)
