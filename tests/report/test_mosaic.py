"""Cuts: where they lie, how they are turned, what they show."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.report import mosaic

WINDOW = (0.0, 255.0)


def block(shape, *inside: slice) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[inside] = True
    return mask


def values_of(volume: np.ndarray):
    return lambda indices: volume[np.ix_(*indices)]


def test_three_views_of_what_the_mask_covers():
    mask = block((170, 256, 256), slice(20, 150), slice(30, 230), slice(40, 240))
    views = mosaic.plan(mask, (1, 1, 1))
    assert [view.axis for view in views] == [0, 1, 2]
    for view in views:
        cuts = view.indices[view.axis]
        assert 5 <= cuts.size <= 7 and (np.diff(cuts) > 0).all()
        assert mask.any(axis=tuple(a for a in range(3) if a != view.axis))[cuts].all()
    sagittal, coronal, axial = (view.tile for view in views)
    assert sagittal[0] > coronal[0] == axial[0]  # front to back is longer than ear to ear
    assert sagittal[1] == coronal[1]
    height = sum(view.n_rows * view.tile[1] for view in views)
    width = max(view.n_columns * view.tile[0] for view in views)
    assert abs(width - mosaic.WIDTH) <= 40 and height <= mosaic.TALLEST
    assert sagittal[0] > 250  # pixels


def test_stray_voxels_do_not_widen_the_cuts():
    mask = block((100, 100, 100), slice(40, 80), slice(40, 80), slice(40, 80))
    mask[2, 3, 4] = mask[97, 96, 95] = True
    for view in mosaic.plan(mask, (1, 1, 1)):
        assert all(38 <= index.min() and index.max() <= 81 for index in view.indices)


def test_cuts_have_a_margin_around_the_mask():
    part = slice(100, 200)
    for view in mosaic.plan(block((300, 300, 300), part, part, part), (1, 1, 1)):
        for axis in {0, 1, 2} - {view.axis}:
            shown = view.indices[axis]
            assert (shown.min(), shown.max()) == (97, 202)  # 3 % of 100 voxels on each side


def test_thick_slices_get_more_rows_and_thin_views_are_left_out():
    views = {
        view.axis: view for view in mosaic.plan(np.ones((320, 320, 11), bool), (0.5, 0.5, 7.5))
    }
    assert sorted(views) == [0, 1, 2] and views[2].n_rows == 2
    (only,) = mosaic.plan(np.ones((150, 256, 1), bool), (1.2, 0.94, 1.2))
    assert only.axis == 2 and only.tile[1] == pytest.approx(mosaic.TALLEST, abs=1)
    (stack,) = mosaic.plan(np.ones((256, 18, 256), bool), (1.5, 5, 1.5))
    assert stack.axis == 1 and stack.indices[1].tolist() == list(range(18))
    assert min(stack.tile) > 220  # all slices are there, and not in one row of tiny ones


def test_cuts_carry_their_positions_in_mm():
    mask = np.ones((100, 120, 80), bool)
    for view in mosaic.plan(mask, (1, 1, 2), [(-49.0, 1.0), (-60.0, 1.0), (-70.5, 2.0)]):
        start, step = ((-49, 1), (-60, 1), (-70.5, 2))[view.axis]
        name, _, first = view.places[0].partition(" = ")
        assert name == "xyz"[view.axis] and len(view.places) == view.indices[view.axis].size
        assert float(first) == pytest.approx(start + step * view.indices[view.axis][0], abs=0.5)
    fine = mosaic.plan(mask, (0.1, 0.1, 0.1), [(-4.9, 0.1)] * 3)
    assert fine[0].places[0].count(".") == 1  # tenths of a millimetre apart


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (5, 4, 3)])
def test_tiny_images_are_drawn(shape):
    views = mosaic.plan(np.ones(shape, bool), (1, 1, 1))
    made = mosaic.draw(
        views, values_of(np.ones(shape)), mosaic.grey((0, 1)), text="white", ground="black"
    )
    assert np.asarray(made).max() == 255


def test_right_is_right_and_up_is_up():
    """Brightest to the right, in front and above: so it is in every view."""
    shape = (60, 60, 60)
    right, front, up = np.meshgrid(*map(np.arange, shape), indexing="ij")
    for axis, volume in ((1, right), (0, front)):
        (view,) = (v for v in mosaic.plan(np.ones(shape, bool), (1, 1, 1)) if v.axis == axis)
        planes = mosaic._planes(view, values_of(volume))
        assert (np.diff(planes, axis=2) == 1).all() and (np.diff(planes, axis=1) == 0).all()
    (view,) = (v for v in mosaic.plan(np.ones(shape, bool), (1, 1, 1)) if v.axis == 0)
    planes = mosaic._planes(view, values_of(up))
    assert (np.diff(planes, axis=1) == -1).all()


def test_two_images_of_one_plan_fit_on_each_other():
    mask = block((40, 44, 48), slice(5, 35), slice(5, 40), slice(8, 44))
    views = mosaic.plan(mask, (1, 1.2, 1.5))
    one, two = (
        np.asarray(
            mosaic.draw(
                views, values_of(mask * level), mosaic.grey(WINDOW), text="black", ground="black"
            )
        )
        for level in (100.0, 200.0)
    )
    assert one.shape == two.shape
    np.testing.assert_allclose(one * 2.0, two, atol=2)  # rounding to bytes, twice


def test_one_window_for_all():
    paint = mosaic.grey((10, 20))
    assert paint(np.array([5, 10, 15, 20, 99])).tolist() == [0, 0, 127, 255, 255]
