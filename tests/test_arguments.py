"""Arguments of the wrong type: one line that names the argument and what was expected."""

from __future__ import annotations

import inspect
import pickle
import re

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids import n4, n4_batch, otsu_mask
from n4ax_bids.arguments import same_number
from n4ax_bids.correct import correct
from n4ax_bids.options import N4Options, preset

X = np.random.default_rng(0).random((12, 12, 12), np.float32) + 1
NIB = nb.Nifti1Image(X, np.eye(4))
TWO = np.full((2, 2), 2)
BIG = np.arange(4000.0).reshape(40, 100)
SHORT = N4Options(shrink_factor=2, n_iterations=(2,))

OF_ARRAYS = {
    "batch of one array": (lambda: n4_batch(X, None), "images is one array .*: pass \\[image\\]"),
    "batch with one mask": (
        lambda: n4_batch([X], X > 0),
        "masks is a numpy.ndarray; expected a l",
    ),
    "batch of a stack": (lambda: n4_batch(np.stack([X, X]), None), "pass list\\(images\\)"),
    "batch of nibabel": (lambda: n4_batch(NIB), "images is one array .a nibabel"),
    "batch of SimpleITK": (
        lambda: n4_batch(sitk.GetImageFromArray(X)),
        "images is a SimpleITK.*GetArrayFromImage",
    ),
    "batch zooms": (lambda: n4_batch([X], zooms=1.0), "zooms is a float; expected a list"),
    "batch masks": (lambda: n4_batch([X], 3), "masks is an int; expected a list"),
    "batch nibabel mask": (lambda: n4_batch([X], NIB), "masks is a nibabel.*expected a list"),
    "batch weights": (lambda: n4_batch([X], weights=1), "weights is an int; expected a list"),
    "together": (lambda: n4_batch([X], together="no"), "together is 'no'; expected True, False"),
    "zooms number": (lambda: n4(X, zooms=1.0), "zooms is 1.0; expected one voxel size"),
    "zooms text": (lambda: n4(X, zooms="abc"), "zooms is 'abc'; expected one voxel size"),
    "zooms 2-D": (lambda: n4(X, zooms=TWO), "zooms is array.*expected one voxel size"),
    "zooms list": (lambda: n4(X, zooms=[[2]]), "zooms is \\[\\[2\\]\\]; expected one voxel size"),
    "threads 0": (lambda: otsu_mask(X, threads=0), "threads is 0; expected a whole number"),
    "threads None": (lambda: otsu_mask(X, threads=None), "threads is None; expected a whole"),
    "bins": (lambda: otsu_mask(X, n_bins=0), "n_bins is 0; expected a whole number"),
    "otsu None": (lambda: otsu_mask(None), "image is None; expected an array"),
    "objects": (lambda: n4(X.astype(object)), "image has the type object; expected real numbers"),
    "negative": (lambda: n4(-np.round(X), options=SHORT), "values above 0, .*the image has none"),
}

OF_OPTIONS = {
    "threshold": (
        lambda: N4Options(convergence_threshold=None),
        "threshold is None; expected a n",
    ),
    "relaxation": (lambda: N4Options(over_relaxation=None), "over_relaxation is None; expected a"),
    "precision": (lambda: N4Options(precision=TWO), "precision is array.*expected float32 or"),
    "version": (lambda: N4Options(itk_version=TWO), "itk_version is array.*expected 5 or 6"),
    "statistic": (lambda: N4Options(convergence_statistic=TWO), "statistic is array"),
    "iterations": (lambda: N4Options(n_iterations="50x50"), "'50x50'; expected whole numbers"),
    "preset": (lambda: preset("fast", n_iterations="50x50"), "'50x50'; expected whole numbers"),
    "bytes": (lambda: N4Options(n_iterations=b"2"), "n_iterations is b'2'; expected whole num"),
    "mm bytes": (lambda: N4Options(shrink_mm=b"2"), "shrink_mm is b'2'; expected a number"),
    "array": (lambda: N4Options(shrink_factor=BIG), "shrink_factor is array.*expected a whole"),
    "of one": (lambda: N4Options(shrink_factor=np.array([2])), "expected a whole number"),
    "sharpening": (lambda: N4Options(histogram_sharpening=b"abc"), "expected a width, a noise"),
    "unknown": (lambda: N4Options(shrink=2), "takes no 'shrink' \\(did you mean shrink_factor"),
    "in preset": (lambda: preset("fast", shrink=2), "takes no 'shrink' \\(did you mean shrink_f"),
}

