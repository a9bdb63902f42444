"""One image file in, corrected files out."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import tracemalloc

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

import n4ax_bids.correct
from n4ax_bids.core.field import LogField, evaluate
from n4ax_bids.core.n4.shrinking import padding, predict_shrink_start
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.correct import correct
from n4ax_bids.image import steps as correct_steps
from n4ax_bids.image.demand import axes, memory_needed
from n4ax_bids.io import volume
from n4ax_bids.io.geometry import itk_shrink_start
from n4ax_bids.io.lattice import load_lattice
from n4ax_bids.options import N4Options
from n4ax_bids.runtime import device as devices

SHAPE = (26, 24, 22)
OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.5, 1.5, 2]), [31.0, -44.0, 12.5]
)
SHORT = N4Options(n_iterations=(2, 2), shrink_factor=2)


def bright_ball(rng, shape=SHAPE):
    """Three tissues in a ball on a weak background, under a field of ±40 %."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(x**2 for x in axes) < 0.8
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], shape), 20.0)
    tissue *= 1 + 0.03 * rng.standard_normal(shape)
    return (tissue * np.exp(0.4 * axes[0] - 0.3 * axes[1])).astype(np.float32), inside


def write(path, data, affine=OBLIQUE, dtype=np.float32):
    image = nb.Nifti1Image(np.asarray(data, dtype), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.to_filename(path)
    return path


@pytest.fixture
def ball(tmp_path, rng):
    """A folder with an image, a mask of labels and fractions, and a weight."""
    data, inside = bright_ball(rng)
    write(tmp_path / "image.nii.gz", data)
    write(tmp_path / "binary.nii.gz", inside, dtype=np.uint8)
    labels = inside.astype(np.float32)
    labels[:9] *= 2
    labels[9:12] *= 0.5
    write(tmp_path / "labels.nii.gz", labels)
    weight = rng.uniform(-0.2, 1, SHAPE) * inside
    write(tmp_path / "weight.nii.gz", weight)
    (tmp_path / "out").mkdir()
    return tmp_path


def run(folder, name="image.nii.gz", **kwargs):
    """Correct with all outputs; return the record and what was written."""
    record = correct(
        folder / name,
        folder / "out" / "corrected.nii.gz",
        bias_image=folder / "out" / "bias.nii.gz",
        lattice_image=folder / "out" / "lattice.nii.gz",
        **{"options": SHORT, "device": "cpu"} | kwargs,
    )
    corrected, bias = (volume.load(p).data for p in (record.output_image, record.bias_image))
    return record, corrected, bias


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


@pytest.mark.parametrize("output_dtype", ["float32", "source"])
def test_type_and_header_of_the_outputs(ball, rng, output_dtype):
    whole = write(ball / "whole.nii", bright_ball(rng)[0], dtype=np.int16)
    record, corrected, _ = run(ball, "whole.nii", output_dtype=output_dtype)
    expected = np.int16 if output_dtype == "source" else np.float32
    written, source = nb.load(record.output_image), nb.load(whole)
    assert written.get_data_dtype() == expected
    assert nb.load(record.bias_image).get_data_dtype() == np.float32
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert written.header[name] == source.header[name]
    np.testing.assert_array_equal(written.affine, source.affine)
    stored = np.asarray(written.dataobj.get_unscaled(), np.float64)
    again = record.stored_slope * stored + record.stored_intercept
    np.testing.assert_array_equal(again, written.get_fdata())
    assert ((record.stored_slope, record.stored_intercept) == (1, 0)) == (expected == np.float32)


def test_how_many_axes_are_seen_is_told_from_the_header_alone(ball):
    for shape, n_axes in (((9, 8), 2), ((9, 8, 1), 2), ((9, 8, 7), 3), ((9, 8, 7, 1), 3)):
        write(ball / "cut.nii", np.ones(shape))
        os.truncate(ball / "cut.nii", 352)  # no voxels
        assert axes(ball / "cut.nii") == n_axes


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


def test_memory_is_told_from_the_header_alone(ball):
    write(ball / "cut.nii", np.ones(SHAPE))
    os.truncate(ball / "cut.nii", 352)  # no voxels

    def told(**options):
        return memory_needed(ball / "cut.nii", N4Options(**options))

    by_factor = [told(shrink_factor=factor) for factor in (1, 2, 4)]
    assert by_factor == sorted(by_factor, reverse=True) and by_factor[0] > 2 * by_factor[2]
    # mm: every voxel, and as few as the shrink factor leaves on so short an axis.
    assert told(shrink_mm=1e-3) == by_factor[0]
    for factor, needed in zip((1, 2, 4), by_factor, strict=True):
        assert told(shrink_factor=factor, shrink_mm=1e3) == needed
    with pytest.raises(FileNotFoundError, match="absent"):
        memory_needed(ball / "absent.nii", N4Options())


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


def test_an_affine_that_differs_by_rounding_is_noted(ball):
    mask = volume.load(ball / "binary.nii.gz").data
    near = OBLIQUE + 1e-5 * np.eye(4)[[0, 1, 2, 0]] * np.array([1, 1, 1, 0])[:, None]
    write(ball / "near.nii.gz", mask, near)
    record, corrected, _ = run(ball, mask_image=ball / "near.nii.gz")
    assert len(record.notes) == 1 and "near.nii.gz" in record.notes[0]
    exact, expected, _ = run(ball, mask_image=ball / "binary.nii.gz")
    assert exact.notes == ()
    np.testing.assert_array_equal(corrected, expected)


NOT_NUMBERS = [np.nan, np.inf, -np.inf]


@pytest.fixture
def holed(ball):
    """The ball with voxels that are no numbers, all of them outside the mask files."""
    data = volume.load(ball / "image.nii.gz").data.copy()
    outside = np.argwhere(volume.load(ball / "binary.nii.gz").data == 0)
    for number, place in enumerate(outside[:: len(outside) // 9]):
        data[tuple(place)] = NOT_NUMBERS[number % 3]
    data[0] = np.nan
    data[1, 1, 1] = -50
    write(ball / "holed.nii.gz", data)
    write(ball / "filled.nii.gz", np.where(np.isfinite(data), data, 0))
    return ball


@pytest.mark.parametrize(
    "where",
    [
        {"mask": "binary"},
        {"mask": "binary", "correct_outside": True},
        {"mask": "binary", "rescale_intensities": False, "weight": "weight"},
        {"mask": "binary", "shift_negative": True},
        {"weight": "weight"},
        {"mask": "binary", "output_dtype": "source"},
    ],
    ids=str,
)
def test_nan_outside_the_mask_is_as_0_there_and_stays(holed, where):
    files = {f"{k}_image": holed / f"{where[k]}.nii.gz" for k in ("mask", "weight") if k in where}
    more = {k: v for k, v in where.items() if k not in ("mask", "weight")}
    _, expected, field = run(holed, "filled.nii.gz", **files, **more)
    record, corrected, bias = run(holed, "holed.nii.gz", **files, **more)
    image = volume.load(holed / "holed.nii.gz").data
    finite = np.isfinite(image)
    np.testing.assert_array_equal(bias, field)
    np.testing.assert_array_equal(corrected[finite], expected[finite])
    np.testing.assert_array_equal(corrected[~finite], image[~finite])
    assert np.isfinite(record.field_cv)


@pytest.mark.parametrize("bad", NOT_NUMBERS)
@pytest.mark.parametrize(
    ("kwargs", "remedy"),
    [
        ({}, "set such voxels to 0, or give a mask file that leaves them out"),
        ({"auto_mask": "otsu"}, "or give a mask file that leaves them out"),
        ({"mask": "binary"}, "or give a mask file that leaves them out"),
        ({"weight": "weight"}, "or give a mask file that leaves them out"),
    ],
    ids=str,
)
def test_nan_that_is_used_is_an_error_with_a_remedy(ball, bad, kwargs, remedy):
    data = volume.load(ball / "image.nii.gz").data.copy()
    data[12, 11, 10] = data[14, 11, 10] = bad
    write(ball / "bad.nii.gz", data)
    weight = np.asarray(volume.load(ball / "binary.nii.gz").data)
    write(ball / "weight.nii.gz", weight)
    files = {f"{k}_image": ball / f"{v}.nii.gz" for k, v in kwargs.items() if k != "auto_mask"}
    more = {k: v for k, v in kwargs.items() if k == "auto_mask"}
    with pytest.raises(ValueError, match=r"bad\.nii\.gz: 2 voxels that are used are") as raised:
        run(ball, "bad.nii.gz", **files, **more)
    assert "the first at (12, 11, 10)" in str(raised.value) and remedy in str(raised.value)


def test_rescaling_uses_the_whole_mask_also_where_the_weight_is_0(ball):
    data = volume.load(ball / "image.nii.gz").data.copy()
    weight = np.array(volume.load(ball / "binary.nii.gz").data)
    data[12, 11, 10], weight[12, 11, 10] = np.nan, 0
    write(ball / "bad.nii.gz", data)
    files = {
        "mask_image": ball / "binary.nii.gz",
        "weight_image": write(ball / "w.nii.gz", weight),
    }
    _, corrected, _ = run(ball, "bad.nii.gz", **files, rescale_intensities=False)
    assert np.isnan(corrected[12, 11, 10]) and np.isnan(corrected).sum() == 1
    with pytest.raises(ValueError, match=r"1 voxel that is used .*\(12, 11, 10\)"):
        run(ball, "bad.nii.gz", **files)


def test_nan_in_mask_and_weight_is_judged_where_it_matters(ball):
    mask, weight = (np.array(volume.load(ball / f"{n}.nii.gz").data) for n in ("binary", "weight"))
    outside = weight.copy()
    outside[mask == 0] = np.nan
    write(ball / "outside.nii.gz", outside)
    files = {"mask_image": ball / "binary.nii.gz"}
    _, _, expected = run(ball, **files, weight_image=ball / "weight.nii.gz")
    _, _, bias = run(ball, **files, weight_image=ball / "outside.nii.gz")
    np.testing.assert_array_equal(bias, expected)
    with pytest.raises(
        ValueError, match=r"outside\.nii\.gz: .* used are NaN.*set such voxels to 0"
    ):
        run(ball, weight_image=ball / "outside.nii.gz")
    mask[0, 0, 0] = np.nan
    write(ball / "mask.nii.gz", mask)
    with pytest.raises(ValueError, match=r"mask\.nii\.gz: 1 voxel .*\(0, 0, 0\); set such"):
        run(ball, mask_image=ball / "mask.nii.gz")


def test_an_image_without_a_number(ball):
    write(ball / "none.nii", np.full(SHAPE, np.nan))
    with pytest.raises(ValueError, match=r"none\.nii: every voxel is NaN or infinite"):
        run(ball, "none.nii")
    data = np.full(SHAPE, 7.0)
    data[0] = np.inf
    write(ball / "constant.nii", data)
    with pytest.raises(ValueError, match=r"constant\.nii: constant image, every voxel is 7"):
        run(ball, "constant.nii")


def in_unit(path, name, unit, mm):
    """Write the same image with its header in another unit."""
    image = nb.load(path)
    affine = image.affine.copy()
    affine[:3] /= mm
    image = nb.Nifti1Image(image.dataobj, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units(unit)
    image.to_filename(path.with_name(name))
    return path.with_name(name)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("meter", 1e3)])
def test_the_unit_of_a_header_makes_no_difference(ball, unit, mm):
    options = N4Options(n_iterations=(2, 2), bspline_fitting_distance=23, shrink_mm=4.0)
    expected, corrected, bias = run(ball, options=options, mask_image=ball / "binary.nii.gz")
    before = load_lattice(expected.lattice_image)["affine"]
    zooms = nb.load(expected.lattice_image).header.get_zooms()
    path = in_unit(ball / "image.nii.gz", "other.nii.gz", unit, mm)
    record, same, field = run(ball, path.name, options=options, mask_image=ball / "binary.nii.gz")
    assert record.details.shrink_factors == expected.details.shrink_factors == (3, 3, 2)
    assert record.details.n_control_points == expected.details.n_control_points
    # Extents of 23 mm spans in other units are rounded to float32 before they are compared.
    np.testing.assert_allclose(field, bias, rtol=1e-5)
    np.testing.assert_allclose(same, corrected, rtol=1e-4)
    lattice = nb.load(record.lattice_image)
    assert lattice.header.get_xyzt_units()[0] == "mm"
    assert lattice.header.get_zooms() == pytest.approx(zooms, rel=1e-5)
    np.testing.assert_allclose(load_lattice(record.lattice_image)["affine"], before, atol=1e-4)
    for written in (record.output_image, record.bias_image):
        header, source = nb.load(written).header, nb.load(path).header
        for key in ("xyzt_units", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
            np.testing.assert_array_equal(header[key], source[key])
    needed = [memory_needed(p, options) for p in (ball / "image.nii.gz", path)]
    assert needed[0] == needed[1]


@pytest.mark.parametrize("axes", ["RAS", "PSR", "AIL"])
@pytest.mark.parametrize("what", ["mask_image", "weight_image"])
def test_a_mask_along_other_axes_gives_the_same(ball, axes, what):
    """As fMRIPrep has it: everything stored RAS, whatever the source was."""
    name = {"mask_image": "binary.nii.gz", "weight_image": "weight.nii.gz"}[what]
    image = nb.load(ball / name)
    turned = image.as_reoriented(
        nb.orientations.ornt_transform(
            nb.io_orientation(image.affine), nb.orientations.axcodes2ornt(axes)
        )
    )
    turned.to_filename(ball / "turned.nii.gz")
    assert turned.shape != image.shape or axes == "RAS"
    _, expected, _ = run(ball, **{what: ball / name})
    record, corrected, _ = run(ball, **{what: ball / "turned.nii.gz"})
    np.testing.assert_array_equal(corrected, expected)
    assert record.notes == ()


def test_junk_behind_the_header_is_noted_and_not_copied(ball, caplog):
    caplog.set_level("INFO")
    path = ball / "junk.nii"
    nb.load(ball / "image.nii.gz").to_filename(path)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(368).tobytes()
    path.write_bytes(bytes(content[:348]) + b"\1\0\0\0" + b"junk" * 4 + bytes(content[352:]))
    record, corrected, _ = run(ball, "junk.nii")
    (note,) = record.notes
    assert note.startswith("junk.nii: ") and note in caplog.text
    np.testing.assert_array_equal(corrected, run(ball)[1])
    assert b"junk" not in gzip.decompress(record.output_image.read_bytes())[:400]


def shifted(folder):
    affine = OBLIQUE.copy()
    affine[2, 3] += 1
    return {"mask_image": write(folder / "m.nii", np.ones(SHAPE), affine)}


def constant(folder):
    return {"name": write(folder / "c.nii", np.full(SHAPE, 7)).name}


def no_contrast_in_mask(folder):
    data = volume.load(folder / "image.nii.gz").data.copy()
    data[:12] = 50
    mask = np.zeros(SHAPE)
    mask[:10] = 1
    write(folder / "half.nii", data)
    return {"name": "half.nii", "mask_image": write(folder / "m.nii", mask)}


def disjoint(folder):
    mask = np.zeros(SHAPE)
    mask[0, 0, 0] = 1  # the weight is 0 in the corners
    return {
        "mask_image": write(folder / "m.nii", mask),
        "weight_image": folder / "weight.nii.gz",
    }


def between_samples(folder):
    mask = np.zeros(SHAPE)
    mask[8:10, 8, 8] = 1  # every 4th voxel from 1 is a sample
    return {
        "mask_image": write(folder / "m.nii", mask),
        "options": N4Options(shrink_factor=4),
    }


def other_shape(folder):
    return {"mask_image": write(folder / "m.nii", np.ones((5, 6, 7)))}


def zeros(folder):
    return {"mask_image": write(folder / "m.nii", np.zeros(SHAPE))}


def no_weight(folder):
    return {"weight_image": write(folder / "m.nii", -np.ones(SHAPE))}


def test_doubtful_results_are_noted(ball, caplog):
    """An automatic mask that bright voxels decided, few samples, and nothing where all is well."""
    assert run(ball, auto_mask="otsu")[0].notes == ()
    assert run(ball, mask_image=ball / "labels.nii.gz")[0].notes == ()
    data = np.pad(volume.load(ball / "image.nii.gz").data, 10)
    data[20:32, 18:30, 16:28] *= 30
    write(ball / "hot.nii", data)
    (note,) = run(ball, "hot.nii", auto_mask="otsu", options=SHORT)[0].notes
    assert "Otsu's mask holds" in note and "leaves out an object" in note
    mask = np.zeros(SHAPE)
    mask[10:16, 10:16, 10:16] = 1
    write(ball / "few.nii", mask)
    for given in ({"mask_image": ball / "few.nii"}, {"weight_image": ball / "few.nii"}):
        (note,) = run(ball, **given)[0].notes
        assert "27 of 1716 samples take part, fewer than the 64 control points" in note
    every = N4Options(shrink_factor=1, n_iterations=(2,))
    assert run(ball, mask_image=ball / "few.nii", options=every)[0].notes == ()


def test_arrays_and_images_are_no_files(ball):
    image = nb.load(ball / "image.nii.gz")
    for value in (image, image.get_fdata()):
        with pytest.raises(TypeError, match="input_image is a .*; expected the path of a NIfTI"):
            correct(value, None)
        with pytest.raises(TypeError, match="mask_image is a .*for arrays call n4ax_bids.n4"):
            correct(ball / "image.nii.gz", None, mask_image=value)
    with pytest.raises(TypeError, match="input_image is a NoneType"):
        correct(None, None)
    with pytest.raises(TypeError, match=r"options is 'fast'.*pass preset\('fast'\)"):
        correct(ball / "image.nii.gz", None, options="fast")


BAD_CALLS = {
    r"m\.nii: shape \(5, 6, 7\); expected \(26, 24, 22\) as in .*image\.nii\.gz": other_shape,
    r"m\.nii: every voxel of the mask is 0": zeros,
    r"m\.nii: no weight is above 0": no_weight,
    r"m\.nii: lies elsewhere than .*affines \[.*\] and \[.*\] differ by up to 1": shifted,
    r"c\.nii: constant image, every voxel is 7": constant,
    r"half\.nii: image is constant": no_contrast_in_mask,
    r"weight\.nii\.gz: no weight above 0 inside the mask \(.*m\.nii\)": disjoint,
    r"image\.nii\.gz: no voxel of the mask is sampled at shrink 4 x 4 x 4 \(it has 2\) "
    r"\(mask: .*m\.nii\); try --shrink-factor 1$": between_samples,
    r"none\.nii: no such file": lambda folder: {"name": "none.nii"},
    r"absent\.nii: no such file": lambda folder: {"weight_image": folder / "absent.nii"},
    r"binary\.nii\.gz: a mask file and auto_mask": lambda folder: {
        "mask_image": folder / "binary.nii.gz",
        "auto_mask": "otsu",
    },
    "auto_mask is 'bet'": lambda folder: {"auto_mask": "bet"},
    "output_dtype is 'int16'": lambda folder: {"output_dtype": "int16"},
    "device is 'tpu'": lambda folder: {"device": "tpu"},
    r"image\.nii\.gz: dimension is 4": lambda folder: {"dimension": 4},
    r"image\.nii\.gz: n_control_points": lambda folder: {
        "options": N4Options(n_control_points=(5, 5))
    },
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_input_is_named_in_one_line_and_nothing_is_written(ball, message):
    with pytest.raises((ValueError, OSError), match=message) as raised:
        run(ball, **BAD_CALLS[message](ball))
    assert "\n" not in str(raised.value)
    assert list((ball / "out").iterdir()) == []


def test_output_names_are_checked_before_the_solve(ball, monkeypatch):
    monkeypatch.setattr(correct_steps, "load_image", None)
    image = ball / "image.nii.gz"
    with pytest.raises(ValueError, match=r"plain: cannot be written"):
        correct(image, ball / "plain")
    with pytest.raises(ValueError, match="two outputs have this name"):
        correct(image, ball / "x.nii", bias_image=ball / "x.nii")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        correct(image, ball / "nowhere" / "x.nii")


def test_a_full_disk_leaves_no_output(ball, monkeypatch):
    kept = volume.write

    def disk_full(path, data, like, **kwargs):
        kept(path, data, like, **kwargs)
        if "bias" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume, "write", disk_full)
    with pytest.raises(OSError, match="No space left"):
        run(ball)
    assert list((ball / "out").iterdir()) == []


ANTS = """
import json, sys
from ants.internal import get_lib_fn
for words in json.loads(sys.argv[1]):
    assert get_lib_fn("N4BiasFieldCorrection")(words) == 0, words
"""


def ants(*runs):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash."""
    words = json.dumps([[str(word) for word in words] for words in runs])
    subprocess.run([sys.executable, "-c", ANTS, words], check=True, timeout=300)


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_masks_weights_padding_and_phase_are_those_of_ants(ball, rng):
    """Few iterations: only rounding may differ, in the field and after rescaling.

    2e-6 is 17 float32 roundings; a wrong sample phase moves this field by more than 1e-3.
    """
    labels, weight = ball / "labels.nii.gz", ball / "weight.nii.gz"
    cases = {
        "labels": {"mask_image": labels},
        "off": {"mask_image": labels, "rescale_intensities": False},
        "both": {"mask_image": ball / "binary.nii.gz", "weight_image": weight},
        "padded": {"weight_image": weight},
        "shrink4": {"options": N4Options(n_iterations=(2, 2))},
    }
    words = {
        "labels": ["-x", labels, "-s", 2],
        "off": ["-x", labels, "-s", 2, "-r", 0],
        "both": ["-x", ball / "binary.nii.gz", "-w", weight, "-s", 2],
        "padded": ["-w", weight, "-s", 2, "-b", "[23,2]"],
        "shrink4": [],
    }
    cases["padded"]["options"] = N4Options(
        n_iterations=(2, 2), shrink_factor=2, bspline_fitting_distance=23, bspline_order=2
    )
    image = ball / "image.nii.gz"
    ants(
        *(
            ["-d", 3, "-i", image, "-c", "[2x2,0]", *more]
            + ["-o", f"[{ball}/ants_{name}.nii,{ball}/ants_{name}_bias.nii]"]
            for name, more in words.items()
        )
    )
    for name, case in cases.items():
        _, corrected, bias = run(ball, **case)
        theirs = volume.load(ball / f"ants_{name}.nii").data
        field = volume.load(ball / f"ants_{name}_bias.nii").data
        assert np.abs(bias / field - 1).max() <= 2e-6, name
        scale = np.abs(theirs).max() if name in ("labels", "both") else np.abs(theirs)
        assert (np.abs(corrected - theirs) / scale).max() <= 2e-6, name


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_units_and_nan_outside_the_mask_are_as_for_ants(holed):
    """Few iterations: only rounding may differ, as above; ANTs is given 0 in the place of NaN."""
    mask = holed / "binary.nii.gz"
    micron = in_unit(holed / "image.nii.gz", "micron.nii.gz", "micron", 1e-3)
    padded = N4Options(n_iterations=(2, 2), shrink_factor=2, bspline_fitting_distance=23)
    cases = {
        "holed": ("filled", {"mask_image": mask}, ["-x", mask]),
        "micron": ("micron", {"options": padded}, ["-b", "[23]"]),
    }
    ants(
        *(
            ["-d", 3, "-i", holed / f"{source}.nii.gz", "-c", "[2x2,0]", "-s", 2, *words]
            + ["-o", f"[{holed}/ants_{name}.nii,{holed}/ants_{name}_bias.nii]"]
            for name, (source, _, words) in cases.items()
        )
    )
    assert micron.exists()
    for name, (_, kwargs, _) in cases.items():
        _, _, bias = run(holed, f"{name}.nii.gz", **kwargs)
        field = volume.load(holed / f"ants_{name}_bias.nii").data
        assert np.abs(bias / field - 1).max() <= 2e-6, name


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_a_mask_by_simpleitk_of_an_image_placed_twice_is_taken_as_by_ants(ball):
    """The image's s-form leads to a template, its q-form to the scanner; ITK reads the q-form."""
    image = nb.load(ball / "image.nii.gz")
    image.set_sform(np.diag([2, 2, 2, 1.0]), 4)
    image.to_filename(ball / "twice.nii.gz")
    like = sitk.ReadImage(str(ball / "twice.nii.gz"))
    inside = sitk.GetImageFromArray((volume.load(ball / "binary.nii.gz").data.T).astype(np.uint8))
    inside.CopyInformation(like)
    sitk.WriteImage(inside, str(ball / "inside.nii.gz"))
    where = ["-x", ball / "inside.nii.gz", "-s", 2, "-c", "[2x2,0]"]
    ants(
        ["-d", 3, "-i", ball / "twice.nii.gz", *where]
        + ["-o", f"[{ball}/ants.nii,{ball}/ants_bias.nii]"]
    )
    record, _, bias = run(ball, "twice.nii.gz", mask_image=ball / "inside.nii.gz")
    assert np.abs(bias / volume.load(ball / "ants_bias.nii").data - 1).max() <= 2e-6  # as above
    (note,) = record.notes
    assert "its s-form differs from the image's by up to" in note and "its q-form" in note


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_the_phase_in_a_padded_image_is_that_of_ants(ball, rng):
    """4 headers whose half-integer phase goes another way than an axis-aligned one's would."""
    data, _ = bright_ball(rng, (25, 24, 22))
    options = N4Options(n_iterations=(2,), bspline_fitting_distance=60)
    names, runs = [f"h{i}" for i in range(4)], []
    for name in names:
        while True:
            rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            zooms, origin = rng.uniform(1, 2, 3), rng.uniform(-99, 99, 3)
            path = write(
                ball / f"{name}.nii", data, nb.affines.from_matvec(rotation * zooms, origin)
            )
            pads = padding(options, data.shape, nb.load(path).header.get_zooms())
            padded = [n + sum(pad) for n, pad in zip(data.shape, pads, strict=True)]
            lower = [pad[0] for pad in pads]
            found = itk_shrink_start(path, padded, (4, 4, 4), lower)
            if found != predict_shrink_start(padded, (1, 1, 1), (4, 4, 4), lower):
                break
        out = f"[{ball}/out_{name}.nii,{ball}/bias_{name}.nii]"
        runs.append(["-d", 3, "-i", path, "-c", "[2,0]", "-b", "[60]", "-o", out])
    ants(*runs)
    for name in names:
        bias = run(ball, f"{name}.nii", options=options)[2]
        difference = bias / volume.load(ball / f"bias_{name}.nii").data - 1
        assert np.abs(difference).max() <= 2e-6, name  # as above
