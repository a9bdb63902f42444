"""What `correct` refuses in one line, what it doubts, and a disk that is full."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.correct import correct
from n4ax_bids.image import steps as correct_steps
from n4ax_bids.io import volume
from n4ax_bids.options import N4Options
from tests.ball import OBLIQUE, SHAPE, SHORT, run, write


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
