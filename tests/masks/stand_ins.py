"""A ball as the image for stand-ins of brain programs, and what these were called with."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np

from n4ax_bids.options import N4Options

SHAPE = (22, 24, 20)
SHORT = N4Options(n_iterations=(2,), shrink_factor=1)
AFFINES = {
    "RAS": [[2, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2.5, -30], [0, 0, 0, 1]],
    "PIL": [[0, 0, -2.5, 30], [-2, 0, 0, 20], [0, -2, 0, 10], [0, 0, 0, 1]],
    "LAS, oblique": [[-1.9, 0.3, 0, 10], [0.3, 1.9, 0, -20], [0, 0, 2, -30], [0, 0, 0, 1]],
}


def made(path, affine=AFFINES["RAS"], unit="mm", shape=SHAPE):
    """Write a ball of two intensities that is brighter than 100, with one corner of it cut off."""
    axes = np.ix_(*(np.linspace(-1, 1, n) for n in shape))
    away = np.sqrt(sum(axis**2 for axis in axes))
    image = np.where(away < 0.8, 200.0, 10.0) + np.random.default_rng(0).normal(0, 3, shape)
    image[:9, :9, :] = 20
    image[away < 0.4] += 100
    found = nb.Nifti1Image(image.astype(np.int16), np.array(affine, float))
    found.header.set_xyzt_units(unit)
    found.to_filename(path)
    return path


def calls(log):
    """Read what a stand-in was called with, each time."""
    return [json.loads(line) for line in log.read_text().splitlines()]
