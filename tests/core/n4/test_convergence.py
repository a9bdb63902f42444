import jax
import numpy as np
import pytest

from n4ax_bids.core.n4 import convergence


def plain_itk(difference):
    """ITK's recursion with numpy's float32 scalars."""
    f = np.float32
    mean, squares = f(0), f(0)
    for i, d in enumerate(difference):
        value, count = f(np.exp(np.float64(d))), f(i + 1)
        if count > 1:
            wide = np.float64(count)
            term = np.float64(f(f(value - mean) ** 2)) * (wide - 1) / wide
            squares = f(np.float64(squares) + term)
        mean = f(np.float64(mean) * (1 - 1 / np.float64(count)) + np.float64(f(value / count)))
    return np.sqrt(squares / f(difference.size - 1)) / mean


def difference(n, seed=0):
    rng = np.random.default_rng(seed)
    smooth = 1e-3 * np.sin(np.arange(n) / 300) + 1e-3
    return (smooth + 3e-4 * rng.normal(size=n)).astype(np.float32)


def test_itk_statistic_needs_no_cpu_device(monkeypatch):
    """JAX_PLATFORMS=cuda leaves none; the default device computes it then."""
    expected = convergence.itk(difference(1000))

    def without_cpu(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    assert convergence.itk(difference(1000)) == expected


@pytest.mark.parametrize("n", (2, 3, 1000, 4097))
def test_itk_statistic_follows_the_recursion(n):
    d = difference(n)
    assert convergence.itk(d) == pytest.approx(plain_itk(d), rel=1e-6)


def test_itk_statistic_is_biased_where_the_mean_freezes():
    """What the emulation is for: a field that changes along the raster (docs/method.md §8)."""
    n = 400_000
    d = np.linspace(-2e-3, 2e-3, n).astype(np.float32)
    true = np.exp(d.astype(np.float64)).std(ddof=1) / np.exp(d.astype(np.float64)).mean()
    assert convergence.itk(d) > 1.05 * true


def test_exact_statistic():
    d = difference(50_000)
    mask = np.random.default_rng(1).uniform(size=d.size) > 0.3
    e = np.exp(d[mask].astype(np.float64))
    with jax.enable_x64(True):
        found = convergence.exact(*convergence.sums(d, jax.numpy.asarray(mask)), mask.sum())
    # expm1 of float32 numbers has 7 digits
    assert float(found) == pytest.approx(e.std(ddof=1) / e.mean(), rel=1e-5)


def test_no_change_is_zero():
    with jax.enable_x64(True):
        d, mask = jax.numpy.zeros(10, np.float32), jax.numpy.ones(10, bool)
        assert float(convergence.exact(*convergence.sums(d, mask), 10)) == 0
