"""What only a GPU can show: the same numbers as on a CPU, the same each time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.estimator import Given
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4 import residual, sharpen
from n4ax_bids.core.n4.call import n4, n4_batch
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.method import prepare
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

pytestmark = pytest.mark.gpu

OPTIONS = N4Options(shrink_factor=1, n_iterations=(20, 10, 5))
N_BINS = 200


@pytest.fixture(scope="module")
def head():
    return phantom((48, 52, 40), seed=3, field="coils", amplitude=0.3, noise=0.02)


@pytest.fixture(scope="module")
def cpu():
    return jax.local_devices(backend="cpu")[0]


def test_the_histogram_has_the_bits_of_a_cpu(cpu):
    """Roundings to float32 that the compiler could leave out decide about them."""
    view = np.random.default_rng(0).normal(5, 0.5, 100_000).astype(np.float32)

    @jax.jit
    def map_of(view):
        low = view.min()
        width, _ = residual.width_of(low, view.max(), N_BINS, view.dtype)
        bins = sharpen.find_bins(sharpen.find_position(view, low, width, N_BINS), N_BINS)
        total = sharpen.tally(bins, None, N_BINS, view.size, copies=64)
        counts = sharpen.histogram(total, view.size)
        return counts, sharpen.sharpening_map(counts, low, width, fwhm=0.15, noise=0.01)

    with jax.enable_x64(True):
        found, expected = (
            map_of(jax.device_put(view, device)) for device in (jax.devices()[0], cpu)
        )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_almost_equal_nulp(np.asarray(found[1]), np.asarray(expected[1]), 1)


def test_a_field_is_that_of_a_cpu(head, cpu):
    made = plan(OPTIONS, head.image.shape)
    box = [(0, n) for n in head.mask.shape]
    with jax.default_device(cpu):
        expected = np.asarray(evaluate(estimate(head.image, head.mask, plan=made).log_field, box))
    for on_device in (True, False):
        found = estimate(head.image, head.mask, plan=made, on_device=on_device)
        field = np.asarray(evaluate(found.log_field, box))
        np.testing.assert_allclose(field[head.mask], expected[head.mask], atol=5e-5)


def test_ten_solves_have_the_same_bits(head):
    made, given = plan(OPTIONS, head.image.shape), map(jnp.asarray, (head.image, head.mask))
    image, mask = given
    every = {estimate(image, mask, plan=made).log_field.lattice.tobytes() for _ in range(10)}
    assert len(every) == 1
    batch = estimate_batch([image] * 3, [mask] * 3, [None] * 3, plans=[made] * 3, together=True)
    assert len({one.log_field.lattice.tobytes() for one in batch}) == 1


def test_an_image_has_the_same_bits_in_any_company(head):
    small = head.mask.copy()
    small[:, :, :16] = False
    images = [(head.image, head.mask), (head.image + 1, head.mask), (head.image, small)]
    joints = [prepare(Given(*each, None, (1, 1, 1)), OPTIONS).joint() for each in images]
    alone = [one.solve([])[0].log_field.lattice.tobytes() for one in joints]
    assert len(set(alone)) == 3
    for first in range(3):
        others = [number for number in range(3) if number != first]
        together = joints[first].solve([joints[i] for i in others])
        found = [one.log_field.lattice.tobytes() for one in together]
        assert found == [alone[i] for i in (first, *others)]


def test_arrays_stay_on_the_device(head):
    image = jnp.asarray(head.image)
    corrected = n4(image, "otsu", options=OPTIONS)
    assert corrected.devices() == image.devices()
    for one in n4_batch([image] * 2, "otsu", options=OPTIONS):
        assert one.devices() == image.devices()
        np.testing.assert_allclose(one, corrected, rtol=1e-5)
