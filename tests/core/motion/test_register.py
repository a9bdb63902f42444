"""Known motion is found: a head given by a formula, on oblique and anisotropic grids."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.motion import register, samples, series
from n4ax_bids.core.motion.reslice import reslice
from n4ax_bids.options.realign import RealignOptions
from tests.core.motion.small_series import COARSE, ONE_PASS, SMALL, estimated, grid_of
from tests.moving_head import BRIGHT, motions, moving_head, rms

pytestmark = pytest.mark.usefixtures("few_programs")


def realigned(moved, q, degree=4):
    done = reslice(lambda i: moved.volumes[i], range(len(q)), q, grid_of(moved), degree=degree)
    values, valid = zip(*((v, inside) for _, v, inside in done), strict=True)
    return np.stack(values), np.stack(valid)


@pytest.fixture(scope="module")
def clean():
    """Twenty volumes without noise."""
    return moving_head(motions(20))


@pytest.fixture(scope="module")
def noisy(clean):
    """The same with 2 % noise, one of them 7 % brighter than the others."""
    noise = 0.02 * BRIGHT * np.random.default_rng(4).standard_normal(clean.volumes.shape)
    volumes = (clean.volumes + noise).astype(np.float32)
    volumes[7] *= 1.07
    return clean._replace(volumes=volumes)


@pytest.fixture(scope="module")
def found(noisy):
    return estimated(noisy)


def test_known_motion_is_recovered(noisy, found):
    mm, degrees = rms(found.motion.q, noisy.q)
    assert mm <= 0.05 and degrees <= 0.05
    assert found.motion.converged.all() and not found.flagged
    assert (found.motion.rank == 6).all()
    moved = found.motion.residual_after < found.motion.residual_before
    assert moved[1:].all()


def test_the_scale_is_recovered(found):
    scale = found.motion.scale
    assert scale[7] / scale[[6, 8]].mean() == pytest.approx(1.07, rel=0.005)


def test_realigning_again_finds_no_motion_and_the_series_is_steadier(noisy, found):
    values, valid = realigned(noisy, found.motion.q)
    again = estimated(noisy._replace(volumes=values))
    # Relative to their common position, which the mean of the first run decides.
    left = again.motion.q - again.motion.q.mean(axis=0)
    assert np.abs(left[:, :3]).max() <= 0.03
    assert np.degrees(np.abs(left[:, 3:]).max()) <= 0.03
    inside = valid.all(axis=0) & (values.mean(axis=0) > 0.2 * BRIGHT)
    still = 0.02 * BRIGHT
    kept = np.delete(np.arange(20), 7)
    before = noisy.volumes[kept].std(axis=0)[inside]
    after = values[kept].std(axis=0)[inside]
    moved = np.sqrt(np.maximum(before**2 - still**2, 0)).mean()
    rest = np.sqrt(np.maximum(after**2 - still**2, 0)).mean()
    assert rest <= 0.5 * moved


def test_without_noise_the_motion_is_exact(clean):
    moved = clean._replace(volumes=clean.volumes[:5], q=clean.q[:5])
    mm, degrees = rms(estimated(moved, ONE_PASS).motion.q, moved.q)
    assert mm <= 0.01 and degrees <= 0.01


def test_a_still_series_has_no_motion():
    moved = moving_head(np.zeros((5, 6)), noise=0.01)
    mm, degrees = rms(estimated(moved).motion.q, moved.q)
    assert mm <= 0.01 and degrees <= 0.01


def test_both_forms_agree():
    still = moving_head(motions(3), noise=0.001, **SMALL)
    reference = estimated(still, COARSE)
    forward = estimated(still, replace(COARSE, form="forward"))
    difference = np.abs(reference.motion.q - forward.motion.q)
    assert difference[:, :3].max() <= 0.01 and np.degrees(difference[:, 3:].max()) <= 0.01
    np.testing.assert_allclose(reference.motion.scale, forward.motion.scale, rtol=0.005)


@pytest.mark.parametrize(("zooms", "oblique"), [((6.5, 6.5, 6.5), False), ((5.5, 6.5, 8.0), True)])
def test_other_headers_have_the_same_answer(zooms, oblique):
    """On grids of one shape, which share a program."""
    moved = moving_head(motions(3), zooms=zooms, shape=SMALL["shape"], oblique=oblique)
    error = np.abs(estimated(moved, COARSE).motion.q - moved.q)
    assert error[:, :3].max() <= 0.05 and np.degrees(error[:, 3:].max()) <= 0.05


def test_the_residual_has_a_derivative(small):
    """A step along the gradient changes the residual by the gradient's square."""
    grid, options = grid_of(small), COARSE
    model = samples.model_of(small.volumes[0], grid, options)

    @jax.jit
    @jax.value_and_grad
    def residual(volume):
        return register.final_residual(volume, model, grid, options, n_steps=8)

    volume = jnp.asarray(small.volumes[2])
    _, slope = residual(volume)
    assert np.isfinite(slope).all() and float(jnp.abs(slope).max()) > 0
    length = float(jnp.sqrt((slope**2).sum()))
    step = 60 / length  # the error of the difference grows with the square of the step
    above, below = (residual(volume + sign * step * slope)[0] for sign in (1, -1))
    change = (above - below) / (2 * step)
    assert float(change) == pytest.approx(length**2, rel=1e-3)


