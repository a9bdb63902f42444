"""The inputs of the node for a job."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import interfaces
from n4ax_bids.app.images import node
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import select
from n4ax_bids.interfaces import BiasFieldCorrection
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
        "options": N4Options(shrink_mm=4.0),
        "dimension": 3,
        "rescale_intensities": False,
        "output_dtype": "float32",
        "field_scale": "mean",
    }


def test_mask_weight_rescaling_type_and_field(given, tmp_path):
    mask, weight = tmp_path / "mask.nii.gz", tmp_path / "weight.nii.gz"
    found = given({"mask": "none"})
    assert not {"auto_mask", "mask_image", "weight_image"} & set(found)
    assert found["output_dtype"] == "float32"
    found = given({"weight": None}, mask=mask, weight=weight)
    assert (found["mask_image"], found["weight_image"]) == (str(mask), str(weight))
    assert found["correct_outside"] and not found["rescale_intensities"]
    found = given({"rescale": True}, mask=mask)
    assert not found["correct_outside"] and found["rescale_intensities"]
    assert "bias_image" not in given({"bias_field": False})
    assert given({"output_dtype": "source"})["output_dtype"] == "source"


def test_each_transform_stays_with_its_own_file(given, tmp_path):
    mask, weight = tmp_path / "mask.nii.gz", tmp_path / "weight.nii.gz"
    one, other = tmp_path / "mask.tfm", tmp_path / "weight.h5"
    assert not {"mask_transform", "weight_transform"} & set(given(mask=mask, weight=weight))
    found = given(mask=mask, weight=weight, mask_transform=one, weight_transform=other)
    assert (found["mask_transform"], found["weight_transform"]) == (str(one), str(other))
    assert "mask_transform" not in given(weight=weight, weight_transform=other)


def test_the_node_gets_the_options_as_they_are(given):
    options = N4Options(bspline_order=2, convergence_threshold=1.23456789e-4)
    assert given({"options": options})["options"] is options


def test_an_image_of_one_slice_has_two_axes(given, tmp_path):
    path = tmp_path / "raw" / T1W
    image = nb.load(path)
    flat = nb.Nifti1Image(image.get_fdata()[:, :, :1], image.affine)
    flat.to_filename(path)
    assert given()["dimension"] == 2
    nb.Nifti1Image(np.ones((5, 4, 3, 1)), image.affine).to_filename(path)
    assert given()["dimension"] == 3


def test_a_job_with_a_problem_is_refused_with_it(given, tmp_path):
    with pytest.raises(ValueError, match=r"sub-01_T1w.nii.gz: no mask"):
        given(problem="no mask")


def test_the_pretended_node_tells_what_the_real_one_does(fake_node, make_dataset, tmp_path):
    """Otherwise the tests of the steps after a solve would test something else."""
    inputs = {
        "input_image": str(make_dataset(T1W) / T1W),
        "output_image": str(tmp_path / "corrected.nii.gz"),
        "bias_image": str(tmp_path / "field.nii.gz"),
        "lattice_image": str(tmp_path / "lattice.nii.gz"),
    }
    pretended = interfaces.BiasFieldCorrection(**inputs).run(cwd=str(tmp_path)).outputs
    options = N4Options(n_iterations=(1,))
    real = BiasFieldCorrection(**inputs, options=options, device="cpu", auto_mask="otsu")
    outputs = real.run(cwd=str(tmp_path)).outputs
    assert outputs.correction.keys() == pretended.correction.keys()
    assert outputs.correction["lattice"].keys() == pretended.correction["lattice"].keys()
    assert outputs.correction["sha256"] == pretended.correction["sha256"]
    for name, value in pretended.correction.items():
        assert type(value) is type(outputs.correction[name]), name
