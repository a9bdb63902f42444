"""Areas of blocks, each with its own shares of the classes."""

import numpy as np

from n4ax_bids.core.tissue.arrays import _areas, _smoothing


def test_each_area_is_a_box_of_blocks():
    """Also the last ones, which have fewer blocks."""
    areas = _areas((5, 4, 3), (2, 4, 1))
    assert areas.shape == (5, 4, 3)
    expected = np.array([0, 0, 1, 1, 2])[:, None, None] * 3 + np.arange(3)
    np.testing.assert_array_equal(areas, np.broadcast_to(expected, areas.shape))


def test_an_area_is_averaged_with_its_neighbours():
    """In the middle, what is the same everywhere stays; a step at the edge loses a quarter."""
    smoothing = _smoothing(5)
    np.testing.assert_allclose(smoothing.sum(axis=1), [0.75, 1, 1, 1, 0.75])
    np.testing.assert_allclose(smoothing[2], [0, 0.25, 0.5, 0.25, 0])
    np.testing.assert_array_equal(_smoothing(1), [[0.5]])
