"""The steps of the masks: distances, holes, pieces, boxes, and the coarse copy of an image."""

import numpy as np
import pytest
from scipy import ndimage

from n4ax_bids.core.mask import morphology
from n4ax_bids.core.mask.coarse import above, ceiling, coarse, enlarged
from tests.core.mask.heads import ball


def test_distance_is_exact_within_its_range(rng):
    mask, zooms = rng.random((20, 18, 9)) > 0.02, (1.0, 1.5, 4.0)
    exact = ndimage.distance_transform_edt(mask, sampling=zooms)
    found = morphology.distance(mask, zooms, 6)
    near = exact <= 6
    np.testing.assert_allclose(found[near], exact[near], rtol=1e-5)
    assert (found[~near] > 6).all()


def test_fill_and_pieces():
    mask = ball((30, 30, 30), 30) < 1
    hollow = mask & ~(ball((30, 30, 30), 12) < 1)
    np.testing.assert_array_equal(morphology.filled(hollow), mask)
    hollow[0, 0, 0] = True
    first, second = morphology.largest_pieces(hollow, 5)
    assert first.sum() == hollow.sum() - 1 and second.sum() == 1
    assert len(morphology.largest_pieces(hollow, 5, smallest=0.1)) == 1
    assert morphology.largest_pieces(np.zeros((3, 3), bool), 2) == []


@pytest.mark.parametrize("order", "CF")
def test_coarse_copy_and_back(rng, order):
    image = np.asarray(rng.random((13, 11, 9)), np.float32, order=order)
    copy = coarse(image, (1, 1, 3), 3)
    assert copy.factors == (3, 3, 1) and copy.values.shape == (4, 3, 9)
    clipped = np.minimum(image, copy.ceiling)
    np.testing.assert_allclose(copy.values[1, 2, 4], clipped[3:6, 6:9, 4].mean(), rtol=1e-6)
    levels = rng.random(copy.values.shape).astype(np.float32)
    spread = np.repeat(np.repeat(levels, 3, 0), 3, 1)
    spread = np.pad(spread, [(0, 1), (0, 2), (0, 0)], mode="edge")
    np.testing.assert_array_equal(above(image, levels, copy.factors), image > spread)
    assert ceiling(np.append(image.ravel(), 1e9)) < 1.01
    grown = enlarged(levels - 0.5, (0, 0, 0), copy.factors, image.shape)
    assert grown.shape == image.shape
    np.testing.assert_array_equal(grown[1:12:3, 1:9:3], levels > 0.5)


@pytest.mark.parametrize("zooms", ((2.0, 2.0, 2.0), (1.0, 1.0, 1.0000001), (0.1, 0.1, 0.1)))
def test_distance_between_cubes_is_exact_within_its_range(rng, zooms):
    """Cubes take whole numbers of one or two bytes; 15 of them need two."""
    mask = rng.random((40, 18, 9)) > 0.005
    exact = ndimage.distance_transform_edt(mask, sampling=zooms)
    for reach in (3, 15):
        most = reach * zooms[0]
        found, near = morphology.distance(mask, zooms, most), exact <= most * (1 + 1e-6)
        np.testing.assert_allclose(found[near], exact[near], rtol=1e-5)
        assert (found[~near] > most).all()
        np.testing.assert_array_equal(morphology.eroded(mask, zooms, most), ~near)


def test_box_holds_the_mask_and_its_margin():
    mask = np.zeros((9, 8, 7), bool)
    mask[2:4, 5, 1] = mask[6, 7, 2] = True
    assert morphology.box(mask) == (slice(2, 7), slice(5, 8), slice(1, 3))
    assert morphology.box(mask, 2) == (slice(0, 9), slice(3, 8), slice(0, 5))