OF_CORRECT = {
    "device None": (dict(device=None), "device is None; expected auto"),
    "device list": (dict(device=["cpu"]), "device is \\['cpu'\\]; expected auto"),
    "mask": (dict(mask="m.nii.gz"), "correct takes no 'mask' \\(did you mean mask_image"),
    "report": (dict(report="r.html"), "report is 'r.html'; expected a function"),
    "auto_mask": (
        dict(auto_mask=X),
        "auto_mask is array.*expected one of otsu, auto, head, brain, synthstrip, hd-bet or None",
    ),
    "dtype": (dict(output_dtype=X), "output_dtype is array.*expected float32 or source"),
    "dimension": (dict(dimension=NIB), "dimension is <nibabel.*expected 2 or 3"),
    "dimension array": (dict(dimension=X), "dimension is array.*expected 2 or 3"),
    "copy_header": (dict(copy_header=X), "copy_header is array.*expected True or False"),
    "header no": (dict(copy_header="no"), "copy_header is 'no'; expected True or False"),
    "rescale no": (dict(rescale_intensities="no"), "rescale_intensities is 'no'; expected True"),
    "shift False": (dict(shift_negative="False"), "shift_negative is 'False'; expected True or"),
    "outside": (dict(correct_outside=[1, 2]), "correct_outside is \\[1, 2\\]; expected True or"),
    "options": (dict(options=BIG), "options is array.*expected N4Options"),
    "transform": (dict(mask_transform="/no.txt"), "/no.txt: mask_transform without mask_image"),
    "weight": (dict(weight_transform="/no.txt"), "/no.txt: weight_transform without weight_im"),
    "transform type": (dict(mask_transform=3), "mask_transform is an int; expected the path of"),
    "empty": (dict(mask_image=""), "mask_image is ''; expected the path"),
}


def refused(call, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize(("call", "words"), OF_ARRAYS.values(), ids=OF_ARRAYS)
def test_array_functions_name_what_does_not_fit(call, words):
    refused(call, words)


@pytest.mark.parametrize(("call", "words"), OF_OPTIONS.values(), ids=OF_OPTIONS)
def test_options_name_what_does_not_fit(call, words):
    refused(call, words)


@pytest.mark.parametrize(("given", "words"), OF_CORRECT.values(), ids=OF_CORRECT)
def test_correct_names_what_does_not_fit_and_writes_nothing(given, words, tmp_path):
    path = tmp_path / "x.nii.gz"
    nb.save(NIB, path)
    refused(lambda: correct(path, tmp_path / "y.nii.gz", **given), words)
    assert [p.name for p in tmp_path.iterdir()] == ["x.nii.gz"]


def test_an_empty_path_is_not_the_current_folder(tmp_path):
    refused(lambda: correct("", tmp_path / "y.nii.gz"), "input_image is ''; expected the path")


def test_numbers_of_numpy_are_numbers():
    options = N4Options(
        n_iterations=np.int64(50), n_control_points=np.int64(5), shrink_start=np.int8(1)
    )
    assert options.n_iterations == (50,) and options.n_control_points == (5,)
    assert options.shrink_start == (1,)
    assert N4Options(n_iterations=np.array([5, 4])).n_iterations == (5, 4)


def test_suggestions_leave_signature_and_pickles_as_they_are():
    assert list(inspect.signature(N4Options).parameters)[0] == "shrink_factor"
    assert list(inspect.signature(correct).parameters)[:2] == ["input_image", "output_image"]
    assert pickle.loads(pickle.dumps(SHORT)) == SHORT
    assert re.match("correct", pickle.loads(pickle.dumps(correct)).__name__)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "01", True),
        ("0", "000", True),
        ("1", "10", False),
        ("1", "x", False),
        ("²", "2", False),
        ("9" * 5000, "0" + "9" * 5000, True),
        ("9" * 5000, "1", False),
    ],
)
def test_numbers_of_any_length_are_compared(one, other, same):
    assert same_number(one, other) is same
