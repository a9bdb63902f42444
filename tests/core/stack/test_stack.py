"""Stacks: recovery of known fields, sections alone and together, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from n4ax_bids.core.field import evaluate
from n4ax_bids.core.stack.call import correct_stack, thinned_stack
from n4ax_bids.core.stack.correction import correct_planes
from n4ax_bids.core.stack.estimate import estimate_stack
from n4ax_bids.options import StackOptions
from tests.core.stack.stacks import PLAIN, cv, ellipsoid, solved


@pytest.fixture(scope="module")
def known():
    # As many voxels as the tissue of `solved`, to the padding: the same programs solve both.
    return ellipsoid(radius=1.0)


@pytest.fixture(scope="module")
def answers(known):
    """The answer of each mode for two sections."""
    return {
        mode: correct_stack(
            known.image, known.mask, options=StackOptions(**PLAIN, sections=2, mode=mode)
        )
        for mode in ("global", "per_section", "two_pass")
    }


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_a_known_field_is_recovered(seed):
    known = ellipsoid(seed=seed)
    options = StackOptions(**PLAIN, mode="global")
    done = correct_stack(known.image, known.mask, options=options)
    assert cv((done.bias / known.field)[known.mask]) <= 0.05
    inner = known.inner
    assert cv(done.corrected[inner]) <= 0.5 * cv(known.image[inner])


@pytest.mark.parametrize("mode", ("global", "per_section", "two_pass"))
def test_corrected_times_bias_is_the_input(known, answers, mode):
    done = answers[mode]
    np.testing.assert_allclose(done.corrected * done.bias, known.image, rtol=1e-5)


def test_no_strength_returns_the_input(known):
    options = StackOptions(**PLAIN | {"match": "section"}, strength=0, mode="global")
    done = correct_stack(known.image, known.mask, options=options)
    np.testing.assert_array_equal(done.corrected, known.image)


def test_half_the_strength_is_half_way(known, answers):
    options = StackOptions(**PLAIN, strength=0.5, sections=2)
    done = correct_stack(known.image, known.mask, options=options)
    expected = (answers["two_pass"].corrected + known.image) / 2
    np.testing.assert_allclose(done.corrected, expected, rtol=1e-5)


def test_two_passes_multiply(known, answers):
    done = answers["two_pass"].correction
    whole = np.exp(np.asarray(evaluate(done.whole, [(0, n) for n in known.image.shape])))
    expected = answers["per_section"].bias * whole
    np.testing.assert_allclose(answers["two_pass"].bias, expected, rtol=2e-6)


def test_each_section_is_corrected_as_if_alone(known, answers):
    """S7; and the lattices are the same bits whatever the batch."""
    together = answers["per_section"]
    for section in together.correction.sections:
        part = slice(section.start, section.stop)
        alone = correct_stack(
            known.image[part],
            known.mask[part],
            options=StackOptions(**PLAIN, mode="per_section"),
        )
        np.testing.assert_allclose(together.corrected[part], alone.corrected, rtol=1e-5)
        (its,) = alone.correction.sections
        np.testing.assert_array_equal(its.log_field.lattice, section.log_field.lattice)


def test_solving_sections_at_once_changes_nothing(known):
    options = StackOptions(**PLAIN | {"n_iterations": (6, 6)}, sections=2, mode="per_section")
    exact = options.__class__(**{**vars(options), "convergence_threshold": 0.0})
    alone, at_once = (
        estimate_stack(
            thinned_stack(known.image, known.mask, (1, 1, 1), exact), exact, together=each
        )
        for each in (False, True)
    )
    on_cpu = jax.local_devices()[0].platform == "cpu"
    for one, other in zip(alone.sections, at_once.sections, strict=True):
        its, lattice = (np.asarray(each.log_field.lattice) for each in (one, other))
        if on_cpu:  # the products of a batch are those of its members, one after the other
            np.testing.assert_array_equal(its, lattice)
        np.testing.assert_allclose(its, lattice, rtol=1e-5, atol=1e-6)


def test_tissue_is_found_and_the_rest_set_to_0(known):
    done = solved()
    overlap = (done.mask & known.inner).sum() / (done.mask | known.inner).sum()
    assert overlap >= 0.9 and (done.corrected[~done.mask] == 0).all()


def test_a_section_without_tissue_is_left_alone(known):
    mask = known.mask.copy()
    mask[:14] = False
    options = StackOptions(**PLAIN, sections=2, mode="per_section")
    done = correct_stack(known.image, mask, options=options)
    np.testing.assert_array_equal(done.corrected[:14], known.image[:14])
    assert done.correction.notes == ("planes 0 to 13: no tissue with contrast, not corrected",)


def test_every_plane_can_be_a_section():
    known = ellipsoid((4, 40, 40), radius=9)
    options = StackOptions(**PLAIN, sections=None, mode="per_section")
    done = correct_stack(known.image, known.mask, options=options)
    assert np.isfinite(done.corrected).all()
    assert cv(done.corrected[2][known.inner[2]]) < cv(known.image[2][known.inner[2]])


def test_slabs_of_any_height_give_the_same(known, answers):
    """S11 for the division; the verb `stream` tests the rest."""
    done, whole = answers["two_pass"].correction, answers["two_pass"].corrected
    for height in (1, 7):
        for start in range(0, 28, height):
            part = correct_planes(known.image[start : start + height], done, start, height=height)
            np.testing.assert_allclose(part.image, whole[start : start + height], rtol=1e-6)


def test_two_runs_give_the_same_bits(known, answers):
    options = StackOptions(**PLAIN, sections=2)
    again = correct_stack(known.image, known.mask, options=options)
    np.testing.assert_array_equal(again.corrected, answers["two_pass"].corrected)


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu(known, answers):
    """S17."""
    options = StackOptions(**PLAIN, sections=2)
    with jax.default_device(jax.devices("gpu")[0]):
        found = correct_stack(jnp.asarray(known.image), known.mask, options=options)
    np.testing.assert_allclose(found.bias, answers["two_pass"].bias, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vol": np.ones((4, 4))}, "vol has shape"),
        ({"mask": np.ones((2, 2, 2))}, "mask has shape"),
        ({"mask": np.zeros((6, 8, 8))}, "mask is empty"),
        ({"mask": "otsu"}, "mask is 'otsu'"),
        ({"voxel_size_mm": (1, 1)}, "voxel_size_mm is"),
        ({"voxel_size_mm": (1, 0, 1)}, "voxel_size_mm is"),
        ({"options": StackOptions(sections=7)}, "sections is 7; expected 1 to 6"),
    ],
)
def test_bad_input_is_named(arguments, message):
    vol = np.random.default_rng(0).uniform(1, 2, (6, 8, 8))
    with pytest.raises(ValueError, match=message):
        correct_stack(**{"vol": vol, "mask": None} | arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "both"),
        ("strength", 1.5),
        ("shrink_factor", 0),
        ("match", "all"),
        ("profile_sigma", -1),
        ("zero_outside", "no"),
        ("section_spline_mm", 0),
        ("sections", 1.5),
    ],
)
def test_bad_options_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        StackOptions(**{name: value})
