"""N4 without another program: closed forms, invariance, recovery, bad input."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4.call import n4
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.take import take
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

SHORT = N4Options(shrink_factor=2, n_iterations=(8, 8))


@pytest.fixture(scope="module")
def head():
    return phantom((40, 36, 32), seed=3, field="polynomial", amplitude=0.4, noise=0.02)


def log_bias_of(image, mask, options=SHORT, **kwargs):
    return np.asarray(n4(image, mask, options=options, return_bias=True, **kwargs)[1])


def test_corrected_is_image_over_field(head):
    corrected, log_bias = n4(head.image, options=SHORT, return_bias=True)
    assert corrected.shape == log_bias.shape == head.image.shape
    np.testing.assert_allclose(corrected, head.image / np.exp(log_bias), rtol=1e-6, atol=1e-6)


def test_known_field_is_recovered(head):
    options = N4Options(shrink_factor=2, n_iterations=(30, 30, 30))
    found = log_bias_of(head.image, head.mask, options)[head.mask]
    true = head.log_field[head.mask]
    assert np.corrcoef(found, true)[0, 1] > 0.9
    assert np.std(found - true) < 0.5 * np.std(true)


def test_result_tells_how_it_went(head):
    options = N4Options(n_iterations=(20, 3, 0, 4), convergence_threshold=5e-3)
    result = estimate(head.image, head.mask, plan=plan(options, head.image.shape))
    assert result.n_iterations[2] == 0 and not result.converged[2]
    assert np.isnan(result.convergence[2])
    for n, most, value, ended in zip(
        result.n_iterations, (20, 3, 0, 4), result.convergence, result.converged, strict=True
    ):
        assert n <= most
        assert ended == (value <= 5e-3)
    assert result.n_voxels == np.count_nonzero(head.mask[2:40:4, 2:36:4, 2:32:4])
    assert result.log_field.lattice.shape == (11, 11, 11)  # 4, 5, 7, 11


@pytest.mark.parametrize(
    "options",
    [
        N4Options(n_iterations=(4, 0, 3)),
        N4Options(n_iterations=(20, 20), convergence_threshold=5e-3),
        N4Options(
            n_iterations=(20, 20), convergence_threshold=5e-3, convergence_statistic="exact"
        ),
    ],
    ids=("no threshold", "itk", "exact"),
)
def test_a_report_of_each_iteration_changes_nothing(head, options):
    def solve(**kwargs):
        return estimate(head.image, head.mask, plan=plan(options, head.image.shape), **kwargs)

    told = []
    silent, result = solve(), solve(report=lambda *line: told.append(line))
    # On a GPU, the program of a silent solve is another one, which rounds in another order.
    on_gpu = jax.local_devices()[0].platform != "cpu"
    lattices = (each.log_field.lattice for each in (result, silent))
    np.testing.assert_allclose(*lattices, rtol=0, atol=1e-6 * on_gpu)
    np.testing.assert_allclose(result.convergence, silent.convergence, rtol=2e-3 * on_gpu)
    assert result[1:2] + result[3:5] == silent[1:2] + silent[3:5]
    np.testing.assert_allclose(result[5:], silent[5:], rtol=0, atol=1e-6 * on_gpu)
    lines = [(level, n) for level, n, _ in told]
    assert lines == [
        (level, n + 1) for level, done in enumerate(result.n_iterations, 1) for n in range(done)
    ]
    assert all(0 < value < 1 for *_, value in told)
    if options.convergence_threshold:
        assert result.converged == (True, True)
        assert told[-1][-1] == result.convergence[-1] <= 5e-3


@pytest.mark.parametrize("factor", (0.01, 8.0, 1000.0))
def test_scale_of_intensities_does_not_matter(head, factor):
    """ln c is added to every log intensity: only its rounding is left."""
    options = N4Options(shrink_factor=1, n_iterations=(5,))
    one, other = (log_bias_of(head.image * np.float32(f), head.mask, options) for f in (1, factor))
    # Float32 logs of up to 10 have steps of 1e-6; the largest voxel of 14 000 can fall out of
    # the histogram by one of them (docs/method.md §12)
    np.testing.assert_allclose(other, one, atol=5e-5)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_order_of_axes_does_not_matter(head, axes):
    options = N4Options(shrink_factor=1, n_iterations=(5,), n_control_points=(4, 5, 6))
    permuted = N4Options(
        shrink_factor=1, n_iterations=(5,), n_control_points=tuple((4, 5, 6)[a] for a in axes)
    )
    one = log_bias_of(head.image, head.mask, options)
    other = log_bias_of(head.image.transpose(axes), head.mask.transpose(axes), permuted)
    np.testing.assert_allclose(other, one.transpose(axes), atol=5e-6)


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_flips_do_not_matter(head, axis):
    """But for the end of the axis, which ITK pulls in by a thousandth of a voxel."""
    options = N4Options(shrink_factor=1, n_iterations=(5,))
    one = log_bias_of(head.image, head.mask, options)
    other = log_bias_of(np.flip(head.image, axis), np.flip(head.mask, axis), options)
    np.testing.assert_allclose(np.flip(other, axis), one, atol=1e-4)


def test_values_outside_the_mask_do_not_matter(head):
    spoiled = np.where(head.mask, head.image, 1e6).astype(np.float32)
    np.testing.assert_array_equal(
        log_bias_of(spoiled, head.mask), log_bias_of(head.image, head.mask)
    )


def test_weight_zero_is_outside_and_equal_weights_cancel(head):
    weight = np.where(head.mask, np.float32(0.25), 0)
    np.testing.assert_allclose(
        log_bias_of(head.image, None, weight=weight),
        log_bias_of(head.image, head.mask),
        atol=1e-6,
    )


def test_singleton_axis_is_the_image_without_it():
    slice_2d = phantom((48, 40), seed=1, field="coils", amplitude=0.3, noise=0.01)
    options = N4Options(shrink_factor=1, n_iterations=(4,))
    flat = log_bias_of(slice_2d.image, slice_2d.mask, options)
    thick = log_bias_of(slice_2d.image[:, None], slice_2d.mask[:, None], options)
    np.testing.assert_allclose(thick[:, 0], flat, atol=2e-5)


def test_padding_of_a_spline_distance_equals_a_padded_image(head):
    """What is done analytically, done by copying: zeros around image and mask."""
    zooms = (2.0, 1.5, 1.0)
    options = N4Options(shrink_factor=2, n_iterations=(5, 5), bspline_fitting_distance=30.0)
    from n4ax_bids.core.n4.shrinking import padding

    pads = padding(options, head.image.shape, zooms)
    assert any(sum(pad) for pad in pads)
    solved = plan(options, head.image.shape, zooms)
    spans = tuple(m - 3 for m in solved.n_control_points)
    image, mask = np.pad(head.image, pads), np.pad(head.mask, pads)
    copied = N4Options(
        shrink_factor=2,
        n_iterations=(5, 5),
        n_control_points=tuple(s + 3 for s in spans),
        shrink_start=tuple(
            start + pad[0] for start, pad in zip(solved.image_start, pads, strict=True)
        ),
    )
    box = [(pad[0], pad[0] + n) for pad, n in zip(pads, head.image.shape, strict=True)]
    expected = evaluate(estimate(image, mask, plan=plan(copied, image.shape)).log_field, box)
    found = evaluate(
        estimate(head.image, head.mask, plan=solved).log_field, [(0, n) for n in head.image.shape]
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_refine_false_keeps_one_mesh(head):
    options = N4Options(n_iterations=(4, 4), refine=False)
    result = estimate(head.image, head.mask, plan=plan(options, head.image.shape))
    one = N4Options(n_iterations=(8,))
    longer = estimate(head.image, head.mask, plan=plan(one, head.image.shape))
    np.testing.assert_allclose(result.log_field.lattice, longer.log_field.lattice, atol=2e-6)


def test_over_relaxation_goes_the_same_way_faster(head):
    """n iterations at factor 1.8 go as far as 1.8 n at factor 1.

    N4 has no fixed point to compare at: its field still drifts after 2000 iterations.
    """
    shape = head.image.shape

    def field(factor, n):
        options = N4Options(shrink_factor=2, n_iterations=(n,), over_relaxation=factor)
        result = estimate(head.image, head.mask, plan=plan(options, shape))
        values = np.asarray(evaluate(result.log_field, [(0, n) for n in shape]))[head.mask]
        return values - values.mean()

    plain, further, relaxed = field(1.0, 500), field(1.0, 900), field(1.8, 500)
    assert np.std(relaxed - further) < 0.2 * np.std(further - plain)


def test_float32_is_as_good_as_float64(head):
    """The full-run bounds of the acceptance list."""
    options = N4Options(shrink_factor=1)
    wide = N4Options(shrink_factor=1, precision="float64")
    inside = head.mask
    ratio = np.exp(
        log_bias_of(head.image, inside, options) - log_bias_of(head.image, inside, wide)
    )
    error = np.abs(ratio[inside] - 1)
    assert error.mean() <= 5e-5
    assert np.quantile(error, 0.99) <= 2e-4
    assert error.max() <= 5e-4


def test_same_call_gives_the_same_bits(head):
    options = N4Options(shrink_factor=1, n_iterations=(10, 10))
    one, other = (log_bias_of(head.image, head.mask, options) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_fresh_processes_give_the_same_bits():
    program = (
        "import hashlib, numpy as np\n"
        "from n4ax_bids import N4Options, n4\n"
        "from n4ax_bids.phantoms import phantom\n"
        "head = phantom((40, 36, 32), seed=3, field='polynomial', amplitude=0.4, noise=0.02)\n"
        "made = n4(head.image, options=N4Options(n_iterations=(10, 10)), return_bias=True)\n"
        "print(hashlib.sha256(b''.join(np.asarray(a).tobytes() for a in made)).hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def test_jax_array_in_jax_array_out(head):
    image = jax.numpy.asarray(head.image)
    corrected = n4(image, options=SHORT)
    assert isinstance(corrected, jax.Array)
    np.testing.assert_allclose(corrected, n4(head.image, options=SHORT), rtol=1e-6, atol=1e-6)


def test_callers_settings_stay_as_they_are(head):
    """Local float64 must not leak: the caller's arrays stay float32."""
    n4(head.image, options=SHORT)
    assert not jax.config.jax_enable_x64
    assert jax.numpy.ones(3).dtype == np.float32


