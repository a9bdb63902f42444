"""One image file in, corrected files out: the numbers, masks and weights, time and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import n4ax_bids.correct
from n4ax_bids.core.field import LogField, evaluate
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.correct import correct
from n4ax_bids.image import steps as correct_steps
from n4ax_bids.image.demand import memory_needed
from n4ax_bids.io import volume
from n4ax_bids.io.lattice import load_lattice
from n4ax_bids.options import N4Options
from n4ax_bids.runtime import device as devices
from tests.ball import OBLIQUE, SHAPE, bright_ball, run, write


def test_corrected_times_field_is_the_image(ball):
    record, corrected, bias = run(ball, auto_mask="otsu")
    image = volume.load(ball / "image.nii.gz").data
    np.testing.assert_allclose(corrected * bias, image, rtol=5e-7)  # three float32 roundings
    assert not record.rescaled and record.rescale_slope == 1 and record.rescale_intercept == 0
    assert record.mask == "otsu" and record.device == "cpu"
    assert record.details.n_iterations == (2, 2) and record.details.shrink_factors == (2, 2, 2)
    assert record.details.n_control_points == (4, 4, 4)
    inside = otsu_mask(image)
    assert record.n_voxels_mask == inside.sum() and record.non_positive == 0
    n_used = record.details.n_voxels_used
    assert n_used == pytest.approx(inside.sum() / 8, rel=0.1)  # every 2nd on 3 axes
    assert (record.field_min, record.field_max) == (bias[inside].min(), bias[inside].max())
    assert record.field_min < record.field_max


def test_the_lattice_is_the_field(ball):
    record, _, bias = run(ball)
    saved = load_lattice(record.lattice_image)
    assert saved["shape"] == SHAPE
    np.testing.assert_allclose(saved["affine"], OBLIQUE, atol=1e-5)  # float32 in the header
    log_field = LogField(*(saved[name] for name in LogField._fields))
    log_bias = np.asarray(evaluate(log_field, [(0, n) for n in SHAPE]))
    np.testing.assert_allclose(np.exp(log_bias), bias, rtol=5e-7)  # the same sums, twice exp


def test_the_field_is_found(ball):
    """200 iterations at shrink 2: what is left of a ±40 % field is a few per cent."""
    record, corrected, bias = run(ball, auto_mask="otsu", options=N4Options(shrink_factor=2))
    inside = volume.load(ball / "binary.nii.gz").data > 0
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE[:2]), indexing="ij")
    truth = np.broadcast_to((0.4 * x - 0.3 * y)[:, :, None], SHAPE)
    assert np.corrcoef(np.log(bias[inside]), truth[inside])[0, 1] > 0.99
    assert record.field_cv == pytest.approx(bias[inside].std() / bias[inside].mean(), rel=0.05)


def test_without_a_mask_every_voxel_counts(ball):
    record, corrected, bias = run(ball)
    image = volume.load(ball / "image.nii.gz").data
    assert record.mask == "none" and record.n_voxels_mask == image.size
    assert record.details.n_voxels_used == np.prod([n // 2 for n in SHAPE])
    np.testing.assert_allclose(corrected * bias, image, rtol=5e-7)


@pytest.mark.parametrize("mask", ["binary", "labels"])
def test_a_mask_file_keeps_and_rescales(ball, mask):
    """Outside the mask the input; inside, where it is 1, the input's range; elsewhere v/b."""
    record, corrected, bias = run(ball, mask_image=ball / f"{mask}.nii.gz")
    image = volume.load(ball / "image.nii.gz").data
    values = volume.load(ball / f"{mask}.nii.gz").data
    divided = image / bias
    np.testing.assert_array_equal(corrected[values == 0], image[values == 0])
    other = (values != 0) & (values != 1)
    np.testing.assert_allclose(corrected[other], divided[other], rtol=5e-7)
    one, inside = values == 1, values != 0
    slope = np.ptp(image[inside]) / np.ptp(divided[inside])
    intercept = image[inside].max() - slope * divided[inside].max()
    assert record.rescaled and record.mask == str(ball / f"{mask}.nii.gz")
    assert (record.rescale_slope, record.rescale_intercept) == pytest.approx(
        (slope, intercept), rel=1e-5, abs=1e-2
    )  # float32: 7 digits of 1000
    np.testing.assert_allclose(corrected[one], slope * divided[one] + intercept, rtol=1e-5)
    if mask == "binary":
        assert corrected[one].min() == pytest.approx(image[one].min(), rel=1e-5)
        assert corrected[one].max() == image[one].max()


