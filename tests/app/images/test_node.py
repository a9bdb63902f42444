"""What the node is given for a job."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.images import node
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import select
from n4ax_bids.options import N4Options

T1W = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def given(make_dataset, tmp_path):
    """Return the inputs for a job with the given changes to request and job."""
    root = make_dataset(T1W)

    def inputs(request=None, **job):
        request = Request(root, tmp_path / "out", **(request or {}))
        (found,) = select(request).jobs
        return node.inputs(replace(found, **job), request, tmp_path)

    return inputs


def test_by_default_the_mask_auto_samples_by_distance_no_rescaling_and_all_outputs(
    given, tmp_path
):
    assert given() == {
        "input_image": str(tmp_path / "raw" / T1W),
        "output_image": str(tmp_path / "corrected.nii.gz"),
        "bias_image": str(tmp_path / "field.nii.gz"),
        "lattice_image": str(tmp_path / "lattice.nii.gz"),
        "auto_mask": "auto",
        "shrink_mm": 4.0,
        "args": "-r 0",
    }


def test_mask_weight_rescaling_type_and_field(given, tmp_path):
    mask, weight = tmp_path / "mask.nii.gz", tmp_path / "weight.nii.gz"
    found = given({"mask": "none"})
    assert not {"auto_mask", "mask_image", "weight_image", "output_dtype"} & set(found)
    found = given({"weight": None}, mask=mask, weight=weight)
    assert (found["mask_image"], found["weight_image"]) == (str(mask), str(weight))
    assert found["correct_outside"] and found["args"] == "-r 0"
    found = given({"rescale": True}, mask=mask)
    assert not found["correct_outside"] and "args" not in found
    assert "bias_image" not in given({"bias_field": False})
    assert given({"output_dtype": "source"})["output_dtype"] == "source"


def test_words_of_options_stay_beside_our_own(given):
    found = given({"options": N4Options(bspline_order=2)})
    assert found["args"].startswith("-r 0 -b [")


def test_an_image_of_one_slice_has_two_axes(given, tmp_path):
    path = tmp_path / "raw" / T1W
    image = nb.load(path)
    flat = nb.Nifti1Image(image.get_fdata()[:, :, :1], image.affine)
    flat.to_filename(path)
    assert given({"options": N4Options(bspline_order=2)})["dimension"] == 2
    assert given({"options": N4Options(bspline_order=2)})["args"].count("x") == 1
    nb.Nifti1Image(np.ones((5, 4, 3, 1)), image.affine).to_filename(path)
    assert "dimension" not in given()


def test_a_job_with_a_problem_is_refused_with_it(given, tmp_path):
    with pytest.raises(ValueError, match=r"sub-01_T1w.nii.gz: no mask"):
        given(problem="no mask")