def test_rounding_hardly_matters(noisy, found, monkeypatch):
    """As on another device: sixteen volumes at a time, and other last digits of every voxel."""
    changes = np.random.default_rng(0).choice(np.float32([-1, 0, 1]), noisy.volumes.shape)
    other = (noisy.volumes + changes * np.spacing(noisy.volumes)).astype(np.float32)
    assert (other != noisy.volumes).mean() > 0.5
    monkeypatch.setattr(register, "MOST_ON_CPU", register.MOST_AT_ONCE)
    off = np.abs(estimated(noisy._replace(volumes=other)).motion.q - found.motion.q)
    assert off[:, :3].max() <= 0.0005 and np.degrees(off[:, 3:].max()) <= 0.0005


@pytest.mark.gpu
def test_a_gpu_finds_the_motion_that_a_cpu_finds(noisy):
    """Of 200 volumes in one call."""
    grid, found = grid_of(noisy), {}
    for kind in ("cpu", "gpu"):
        with jax.default_device(jax.devices(kind)[0]):
            done = series.estimate(lambda i: noisy.volumes[i % 20], 200, grid, RealignOptions())
        assert done.motion.converged.all()
        found[kind] = done.motion.q
    off = np.abs(found["gpu"] - found["cpu"])
    assert off[:, :3].max() <= 0.005 and np.degrees(off[:, 3:].max()) <= 0.005


def test_the_same_shape_compiles_nothing_again(small):
    estimated(small, COARSE)
    n_programs = register._register_chunk._cache_size()
    estimated(small, COARSE)
    assert register._register_chunk._cache_size() == n_programs


def test_one_slice_moves_within_itself():
    """Two translations and a rotation, in the plane of an oblique slice."""
    q = motions(4)
    q[:, 2:5] = 0
    moved = moving_head(q, shape=(48, 50, 1), zooms=(4, 4, 5), oblique=False)
    found = estimated(moved, ONE_PASS)
    mm, degrees = rms(found.motion.q, moved.q)
    assert mm <= 0.02 and degrees <= 0.02
    assert (found.motion.q[:, 2:5] == 0).all()
    assert (found.motion.rank == 3).all()


@pytest.mark.parametrize("change", [{"sequential": True}, {"damping": 0.7}])
def test_other_ways_have_the_same_answer(small, change):
    base = estimated(small, COARSE).motion.q
    found = estimated(small, replace(COARSE, **change)).motion.q
    assert np.abs(found - base).max() <= 2e-3


@pytest.mark.parametrize("size", [2.0**-100, 2.0**90])
def test_intensities_may_have_any_size(small, size):
    """Their squares would be 0, or infinite, in float32."""
    base = estimated(small, COARSE).motion
    volumes = (small.volumes * np.float32(size)).astype(np.float32)
    found = estimated(small._replace(volumes=volumes), COARSE).motion
    np.testing.assert_array_equal(found.q, base.q)
    np.testing.assert_allclose(found.residual_after / size**2, base.residual_after, rtol=1e-6)


def test_a_weight_hides_what_does_not_move(small):
    """A bright block that stays where it is would hold the motion back."""
    volumes = small.volumes.copy()
    volumes[:, 2:9, 2:9, 2:9] += 3 * BRIGHT
    weight = np.ones(small.shape, np.float32)
    weight[:13, :13, :13] = 0
    spoiled = small._replace(volumes=volumes)
    grid = grid_of(small)
    with_weight = series.estimate(lambda i: volumes[i], len(volumes), grid, COARSE, weight=weight)
    error = np.abs(with_weight.motion.q - small.q).max()
    assert error < 0.2 * np.abs(estimated(spoiled, COARSE).motion.q - small.q).max()


def test_the_second_pass_takes_the_mean_of_some_volumes(small, monkeypatch):
    """Here of three; each volume is registered, and compared with its residual without motion."""
    options = replace(COARSE, register_to_mean=True)
    whole = estimated(small, options).motion
    monkeypatch.setattr(series, "MOST_IN_MEAN", 3)
    some = estimated(small, options).motion
    assert np.abs(some.q - small.q).max() <= 0.05 and some.converged.all()
    np.testing.assert_allclose(some.residual_before[1:], whole.residual_before[1:], rtol=0.3)
    assert series.spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    rows = series.spread(200, 48)
    assert len(rows) == 48 and (rows[0], rows[-1]) == (0, 199)
    assert set(np.diff(rows)) == {4, 5}
