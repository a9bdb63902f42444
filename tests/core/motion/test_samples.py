"""The samples of a volume: where they are, which are kept, and how wide they are smoothed."""

import numpy as np

from n4ax_bids.core.motion import samples, smoothing
from n4ax_bids.options.realign import RealignOptions


def test_thick_slices_do_not_blur_the_plane():
    """With one width for all axes, slices of 17 mm would hide what the plane shows."""
    grid = smoothing.grid_of(np.diag([-0.95, 0.95, 17, 1]), (68, 68, 6))
    np.testing.assert_allclose(smoothing.width(grid, RealignOptions()), [5, 5, 1.6 * 17])
    np.testing.assert_allclose(smoothing.width(grid, RealignOptions(fwhm=6)), 6)


def test_samples_are_moved_to_both_sides():
    """To one side alone, the noise of the reference would go along with its gradient."""
    grid = smoothing.Grid((40, 40, 40), np.diag([4.0] * 3))
    found = samples.positions(grid, RealignOptions())
    off = found - found.round()
    assert np.abs(off).max() <= 0.25
    assert np.abs(off.mean(axis=0)).max() < 0.005 and (off.std(axis=0) > 0.1).all()


def test_quality_drops_the_samples_that_tell_least(rng):
    jacobian = rng.standard_normal((2000, 6))
    jacobian[::2] *= 0.01
    kept = samples.informative(jacobian, np.ones(2000), np.ones(2000), 0.9)
    assert 500 < len(kept) < 2000
    assert np.count_nonzero(kept % 2 == 0) < np.count_nonzero(kept % 2)
    rows = np.column_stack([jacobian, np.ones(2000)])
    left = np.linalg.det(rows[kept].T @ rows[kept]) / np.linalg.det(rows.T @ rows)
    assert 0.7 < left <= 0.9
    assert len(samples.informative(jacobian, np.ones(2000), np.ones(2000), 1.0)) == 2000