def nan(image):
    image = image.copy()
    image[20, 18, 16] = np.nan
    return image


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda h: (h.image, h.mask[1:]), "mask has shape"),
        (lambda h: (h.image, np.zeros_like(h.mask)), "mask or weight is empty"),
        (lambda h: (nan(h.image), None), "not finite"),
        (lambda h: (np.full_like(h.image, 7), None), "constant"),
        (lambda h: (h.image, "bet"), "'brain' or None"),
        (lambda h: (h.image[0, 0], None), "expected 2 or 3"),
    ],
)
def test_what_does_not_fit_is_named(head, change, words):
    image, mask = change(head)
    with pytest.raises(ValueError, match=words):
        n4(image, mask, options=N4Options(shrink_factor=1, n_iterations=(1,)))


@pytest.mark.parametrize("rising", (False, True))
def test_slabs_of_a_voxel_or_two(rising):
    """Too little to see whether the image rises from its first voxel on: refused, or the same."""
    mask = np.zeros((64, 64, 64), bool)
    mask[32, 32, ::2] = True
    image = np.ones(mask.shape, np.float32)
    values = np.random.default_rng(0).random(32) + 1
    image[mask] = np.sort(values) if rising else np.sort(values)[::-1]
    its = plan(N4Options(shrink_factor=1, n_iterations=(2,)), image.shape)
    whole = estimate(image, mask, plan=its).log_field.lattice
    with jax.enable_x64(True):
        taken = take(image, mask, None, its)
    for slabs in (2, 16, 32, 64):
        free = taken.n_bytes(slabs)
        if rising or slabs >= 32:
            with pytest.raises(MemoryError, match="rises throughout the first of"):
                estimate(image, mask, plan=its, memory=free)
        else:
            again = estimate(image, mask, plan=its, memory=free).log_field.lattice
            np.testing.assert_allclose(again, whole, rtol=0, atol=1e-6)
