"""The tissue method as a node and as `n4ax-bids --method tissue`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces import fsl, spm
from nipype.interfaces.base import isdefined

from n4ax_bids.app import cli
from n4ax_bids.interfaces import TissueBiasCorrection
from n4ax_bids.options.tissue import TissueOptions, paragraph, sloppy
from n4ax_bids.phantoms import phantom

SHAPE = (32, 30, 28)
TISSUES = ("CSF", "GM", "WM")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "sub-01_T1w.nii.gz"
    made = phantom(SHAPE, seed=1, field="coils", amplitude=0.5, noise=0.01)
    nb.Nifti1Image(1000 * made.image, np.diag([4, 4, 4, 1.0])).to_filename(path)
    return path


def test_every_option_has_a_trait():
    inputs = TissueBiasCorrection().inputs
    for field in dataclasses.fields(TissueOptions):
        assert not isdefined(getattr(inputs, field.name))
        assert inputs.trait(field.name).desc.startswith(field.metadata["help"])


def test_traits_change_the_preset(image):
    node = TissueBiasCorrection(input_image=str(image), n_classes=7)
    assert node._options() == TissueOptions(n_classes=7)
    node.inputs.options = TissueOptions()
    with pytest.raises(ValueError, match="options is given together with n_classes"):
        node._options()
    node = TissueBiasCorrection(input_image=str(image), knots=-3.0)
    with pytest.raises(ValueError, match=r"sub-01_T1w.nii.gz: knots is -3.0; expected 0.1"):
        node._options()


def test_the_node_has_the_outputs_of_fast_and_new_segment(image, tmp_path):
    node = TissueBiasCorrection(
        input_image=str(image),
        auto_mask="otsu",
        save_bias=True,
        posteriors=True,
        contrast="T1w",
    )
    outputs = node.run(cwd=str(tmp_path)).outputs
    assert outputs.restored_image == outputs.output_image == outputs.bias_corrected_images[0]
    assert outputs.bias_field == outputs.bias_image == outputs.bias_field_images[0]
    names = [Path(path).name for path in outputs.partial_volume_files]
    assert names == [f"sub-01_T1w_label-{tissue}_probseg.nii.gz" for tissue in TISSUES]
    maps = [nb.load(path).get_fdata() for path in outputs.partial_volume_files]
    assert maps[0].shape == SHAPE and 0.9 < sum(maps).max() <= 1.0001
    corrected, bias, before = (
        nb.load(path).get_fdata() for path in (outputs.output_image, outputs.bias_image, image)
    )
    np.testing.assert_allclose(corrected * bias, before, rtol=1e-5)
    assert outputs.correction["method"] == "tissue"
    assert outputs.correction["details"]["fell_back"] is False


def test_the_names_are_those_that_nipype_s_nodes_have():
    ours = set(TissueBiasCorrection.output_spec().get())
    assert {"restored_image", "bias_field", "partial_volume_files"} <= ours
    assert {"restored_image", "bias_field", "partial_volume_files"} <= set(
        fsl.FAST.output_spec().get()
    )
    assert {"bias_corrected_images", "bias_field_images"} <= ours
    assert {"bias_corrected_images", "bias_field_images"} <= set(
        spm.NewSegment.output_spec().get()
    )


@pytest.fixture(scope="module")
def run_folder(image, tmp_path_factory) -> tuple[int, Path]:
    """Run the BIDS-App once."""
    folder = tmp_path_factory.mktemp("app")
    raw = folder / "raw/sub-01/anat/sub-01_T1w.nii.gz"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(image.read_bytes())
    text = json.dumps({"Name": "one", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (folder / "raw/dataset_description.json").write_text(text)
    words = [str(folder / "raw"), str(folder / "out"), "participant", "--device", "cpu"]
    words += ["--skip-bids-validation", "--method", "tissue", "--mask", "otsu"]
    status = cli.main([*words, "--posteriors", "--contrast", "T1w"])
    return status, folder / "out"


def test_the_app(run_folder):
    status, out = run_folder
    assert status == 0
    anat = out / "sub-01/anat"
    facts = json.loads((anat / "sub-01_desc-biascorr_T1w.json").read_text())["BiasCorrection"]
    assert facts["Method"] == "tissue"
    assert facts["Options"] == asdict(TissueOptions(posteriors=True, contrast="T1w"))
    assert facts["Details"]["misfit"] < 0.03 and facts["Details"]["fell_back"] is False
    for tissue in TISSUES:
        stem = f"sub-01_space-T1w_label-{tissue}_probseg"
        assert nb.load(anat / f"{stem}.nii.gz").shape == SHAPE
        told = json.loads((anat / f"{stem}.json").read_text())["Description"]
        assert told == f"T1w: probability of {tissue}"


def test_the_report_and_the_methods_text(run_folder):
    _, out = run_folder
    page = (out / "sub-01.html").read_text()
    assert "The classes and their sum" in page and "misfit of the classes" in page
    drawn = (out / "sub-01/figures/sub-01_desc-curves_T1w.svg").read_text()
    assert "Classes" in drawn and "ln of intensity" in drawn
    text = (out / "logs/CITATION.md").read_text()
    assert "Ashburner and Friston, 2005" in text and "6 Gaussian classes" in text


@pytest.mark.parametrize("field", dataclasses.fields(TissueOptions), ids=lambda each: each.name)
def test_no_option_is_missing_from_the_methods_text(field):
    value, before = field.default, TissueOptions(posteriors=field.name != "posteriors")
    other = {"contrast": "T2w", "posteriors": True}.get(field.name) or 2 * value
    other = min(other, 1) if field.name == "balance" else other
    changed = dataclasses.replace(before, **{field.name: other})
    assert paragraph(changed, "default", True) != paragraph(before, "default", True)


def test_sloppy_options_are_large_blocks_and_few_rounds():
    quick = sloppy(TissueOptions())
    assert (quick.block_mm, quick.most_rounds) == (4.0, 3)
