"""Images that wait for a GPU, solved together; the same program runs on a CPU here."""

from __future__ import annotations

import gc
import weakref

import jax
import numpy as np
import pytest

from n4ax_bids.core.estimator import Estimate, Given
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4 import joint as joining
from n4ax_bids.core.n4 import solve
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.method import prepare
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

OPTIONS = N4Options(shrink_factor=2, n_iterations=(4, 3), convergence_threshold=0)
ZOOMS = (1.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """The numbers of iterations are known to the compiler, and the histogram has copies."""
    monkeypatch.setattr(solve, "_gpu", lambda voxels: jax.local_devices()[0])


@pytest.fixture(scope="module")
def heads():
    """Three of one shape; the mask of the last one has fewer rows."""
    made = [
        phantom((40, 44, 36), seed=seed, field="coils", amplitude=0.3, noise=0.02)
        for seed in (1, 2, 3)
    ]
    small = made[2].mask.copy()
    small[:, :, :14] = False
    return [(made[0].image, made[0].mask), (made[1].image, made[1].mask), (made[2].image, small)]


def solve_of(image, mask, weight=None, options=OPTIONS):
    return prepare(Given(image, mask, weight, ZOOMS), options)


def joint_of(*given, **more):
    return solve_of(*given, **more).joint()


def bits(estimate):
    assert isinstance(estimate, Estimate)
    return np.asarray(estimate.log_field.lattice).tobytes()


def test_an_image_has_the_same_bits_in_any_company(heads):
    joints = [joint_of(*head) for head in heads]
    assert len({one.kind for one in joints}) == 1
    alone = [bits(one.solve([])[0]) for one in joints]
    assert len(set(alone)) == 3
    for first in range(3):
        others = [number for number in range(3) if number != first]
        found = joints[first].solve([joints[i] for i in others])
        assert [bits(one) for one in found] == [alone[i] for i in (first, *others)]
    full = [joints[i % 3] for i in range(joining.MOST)]
    assert [bits(one) for one in full[0].solve(full[1:])] == [
        alone[i % 3] for i in range(joining.MOST)
    ]


def test_the_fields_are_those_of_single_solves(heads):
    """With the numbers of iterations and of voxels; weights as well."""
    for weight in (None, np.linspace(0.2, 1, heads[0][0].size, dtype=np.float32)):
        weights = None if weight is None else weight.reshape(heads[0][0].shape)
        solves = [solve_of(*head, weights) for head in heads]
        first, *others = (one.joint() for one in solves)
        for found, single, (image, mask) in zip(first.solve(others), solves, heads, strict=True):
            given = single.given
            there = estimate(given.image, mask, given.weight, plan=single.plan, on_device=True)
            expected = single._described(there)
            box = [(0, n) for n in image.shape]
            both = [np.asarray(evaluate(one.log_field, box))[mask] for one in (found, expected)]
            np.testing.assert_allclose(*both, atol=2e-7)
            assert np.ptp(both[0]) > 0.1
            assert found.details.n_iterations == expected.details.n_iterations == (4, 3)
            assert found.details.n_voxels_used == expected.details.n_voxels_used
            assert found.notes == expected.notes


def test_an_image_that_does_not_fit_has_its_error_and_the_others_their_fields(heads):
    image, mask = heads[0]
    constant, empty = np.ones_like(image), np.zeros_like(mask)
    odd = np.where(mask, np.nan, image)
    company = [joint_of(constant, mask), joint_of(image, empty), joint_of(odd, mask)]
    first = joint_of(image, mask)
    fine, *errors = first.solve(company)
    assert bits(fine) == bits(first.solve([])[0])
    messages = ("image is constant (1.0)", "none of 63360 voxels is inside", "18920 values that")
    for error, message in zip(errors, messages, strict=True):
        assert isinstance(error, ValueError)
        assert message in str(error)


def test_an_error_holds_no_image(heads):
    """Nor does a result hold the lattices of the company."""
    image, mask = heads[0]
    joints = [joint_of(image, mask), joint_of(np.ones_like(image), mask)]
    kept = [weakref.ref(one) for one in joints]
    gc.collect()
    gc.disable()
    try:
        found = joints[0].solve(joints[1:])
        del joints
        assert [one() for one in kept] == [None, None]
    finally:
        gc.enable()
    fine, error = found
    assert isinstance(error, ValueError)
    lattice = fine.log_field.lattice
    assert (lattice if lattice.base is None else lattice.base).size == lattice.size


def test_an_image_whose_values_rise_is_solved_again_alone(heads):
    """Its first voxels are searched for the end of the rise, more of them then."""
    image = np.arange(1.0, 1729, dtype=np.float32).reshape(12, 12, 12, order="F")
    image[-1, -1, -2:] = 50
    options = N4Options(shrink_factor=1, n_iterations=(2,))
    single = solve_of(image, None, options=options)
    found, again = single.joint().solve([single.joint()])
    assert bits(found) == bits(again)
    np.testing.assert_allclose(found.log_field.lattice, single().log_field.lattice, atol=1e-5)


def test_kinds_differ_where_the_program_does(heads):
    image, mask = heads[0]
    weight = np.ones_like(image)
    kinds = {
        joint_of(image, mask).kind,
        joint_of(image, mask, weight).kind,
        joint_of(image.astype(np.float64), mask).kind,
        joint_of(image[:-2], mask[:-2]).kind,
        joint_of(image, mask, options=N4Options(shrink_factor=2, n_iterations=(4, 4))).kind,
    }
    assert len(kinds) == 5


def test_images_that_are_solved_alone(heads, monkeypatch):
    image, mask = heads[0]
    by_itk = N4Options(shrink_factor=2, convergence_threshold=1e-3, convergence_statistic="itk")
    assert joint_of(image, mask, options=by_itk) is None
    assert joint_of(jax.numpy.asarray(image), mask) is None
    assert joint_of(image, jax.numpy.asarray(mask)) is None
    monkeypatch.setattr(joining, "LARGEST", 20 * 22 * 18 - 1)
    assert joint_of(image, mask) is None


def test_arrays_of_another_shape_are_refused_before_the_solve(heads):
    image, mask = heads[0]
    with pytest.raises(ValueError, match="mask has shape"):
        joint_of(image, mask[:-1])
