"""Voxels that are NaN or infinite are found where they are used."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.io import finite, volume
from tests.io.nifti_files import stored_values, write_nifti


def test_values_beyond_float32_are_found(tmp_path):
    image = volume.load(write_nifti(tmp_path / "x.nii", np.full((3, 3, 3), 1e300)))
    with pytest.raises(ValueError, match="27 voxels that are used are NaN or infinite"):
        finite.require_finite(image.path, image.data, None, "scale it")


@pytest.mark.parametrize("slab", [1, 7, 1000])
def test_voxels_that_are_not_finite_count_where_they_are_used(tmp_path, monkeypatch, slab):
    monkeypatch.setattr(finite, "SLAB", slab)
    data = stored_values("float32")
    data[3, 2, 1], data[4, 2, 1], data[0, 0, 4] = np.nan, np.inf, -np.inf
    image = volume.load(write_nifti(tmp_path / "x.nii", data))
    used = np.ones(data.shape, bool)
    with pytest.raises(ValueError) as raised:
        finite.require_finite(image.path, image.data, None, "set them to 0")
    assert str(raised.value) == (
        f"{image.path}: 3 voxels that are used are NaN or infinite, the first at (3, 2, 1); "
        "set them to 0"
    )
    used[3, 2, 1] = used[0, 0, 4] = False
    with pytest.raises(ValueError, match=r"1 voxel that is used is .* at \(4, 2, 1\)"):
        finite.require_finite(image.path, image.data, used, "set them to 0")
    used[4, 2, 1] = False
    finite.require_finite(image.path, image.data, used, "set them to 0")
    numbers = data[np.isfinite(data)]
    assert finite.extremes(data) == (numbers.min(), numbers.max())
    assert np.isnan(finite.extremes(np.full(5, np.nan))).all()
    lifted, shift = volume.lifted(image)
    assert shift == numbers.min() < 0
    np.testing.assert_array_equal(np.isfinite(lifted.data), np.isfinite(data))
    assert finite.extremes(lifted.data)[0] == 0
