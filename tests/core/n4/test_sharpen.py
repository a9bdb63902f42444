import jax
import numpy as np
import pytest

from n4ax_bids.core.n4 import sharpen


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def float32(value):
    return jax.numpy.asarray(value, np.float32)


def bins_at(position, n_bins):
    found = sharpen.find_position(jax.numpy.asarray(position), float32(0), float32(1), n_bins)
    return sharpen.find_bins(found, n_bins)


def histogram(position, mask, n_bins, copies=1):
    bins, mask = bins_at(position, n_bins), jax.numpy.asarray(mask)
    counted = sharpen.tally(bins, mask, n_bins, mask.size, copies=copies)
    return sharpen.histogram(counted, mask.size)


def test_position_is_the_correctly_rounded_quotient():
    """One misrounded quotient drops the largest voxel from the histogram (docs/method.md §4.2)."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(5, 2, 50_000).astype(np.float32)
        v_min = values.min()
        slope = np.float32((values.max() - v_min) / np.float32(199))
        found = jax.jit(sharpen.find_position, static_argnums=3)(
            values, float32(v_min), float32(slope), 200
        )
        bins = sharpen.find_bins(found, 200)
        position = (values - v_min) / slope  # numpy divides correctly
        inside = position <= 199
        assert 0.99 < inside.mean()
        np.testing.assert_array_equal(bins.lower[inside], np.floor(position[inside]).astype(int))
        np.testing.assert_array_equal(bins.offset[inside], (position - np.floor(position))[inside])
        assert (bins.lower[~inside] == 199).all()
        assert (bins.offset[~inside] == -1).all()


def plain_histogram(position, n_bins):
    counts = np.zeros(n_bins)
    for c in position:
        j = int(np.floor(c))
        if c == j and 0 <= j < n_bins:
            counts[j] += 1
        elif 0 <= j < n_bins - 1:
            counts[j] += 1 - (c - j)
            counts[j + 1] += c - j
    return counts


@pytest.mark.parametrize("copies", [1, 7])
def test_histogram_shares_values_and_drops_what_lies_beyond_the_last_bin(copies):
    rng = np.random.default_rng(1)
    position = np.concatenate(
        [rng.uniform(-0.5, 20.4, 3000), np.arange(21), [19.00001, -1.0]]
    ).astype(np.float32)
    mask = rng.uniform(size=position.size) > 0.2
    counts = histogram(position, mask, 20, copies)
    # 3000 offsets of 24 binary digits each
    np.testing.assert_allclose(counts, plain_histogram(position[mask], 20), atol=1e-4)


def test_histogram_does_not_depend_on_the_order_nor_on_the_copies():
    rng = np.random.default_rng(2)
    position = rng.uniform(0, 199, 100_000).astype(np.float32)
    everything = np.ones(position.size, bool)
    one = histogram(position, everything, 200)
    for other, copies in ((rng.permutation(position), 1), (position, 64)):
        np.testing.assert_array_equal(one, histogram(other, everything, 200, copies))


def plain_map(counts, v_min, h, fwhm, noise):
    """The equations of docs/method.md in float64, by circular sums instead of a transform."""
    n_bins = counts.size
    n = 512
    a = (n - n_bins) // 2
    distance = np.minimum(np.arange(n), n - np.arange(n))
    f = fwhm / h
    gaussian = 2 * np.sqrt(np.log(2) / np.pi) / f * np.exp(-4 * np.log(2) * (distance / f) ** 2)
    padded = np.zeros(n)
    padded[a : a + n_bins] = counts
    matrix = gaussian[(np.arange(n)[:, None] - np.arange(n)) % n]
    hat = np.fft.fft(gaussian).real
    wiener = np.fft.ifft(hat / (hat**2 + noise)).real
    u = np.maximum(wiener[(np.arange(n)[:, None] - np.arange(n)) % n] @ padded, 0)
    x = v_min + (np.arange(n) - a) * h
    return ((matrix @ (x * u)) / (matrix @ u))[a : a + n_bins]


def test_map_equals_the_equations():
    x = np.arange(200)
    counts = np.exp(-0.5 * ((x - 60) / 9) ** 2) + 2 * np.exp(-0.5 * ((x - 120) / 12) ** 2) + 1e-3
    v_min, h = 3.0, 0.012
    found = sharpen.sharpening_map(
        jax.numpy.asarray(counts), float32(v_min), float32(h), fwhm=0.15, noise=0.01
    )
    assert found.dtype == np.float32
    # float32 roundings of the histogram, the Gaussian and the result
    np.testing.assert_allclose(found, plain_map(counts, v_min, h, 0.15, 0.01), atol=2e-6)


@pytest.mark.parametrize(
    "n_bins, padded",
    [(2, 8), (3, 8), (63, 128), (64, 256), (65, 256), (200, 512), (256, 1024), (257, 1024)]
    + [(8192, 16384), (16384, 65536), (32768, 65536), (65536, 262144)],
)
def test_padded_size_follows_the_float32_logarithm(n_bins, padded):
    """Of 8192 and 32768 the float32 logarithm is not above the true one."""
    assert sharpen.padded_size(n_bins) == padded


def test_map_sharpens():
    """Values beside a tissue's peak are moved towards it."""
    x = np.arange(200)
    counts = np.exp(-0.5 * ((x - 100) / 6) ** 2)
    found = np.asarray(
        sharpen.sharpening_map(
            jax.numpy.asarray(counts), float32(0), float32(0.01), fwhm=0.15, noise=0.01
        )
    )
    assert found[100] == pytest.approx(1, abs=1e-3)
    assert 0.88 < found[88] < 1 < found[112] < 1.12


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_lookup_is_linear_and_wraps_below(dtype):
    expected = jax.numpy.asarray(np.array([0, 10, 30, 60], dtype))
    position = np.array([0, 0.5, 1.25, 2.5, 3, 3.7, -0.2], np.float32)
    bins = bins_at(position, 4)
    found = sharpen.sharpened(bins, expected, sharpen.rise(expected))
    np.testing.assert_allclose(found, [0, 5, 15, 45, 60, 60, 60], rtol=1e-6)


@pytest.mark.parametrize("last", (7.25, -1))
def test_what_repeats_the_last_value_does_not_count(last):
    rng = np.random.default_rng(5)
    position = np.append(rng.uniform(0, 30, 50), last).astype(np.float32)
    repeated = np.append(position, np.full(13, last, np.float32))
    counts = [
        sharpen.tally(bins_at(values, 31), None, 31, 100, repeats=values.size - position.size)
        for values in (position, repeated)
    ]
    np.testing.assert_array_equal(*counts)
