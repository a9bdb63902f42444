"""Volumes that cannot be registered, references and options that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from n4ax_bids.core.motion import register, samples, series
from n4ax_bids.options.realign import RealignOptions
from tests.core.motion.small_series import COARSE, estimated, grid_of

pytestmark = pytest.mark.usefixtures("few_programs")


def test_a_flawed_volume_is_flagged_and_the_others_are_unchanged(small):
    blank, odd = np.zeros((1, *small.shape), np.float32), small.volumes[1:2].copy()
    odd[0, 3, 4, 5] = np.nan
    with_flaws = np.concatenate([small.volumes[:2], blank, odd, small.volumes[2:]])
    options = replace(COARSE, register_to_mean=True)
    whole = estimated(small, options)
    flawed = estimated(small._replace(volumes=with_flaws), options)
    assert flawed.flagged == {
        2: "all of its voxels are 0",
        3: "1 more voxels than in others are NaN or infinite",
    }
    np.testing.assert_array_equal(np.delete(flawed.motion.q, (2, 3), axis=0), whole.motion.q)
    assert (flawed.motion.q[2:4] == 0).all() and not flawed.motion.converged[2:4].any()


def test_a_volume_far_away_has_no_motion(small):
    """Its samples leave the grid, and no search goes on without them."""
    grid = grid_of(small)
    model = samples.model_of(small.volumes[0], grid, COARSE)
    start = np.array([[0.0] * 6, [400.0, 0, 0, 0, 0, 0]])
    found = register.register(lambda i: small.volumes[i], [1, 2], model, grid, COARSE, start=start)
    assert found.registered.tolist() == [True, False]
    assert found.converged.tolist() == [True, False]
    assert (found.q[1] == 0).all() and found.n_iterations[1] <= 2


def test_a_series_without_any_registered_volume_is_refused(small, monkeypatch):
    """As one of a single row of voxels, whose samples all leave it."""
    whole = series.register

    def lost(*args, **options):
        found = whole(*args, **options)
        return found._replace(n_samples=np.zeros_like(found.n_samples))

    monkeypatch.setattr(series, "register", lost)
    with pytest.raises(ValueError, match="none of the 5 volumes can be registered: fewer than 32"):
        estimated(small, COARSE)


def test_a_flawed_reference_is_refused(small):
    blank = small._replace(
        volumes=np.concatenate([np.zeros_like(small.volumes[:1]), small.volumes])
    )
    with pytest.raises(ValueError, match="volume 0 is the reference.*such as 1"):
        estimated(blank)
    assert 0 in estimated(blank, replace(COARSE, reference="mean")).flagged
    with pytest.raises(ValueError, match="reference is 9; expected a volume below 6"):
        estimated(blank, replace(COARSE, reference=9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": -1}, "reference is -1"),
        ({"reference": "last"}, "reference is 'last'"),
        ({"degree": 0}, "degree is 0"),
        ({"separation": 0}, "separation is 0"),
        ({"quality": 1.5}, "quality is 1.5"),
        ({"max_iterations": 10**10}, "max_iterations is 10000000000; expected 1 to 1000000"),
        ({"damping": 0}, "damping is 0"),
        ({"form": "backward"}, "form is 'backward'"),
        ({"jitter": "no"}, "jitter is 'no'"),
        ({"start_shrink": 3}, "start_shrink is 3"),
        ({"fwhm": float("nan")}, "fwhm is nan"),
    ],
)
def test_options_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        RealignOptions(**change)
