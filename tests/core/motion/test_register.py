"""Known motion is found: a head given by a formula, on oblique and anisotropic grids."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.motion import register, samples, series, smoothing
from n4ax_bids.core.motion.reslice import reslice
from n4ax_bids.options.realign import RealignOptions
from tests.moving_head import BRIGHT, motions, moving_head, rms

SMALL = {"shape": (28, 30, 22), "zooms": (6.0, 6.0, 7.0)}
ONE_PASS = RealignOptions(register_to_mean=False)
COARSE = RealignOptions(register_to_mean=False, separation=8)
"""for the small grid"""


SIZES = (7168, 49152, 65536)
"""numbers of samples: of the small grids, of the large one, and of the latter before any is
dropped"""


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Pad the samples to few sizes, so that images that keep a few more share a program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "bucket", lambda n: next(size for size in SIZES if n <= size))
        yield


def grid_of(moved):
    return smoothing.grid_of(moved.affine, moved.shape)


def estimated(moved, options=None):
    volumes = moved.volumes
    return series.estimate(
        lambda i: volumes[i], len(volumes), grid_of(moved), options or RealignOptions()
    )


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


@pytest.fixture(scope="module")
def small():
    return moving_head(motions(5), noise=0.005, **SMALL)


def test_thick_slices_do_not_blur_the_plane():
    """With one width for all axes, slices of 17 mm would hide what the plane shows."""
    grid = smoothing.grid_of(np.diag([-0.95, 0.95, 17, 1]), (68, 68, 6))
    np.testing.assert_allclose(smoothing.width(grid, RealignOptions()), [5, 5, 1.6 * 17])
    np.testing.assert_allclose(smoothing.width(grid, RealignOptions(fwhm=6)), 6)


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
