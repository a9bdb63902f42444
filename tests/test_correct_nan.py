"""Voxels that are NaN or infinite: kept where nothing uses them, refused where something does."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.io import volume
from tests.ball import NOT_NUMBERS, SHAPE, run, write


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
