"""The form of the solve for a GPU, on a CPU: the same numbers as from the list of voxels."""

import jax
import numpy as np
import pytest

from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4 import estimate as estimating
from n4ax_bids.core.n4 import sharpen, sharpen_direct, solve
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.take import n_at_once
from n4ax_bids.core.n4.whole_rows import FEW_POINTS, looked_up
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

OPTIONS = N4Options(shrink_factor=1, n_iterations=(3, 0, 2))


@pytest.fixture(scope="module")
def head():
    return phantom((24, 26, 22), seed=3, field="coils", amplitude=0.3, noise=0.02)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The numbers of iterations are known to the compiler, and the histogram has copies."""
    monkeypatch.setattr(solve, "_gpu", lambda voxels: jax.local_devices()[0])


def require_equal(found, expected, mask):
    """Control points that hardly any voxel touches may differ more than the field in the mask."""
    box = [(0, n) for n in mask.shape]
    fields = [np.asarray(evaluate(each.log_field, box))[mask] for each in (found, expected)]
    np.testing.assert_allclose(*fields, atol=2e-6)
    assert found.n_iterations == expected.n_iterations
    assert found.n_voxels == expected.n_voxels
    np.testing.assert_allclose(found.convergence, expected.convergence, rtol=2e-3)
    np.testing.assert_allclose(found.log_image_range, expected.log_image_range, atol=1e-6)
    np.testing.assert_allclose(found.log_field_range, expected.log_field_range, atol=2e-6)


@pytest.mark.parametrize("n_bins", (20, 200, 256))
def test_the_map_is_that_of_the_fourier_transforms(n_bins):
    rng = np.random.default_rng(0)
    both = [
        jax.jit(lambda *given, made=module.sharpening_map: made(*given, fwhm=0.15, noise=0.01))
        for module in (sharpen_direct, sharpen)
    ]
    with jax.enable_x64(True):
        for _ in range(20):
            peaks = rng.uniform(0, n_bins, 3)[:, None]
            widths = rng.uniform(0.02, 0.2, 3)[:, None] * n_bins
            counts = 1 + (1e4 * np.exp(-(((np.arange(n_bins) - peaks) / widths) ** 2))).sum(0)
            given = counts, np.float32(rng.uniform(2, 6)), np.float32(rng.uniform(1, 3) / n_bins)
            direct, usual = (np.asarray(made(*given)) for made in both)
            assert direct.dtype == usual.dtype == np.float32
            np.testing.assert_array_almost_equal_nulp(direct, usual, 1)


def test_a_solve_equals_that_of_the_list(head, as_on_a_gpu):
    """With a weight, a mask that is not a box, and a level without iterations."""
    image = head.image.copy()
    image[head.mask.nonzero()[0][0]] *= np.float32(0.9)
    weight = np.where(head.mask, np.float32(0.5) + image / image.max(), 0)
    made = plan(OPTIONS, image.shape)
    found = estimate(image, head.mask, weight, plan=made, on_device=True)
    require_equal(found, estimate(image, head.mask, weight, plan=made, on_device=False), head.mask)


@pytest.mark.parametrize("version", "56")
def test_a_batch_equals_single_solves(head, as_on_a_gpu, version):
    """Of two masks, one without a voxel in many rows; the second image rises in its first row."""
    options = N4Options(shrink_factor=1, n_iterations=(3, 1), itk_version=version)
    made = plan(options, head.image.shape)
    half = head.mask.copy()
    half[:, :, ::2] = False
    rising = head.image.copy()
    z = np.flatnonzero(head.mask.any(axis=(0, 1)))[0]
    y = np.flatnonzero(head.mask[:, :, z].any(axis=0))[0]
    row = head.mask[:, y, z]
    low = np.linspace(0.97, 0.99, np.count_nonzero(row)) * rising[head.mask].min()
    rising[row, y, z] = low  # not so low that the values between have no tissue near them
    given = [head.image, rising], [half, head.mask], [None] * 2
    batch = estimate_batch(*given, plans=[made] * 2, on_device=True, together=True)
    for found, image, mask in zip(batch, *given[:2], strict=True):
        require_equal(found, estimate(image, mask, plan=made, on_device=False), mask)


@pytest.mark.parametrize("alike", (True, False), ids=("one plan", "two plans"))
def test_a_batch_on_many_control_points_equals_single_solves(head, as_on_a_gpu, alike):
    """Images of one plan lie side by side in the sums over the plane there."""
    options = N4Options(shrink_factor=2, n_iterations=(2, 0, 0, 0, 2))
    starts = [(0,) * 3, (0 if alike else 1,) * 3]
    plans = [
        plan(options, head.image.shape, image_start=start, mask_start=start) for start in starts
    ]
    assert (plans[0] == plans[1]) == alike
    half = head.mask.copy()
    half[:, ::3] = False
    given = [head.image, head.image + 1], [half, head.mask], [None] * 2
    batch = estimate_batch(*given, plans=plans, on_device=True, together=True)
    assert min(batch[0].log_field.lattice.shape) > FEW_POINTS
    for found, image, mask, its in zip(batch, *given[:2], plans, strict=True):
        require_equal(found, estimate(image, mask, plan=its, on_device=True), mask)


def test_a_batch_may_have_more_places_than_32_bits_count():
    """Nothing is computed: only the types of the indices matter."""
    table = jax.ShapeDtypeStruct((3, 1 << 30), np.float32)
    index = jax.ShapeDtypeStruct((3, 5), np.int32)
    with jax.enable_x64(True):
        assert jax.eval_shape(jax.vmap(looked_up), table, index).shape == (3, 5)


def test_images_that_do_not_fit_at_once_are_solved_in_parts(head, as_on_a_gpu, monkeypatch):
    """Each part is taken, solved and dropped; errors name the image by its number among all."""
    made = plan(OPTIONS, head.image.shape)
    needed = np.prod(made.sample_shape) * 24
    assert [n_at_once([made] * 3, free) for free in (needed, 4 * needed, np.inf)] == [1, 2, 3]
    parts = []

    def few(plans, free):
        parts.append(len(plans))
        return 2

    monkeypatch.setattr(estimating, "n_at_once", few)
    images = [head.image, 2 * head.image, head.image + 1]
    given = images, [head.mask] * 3, [None] * 3
    found = estimate_batch(*given, plans=[made] * 3, on_device=True, together=True)
    assert parts == [3, 1]
    for one, image in zip(found, images, strict=True):
        require_equal(one, estimate(image, head.mask, plan=made, on_device=False), head.mask)
    images[2] = np.ones_like(head.image)
    with pytest.raises(ValueError, match=r"^images\[2\]: image is constant"):
        estimate_batch(*given, plans=[made] * 3, on_device=True, together=True)
    for there in (True, False):  # a single image has no number
        with pytest.raises(ValueError, match="^image is constant"):
            estimate(images[2], head.mask, plan=made, on_device=there)


def test_an_image_that_rises_beyond_the_first_voxels(as_on_a_gpu):
    """More of them are searched then."""
    image = np.arange(1.0, 1729, dtype=np.float32).reshape(12, 12, 12, order="F")
    image[-1, -1, -2:] = 50
    made = plan(N4Options(shrink_factor=1, n_iterations=(2,)), image.shape)
    both = [estimate(image, plan=made, on_device=there) for there in (True, False)]
    require_equal(*both, np.ones(image.shape, bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.nan}, "image has"),
        ({"mask": np.nan}, "mask has values that are not finite"),
        ({"mask": 0}, "mask or weight is empty"),
        ({"image": 7}, "image is constant"),
    ],
    ids=str,
)
def test_bad_arrays_are_refused_on_a_device_as_well(head, change, message):
    arrays = {"image": head.image.copy(), "mask": head.mask.astype(np.float32)}
    for name, value in change.items():
        arrays[name][:] = value
    given = [jax.numpy.asarray(arrays[name]) for name in ("image", "mask")]
    with pytest.raises(ValueError, match=message):
        estimate(*given, plan=plan(OPTIONS, head.image.shape), on_device=True)
