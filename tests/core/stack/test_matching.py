"""Sections become alike: their scales, their histograms, and the profile along Z."""

import numpy as np
import pytest

from n4ax_bids.core.field import Section
from n4ax_bids.core.stack import estimate as estimating
from n4ax_bids.core.stack.call import correct_stack, thinned_stack
from n4ax_bids.core.stack.correction import correct_planes
from n4ax_bids.core.stack.estimate import estimate_stack
from n4ax_bids.core.stack.samples import section_plan
from n4ax_bids.options import StackOptions
from tests.core.stack.stacks import PLAIN, cv


@pytest.fixture
def unsolved(monkeypatch):
    """N4 finds no field: for tests of what is done before and after it."""

    def sections_alone(stack, thin, bounds, options, together, memory):
        made = section_plan(options, stack.shape, stack.zooms, options.section_spline_mm)
        return tuple(Section(estimating._no_field(made), *each) for each in bounds), ()

    monkeypatch.setattr(estimating, "_sections_alone", sections_alone)
    monkeypatch.setattr(
        estimating, "_whole", lambda samples, memory: estimating._no_field(samples.plan)
    )


def test_sections_with_gradients_and_scales_become_alike():
    """S8."""
    rng = np.random.default_rng(0)
    shape, m = (30, 48, 48), 3
    texture = np.where(rng.uniform(size=shape) < 0.3, 0.8, 1.0) + rng.normal(0, 0.02, shape)
    ramp = np.concatenate([np.linspace(1, 1.5, 10)] * m)
    scales = np.repeat([1, 1.5, 2], 10)
    image = (texture * (ramp * scales)[:, None, None]).astype(np.float32)
    options = StackOptions(
        **PLAIN | {"scale": "common", "section_spline_mm": 48.0}, sections=m, mode="per_section"
    )
    done = correct_stack(image, None, options=options)
    for i in range(m):
        part = slice(10 * i, 10 * i + 10)
        profile = np.median(done.corrected[part], axis=(1, 2))
        assert abs(profile[-1] / profile[0] - 1) <= 0.3 * 0.5  # at least 70 % less
    medians = [np.median(done.corrected[10 * i : 10 * i + 10]) for i in range(m)]
    assert max(medians) / min(medians) <= 1.03


def test_a_trend_of_medians_is_kept(unsolved):
    rng = np.random.default_rng(0)
    scales = np.repeat([1, 1.1, 1.2, 2.6, 1.4, 1.5], 4)
    image = (rng.uniform(0.8, 1, (24, 20, 20)) * scales[:, None, None]).astype(np.float32)
    options = StackOptions(**PLAIN | {"scale": "trend"}, sections=6, mode="per_section")
    done = correct_stack(image, None, options=options)
    medians = np.median(done.corrected.reshape(6, -1), axis=1)
    assert medians[0] < medians[-1] and medians[3] / medians[2] < 1.3


def test_histograms_of_sections_are_matched(unsolved):
    """S16."""
    rng = np.random.default_rng(4)
    shape = (20, 40, 40)
    tissue = np.exp(rng.normal(0, 0.3, shape))
    tissue[:, :8] = 0
    scales = np.repeat(np.linspace(0.7, 1.3, 5), 4)[:, None, None]
    image = (tissue * scales).astype(np.float32)
    for match in ("section", "plane"):
        options = StackOptions(
            **PLAIN | {"match": match, "mode": "global", "shrink_factor": 1}, sections=5
        )
        stack = thinned_stack(image, np.ones(shape, bool), (1, 1, 1), options)
        found = correct_planes(image, estimate_stack(stack, options), 0).image
        assert (found[:, :8] == 0).all()
        medians = [np.median(part[part > 0]) for part in np.split(found, 5)]
        assert max(medians) / min(medians) <= 1.02


def test_the_profile_along_z_is_smoothed(unsolved):
    rng = np.random.default_rng(5)
    image = rng.uniform(0.9, 1.1, (20, 40, 40)).astype(np.float32)
    image *= np.where(np.arange(20) % 2, 1.2, 0.8).astype(np.float32)[:, None, None]
    image[:, :8] = 0
    options = StackOptions(**PLAIN | {"profile_sigma": 3, "mode": "global", "shrink_factor": 1})
    done = correct_stack(image, None, options=options)
    before, after = image[:, 8:].mean(axis=(1, 2)), done.corrected[:, 8:].mean(axis=(1, 2))
    assert cv(after) < 0.2 * cv(before)
    assert (done.corrected[:, :8] == 0).all()