def test_rescaling_off(ball):
    mask = ball / "binary.nii.gz"
    record, corrected, bias = run(ball, mask_image=mask, rescale_intensities=False)
    image, one = volume.load(ball / "image.nii.gz").data, volume.load(mask).data == 1
    assert not record.rescaled
    np.testing.assert_allclose(corrected[one] * bias[one], image[one], rtol=5e-7)


def test_a_mask_file_may_leave_nothing_uncorrected(ball):
    kept, _, _ = run(ball, mask_image=ball / "binary.nii.gz", rescale_intensities=False)
    record, corrected, bias = run(
        ball,
        mask_image=ball / "binary.nii.gz",
        rescale_intensities=False,
        correct_outside=True,
    )
    # The estimate is still that of the mask.
    assert record.details.n_voxels_used == kept.details.n_voxels_used
    image = volume.load(ball / "image.nii.gz").data
    np.testing.assert_allclose(corrected * bias, image, rtol=5e-7)
    outside = volume.load(ball / "binary.nii.gz").data == 0
    assert np.abs(corrected[outside] / image[outside] - 1).max() > 1e-3


def test_a_weight_chooses_voxels_but_restores_none(ball):
    record, corrected, bias = run(ball, weight_image=ball / "weight.nii.gz")
    weight = volume.load(ball / "weight.nii.gz").data
    assert record.n_voxels_mask == np.count_nonzero(weight > 0)
    image = volume.load(ball / "image.nii.gz").data
    np.testing.assert_allclose(corrected * bias, image, rtol=5e-7)
    assert not np.allclose(bias, run(ball)[2], rtol=1e-3)


def test_two_axes(ball, rng):
    write(ball / "slice.nii.gz", bright_ball(rng, (40, 36))[0])
    _, corrected, bias = run(ball, "slice.nii.gz", dimension=2)
    np.testing.assert_allclose(
        corrected * bias, volume.load(ball / "slice.nii.gz").data, rtol=5e-7
    )
    with pytest.raises(ValueError, match=r"slice\.nii\.gz: shape \(40, 36\) has 2 axes"):
        run(ball, "slice.nii.gz", dimension=3)


def test_each_stage_is_timed_and_times_make_no_difference(ball):
    first, second = run(ball, auto_mask="otsu")[0], run(ball, auto_mask="otsu")[0]
    assert set(first.seconds) == {"decode", "mask", "solve", "divide", "encode"}
    assert min(first.seconds.values()) > 0
    assert first == second and first.seconds != second.seconds


def test_only_the_solve_holds_the_device(ball, monkeypatch):
    """Finding the mask, dividing and writing go on while another thread has it."""
    turns = devices.turns(devices.resolve("cpu"))
    all_free, held = turns._value, {}
    for name, module in (
        ("find_region", correct_steps),
        ("division", correct_steps),
        ("save", n4ax_bids.correct),
    ):
        kept = getattr(module, name)

        def recorded(*args, _name=name, _kept=kept, **kwargs):
            held[_name] = all_free - turns._value
            return _kept(*args, **kwargs)

        monkeypatch.setattr(module, name, recorded)
    run(ball, auto_mask="otsu", report=lambda *_: held.update(solve=all_free - turns._value))
    assert held == {"find_region": 0, "solve": 1, "division": 0, "save": 0}
    assert turns._value == all_free


@pytest.mark.parametrize("shrink", (1, 4))
def test_memory_told_is_that_which_a_correction_takes(tmp_path, rng, shrink):
    """As far as Python sees it: the arrays of numpy, not those of JAX."""
    write(tmp_path / "image.nii", bright_ball(rng, (80, 72, 64))[0])
    options = N4Options(n_iterations=(1,), shrink_factor=shrink)

    def solved():
        correct(tmp_path / "image.nii", tmp_path / "out.nii", options=options, device="cpu")

    solved()  # what is compiled and imported once is no image's
    tracemalloc.start()
    try:
        solved()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    needed = memory_needed(tmp_path / "image.nii", options)
    assert most < needed < 5 * most


def test_equal_calls_give_equal_files(ball):
    run(ball, auto_mask="otsu")
    first = {p.name: p.read_bytes() for p in (ball / "out").iterdir()}
    run(ball, auto_mask="otsu")
    assert len(first) == 3
    assert first == {p.name: p.read_bytes() for p in (ball / "out").iterdir()}
