"""Samples and knots that follow the object: the rule, and what it gains."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from n4ax_bids import N4Options, n4, n4_batch, preset
from n4ax_bids.core.metrics import field_error
from n4ax_bids.core.n4.adaptive import SAMPLES, SPAN, adapted
from n4ax_bids.core.n4.method import memory
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options.n4_text import paragraph
from n4ax_bids.phantoms import phantom

ADAPTIVE = preset("adaptive")


def ball(shape, zooms, radius=0.45):
    """An ellipsoid of a part of the image."""
    axes = np.ix_(*(np.linspace(-0.5, 0.5, n) for n in shape))
    return sum(axis**2 for axis in axes) < radius**2


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_an_object_of_another_size_gets_the_same_samples_and_knots(scale):
    shape, mask = (80, 72, 64), ball((80, 72, 64), None)
    found = plan(
        adapted(ADAPTIVE, shape, [scale * z for z in (1.0, 1.2, 1.5)], mask),
        shape,
        [scale * z for z in (1.0, 1.2, 1.5)],
    )
    assert (found.shrink_factors, found.n_control_points) == ((2, 2, 1), (4, 4, 4))


def test_the_rule_in_mm():
    shape, zooms = (80, 72, 64), (1.0, 1.2, 1.5)
    mask = np.zeros(shape, bool)
    mask[10:50, 20:40, 5:45] = True  # 40 x 24 x 60 mm
    options = adapted(ADAPTIVE, shape, zooms, mask)
    assert options.bspline_fitting_distance == pytest.approx(SPAN * 60)
    assert options.shrink_mm == pytest.approx((40 * 24 * 60 / SAMPLES) ** (1 / 3))
    assert not options.adapt and options.n_iterations == N4Options().n_iterations
    # Of the voxels of the mask, only those with a weight count; without both, all do.
    weight = np.zeros(shape, np.float32)
    weight[30:, :, :25] = 0.5  # 20 x 24 x 30 mm remain
    assert adapted(ADAPTIVE, shape, zooms, mask, weight).bspline_fitting_distance == 1.8 * 30
    everything = adapted(ADAPTIVE, shape, zooms)
    assert everything.bspline_fitting_distance == pytest.approx(SPAN * 96)
    assert plan(ADAPTIVE, shape, zooms) == plan(everything, shape, zooms)
    assert adapted(N4Options(), shape, zooms, mask) == N4Options()


def test_the_texts_say_the_span_and_the_over_relaxation_of_the_rule():
    text = paragraph(ADAPTIVE, "adaptive", False)
    assert f"knots {SPAN:g} lengths of the mask apart" in text
    assert f"Updates were multiplied by {ADAPTIVE.over_relaxation:g}." in text
    (adapt,) = (each for each in fields(N4Options) if each.name == "adapt")
    assert f"{SPAN:g} times the mask's length" in str(adapt.metadata)
    assert f"over_relaxation {ADAPTIVE.over_relaxation:g}," in str(adapt.metadata)


def test_a_strong_field_is_reached_by_over_relaxation():
    made, zooms = phantom((48, 44, 40), field="coils", amplitude=1.2), (4.0,) * 3
    errors = [
        field_error(
            n4(made.image, made.mask, zooms=zooms, options=options, return_bias=True)[1],
            made.log_field,
            made.mask,
        ).rmse
        for options in (ADAPTIVE, preset("adaptive", over_relaxation=1.0))
    ]
    assert errors[0] < 0.95 * errors[1], errors


def test_air_around_the_object_changes_nothing():
    mask, zooms = ball((60, 60, 60), None), (1.0,) * 3
    wide = np.pad(mask, 30)
    assert adapted(ADAPTIVE, mask.shape, zooms, mask) == adapted(ADAPTIVE, wide.shape, zooms, wide)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 1, 1), (40, 30), (64, 64, 2)])
def test_thin_and_flat_images(shape):
    options = adapted(ADAPTIVE, shape, (1.0,) * len(shape), np.ones(shape, bool))
    found = plan(options, shape, (1.0,) * len(shape))
    assert all(n >= min(n_all, 2) for n, n_all in zip(found.sample_shape, shape, strict=True))
    assert adapted(ADAPTIVE, shape, (1.0,) * len(shape), np.zeros(shape, bool)).shrink_mm > 0


def test_options_that_it_replaces_are_refused_beside_it():
    for name in ("shrink_mm", "bspline_fitting_distance"):
        with pytest.raises(ValueError, match=f"{name} is 3.0; expected not given together with"):
            preset("adaptive", **{name: 3.0})
    assert memory(ADAPTIVE, (256, 256, 192), (1.0, 1.0, 1.0)) <= 40 * 256 * 256 * 192 // 8


def test_thick_slices_keep_their_samples_and_the_field_is_found_better():
    made = phantom((48, 40, 10), field="coils", amplitude=0.6, seed=3)
    zooms = (1.0, 1.0, 5.0)
    found = {}
    for name in ("ants", "adaptive"):
        bias = n4(made.image, made.mask, zooms=zooms, options=preset(name), return_bias=True)[1]
        found[name] = field_error(bias, made.log_field, made.mask).rmse
    assert found["adaptive"] < 0.8 * found["ants"], found
    (batch,) = n4_batch([made.image], [made.mask], zooms=[zooms], options=ADAPTIVE)
    alone = n4(made.image, made.mask, zooms=zooms, options=ADAPTIVE)
    np.testing.assert_array_equal(np.asarray(batch), np.asarray(alone))
