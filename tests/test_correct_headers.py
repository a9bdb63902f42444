"""What `correct` takes from headers and keeps of them: affines, units, axes, types, junk."""

from __future__ import annotations

import gzip
import os

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.image.demand import axes, memory_needed
from n4ax_bids.io import volume
from n4ax_bids.io.lattice import load_lattice
from n4ax_bids.options import N4Options
from tests.ball import OBLIQUE, SHAPE, bright_ball, in_unit, run, write


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


def test_an_affine_that_differs_by_rounding_is_noted(ball):
    mask = volume.load(ball / "binary.nii.gz").data
    near = OBLIQUE + 1e-5 * np.eye(4)[[0, 1, 2, 0]] * np.array([1, 1, 1, 0])[:, None]
    write(ball / "near.nii.gz", mask, near)
    record, corrected, _ = run(ball, mask_image=ball / "near.nii.gz")
    assert len(record.notes) == 1 and "near.nii.gz" in record.notes[0]
    exact, expected, _ = run(ball, mask_image=ball / "binary.nii.gz")
    assert exact.notes == ()
    np.testing.assert_array_equal(corrected, expected)


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
