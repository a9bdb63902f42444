"""The zero-shot method as a node and as `n4ax-bids --method zeroshot`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from n4ax_bids.app import cli
from n4ax_bids.interfaces import N4BiasFieldCorrection, ZeroShotBiasCorrection
from n4ax_bids.options.zero_shot import PRESETS, ZeroShotOptions, paragraph, sloppy
from n4ax_bids.phantoms import phantom

SHAPE = (32, 30, 28)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "sub-01_T1w.nii.gz"
    made = phantom(SHAPE, amplitude=0.4)
    nb.Nifti1Image(1000 * made.image, np.diag([2, 2, 2, 1.0])).to_filename(path)
    return path


def test_every_option_has_a_trait():
    inputs = ZeroShotBiasCorrection().inputs
    for field in dataclasses.fields(ZeroShotOptions):
        assert not isdefined(getattr(inputs, field.name))
        assert inputs.trait(field.name).desc.startswith(field.metadata["help"])


def test_traits_change_the_preset(image):
    node = ZeroShotBiasCorrection(input_image=str(image), preset="dixon", n_steps=7)
    assert node._options() == dataclasses.replace(PRESETS["dixon"], n_steps=7)
    node.inputs.options = ZeroShotOptions()
    with pytest.raises(ValueError, match="options is given together with n_steps"):
        node._options()
    node = ZeroShotBiasCorrection(input_image=str(image), exposure=3.0)
    with pytest.raises(ValueError, match=r"sub-01_T1w.nii.gz: exposure is 3.0; expected above 0"):
        node._options()


def test_the_node_names_its_files_as_n4_s(image, tmp_path):
    node = ZeroShotBiasCorrection(
        input_image=str(image),
        auto_mask="otsu",
        save_bias=True,
        n_steps=3,
        output="curve",
        method_images={"curve": "curve.nii.gz"},
    )
    outputs = node.run(cwd=str(tmp_path)).outputs
    other = N4BiasFieldCorrection(input_image=str(image), save_bias=True, dimension=3)
    theirs = other._output_paths(tmp_path)
    for name in ("output_image", "bias_image", "lattice_image"):
        assert Path(getattr(outputs, name)).name == theirs[name].name
    corrected, bias, before = (
        nb.load(path).get_fdata() for path in (outputs.output_image, outputs.bias_image, image)
    )
    np.testing.assert_allclose(corrected * bias, before, rtol=1e-5)
    assert nb.load(outputs.method_images["curve"]).shape == SHAPE
    assert outputs.correction["method"] == "zeroshot"
    details = outputs.correction["details"]
    assert details["n_parameters"] == 2964 and len(details["losses"]) == 4
    assert details["saturated"] is False


def test_the_brightened_image_is_refused_where_there_is_none(image, tmp_path):
    node = ZeroShotBiasCorrection(input_image=str(image), method_images={"curve": "c.nii.gz"})
    with pytest.raises(ValueError, match="'curve'; expected outputs of zeroshot: none"):
        node.run(cwd=str(tmp_path))


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
    words += ["--skip-bids-validation", "--method", "zeroshot", "--mask", "otsu"]
    status = cli.main([*words, "--n-steps", "3", "--output", "curve"])
    return status, folder / "out"


def test_the_app(run_folder):
    status, out = run_folder
    assert status == 0
    anat = out / "sub-01/anat"
    facts = json.loads((anat / "sub-01_desc-biascorr_T1w.json").read_text())["BiasCorrection"]
    options = ZeroShotOptions(n_steps=3, output="curve")
    assert facts["Method"] == "zeroshot" and facts["Options"] == asdict(options)
    details = facts["Details"]
    assert len(details["losses"]) == 4 and details["saturated"] is False
    assert details["factors"] == [4, 4, 4]
    told = json.loads((anat / "sub-01_desc-curve_T1w.json").read_text())
    assert "brightened by the tone curve" in told["Description"]
    assert (anat / "sub-01_desc-curve_T1w.nii.gz").is_file()


def test_the_report_and_the_methods_text(run_folder):
    _, out = run_folder
    page = (out / "sub-01.html").read_text()
    assert "The loss at each step" in page and "weights of the network" in page
    drawn = (out / "sub-01/figures/sub-01_desc-curves_T1w.svg").read_text()
    assert "Loss" in drawn and "tone" in drawn and "bias" in drawn
    text = (out / "logs/CITATION.md").read_text()
    assert "Yang, Timko and Fernandez, 2025" in text and "3 steps of Adam" in text


def test_the_methods_text_states_every_option():
    options = ZeroShotOptions(
        width=7, n_curves=5, seed=77, gradient_clip=0.25, field_spacing=88, n_levels=6
    )
    text = paragraph(options, "brain", True)
    for part in ("width 7", "5 times", "seed 77", "0.25", "88 mm", "6 normal", "some of them"):
        assert part in text


@pytest.mark.parametrize("field", dataclasses.fields(ZeroShotOptions), ids=lambda each: each.name)
def test_no_option_is_missing_from_the_methods_text(field):
    value, choices = field.default, field.metadata["choices"]
    if choices:
        other = choices[1]
    elif isinstance(value, bool):
        other = not value
    else:
        # Regions must be multiples of the block.
        other = {"block": 2, "gradient_clip": 0.5, "exposure": 0.3}.get(field.name)
        other = other or 2 * (value or 1)
    changed = ZeroShotOptions(**{field.name: other})
    assert paragraph(changed, "brain", True) != paragraph(ZeroShotOptions(), "brain", True)


def test_sloppy_options_are_few_steps_and_rounds():
    quick = sloppy(ZeroShotOptions())
    assert (quick.n_steps, quick.n_rounds) == (10, 2)
    assert sloppy(ZeroShotOptions(n_steps=5, n_rounds=0)) == ZeroShotOptions(n_steps=5, n_rounds=0)
