"""A folder with an image and masks of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.image.files import save

SHAPE = (20, 18, 16)


@pytest.fixture
def folder(tmp_path, rng):
    """An image with contrast, a mask that is 255 in most of it, one that is 1 there."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    data = rng.choice([300.0, 500.0, 700.0], SHAPE) * np.exp(0.3 * axes[0])
    inside = sum(x**2 for x in axes) < 1.2
    save(tmp_path / "image.nii.gz", data, np.int16)
    save(tmp_path / "mask255.nii.gz", 255 * inside, np.uint8)
    save(tmp_path / "mask1.nii.gz", inside, np.uint8)
    one = np.float32(1)
    for ulps in (4, 5):
        near = (one.view(np.int32) + np.int32(ulps)).view(np.float32)
        save(tmp_path / f"mask1+{ulps}ulp.nii.gz", near * inside, np.float32)
    return tmp_path
