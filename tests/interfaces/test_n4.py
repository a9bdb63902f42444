"""The node, in the place of nipype's: its traits, its files, what it refuses, real images."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import nibabel as nb
import nipype.interfaces.ants as nipype_ants
import nipype.interfaces.ants.tests.test_auto_N4BiasFieldCorrection as auto
import numpy as np
import pytest
from nipype import MapNode, Workflow
from nipype.interfaces.base import isdefined

from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.interfaces import N4BiasFieldCorrection

REAL = (
    "bids-small/sub-spine01/anat/sub-spine01_T1w.nii.gz",
    "bids-small/sub-spine01/anat/sub-spine01_T2w.nii.gz",
    "bids-small/sub-kidney01/ses-1/anat/sub-kidney01_ses-1_echo-1_MEGRE.nii.gz",
)


def short(**inputs):
    return N4BiasFieldCorrection(n_iterations=[2, 2], shrink_factor=2, device="cpu", **inputs)


def test_nipypes_own_test_of_the_traits(monkeypatch):
    """Its generated test, on our class; `min_ver`, a version of ANTs, is left out."""
    source = Path(auto.__file__).read_text()
    assert source.count('min_ver="2.1.0",') == 1
    module = types.ModuleType("less_min_ver", None)
    module.__package__ = auto.__package__
    exec(source.replace('min_ver="2.1.0",', ""), module.__dict__)
    monkeypatch.setattr(module, "N4BiasFieldCorrection", N4BiasFieldCorrection)
    module.test_N4BiasFieldCorrection_inputs()
    module.test_N4BiasFieldCorrection_outputs()


def test_the_same_traits_with_the_same_defaults():
    theirs, ours = nipype_ants.N4BiasFieldCorrection().inputs, N4BiasFieldCorrection().inputs
    for name in theirs.copyable_trait_names():
        assert getattr(ours, name) == getattr(theirs, name), name
        kinds = [inputs.trait(name).trait_type.__class__ for inputs in (ours, theirs)]
        assert kinds[0] is kinds[1], name
    assert ours.trait("rescale_intensities").min_ver is None
    for name in ("num_threads", "environ", "use_gpu", "device"):
        assert ours.trait(name).nohash


def test_no_cmd():
    assert not hasattr(N4BiasFieldCorrection(), "_cmd")  # fMRIPrep would look for the program
    assert N4BiasFieldCorrection().version is None


def test_importing_takes_no_jax_and_no_time():
    """Workflows are built in processes that never solve; 1 s is what the import may add."""
    program = """
import sys, time
import nipype.interfaces.ants, nipype.pipeline.engine
start = time.perf_counter()
from n4ax_bids.interfaces import N4BiasFieldCorrection
N4BiasFieldCorrection(input_image="x.nii", n_iterations=[50] * 4)
assert time.perf_counter() - start < 1
assert not {"jax", "SimpleITK", "isal"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"args": "--winsor 1"}, "'--winsor' is not an argument known"),
        ({"args": "-i other.nii"}, "'-i' is not an argument known here; expected one of -x, -r"),
        ({"args": "-o other.nii"}, "'-o' is not an argument known"),
        (
            {"args": "-s 2 \u2013x m.nii"},
            "begins with EN DASH (U+2013), not with a hyphen",
        ),
        ({"args": "\uff0dx m.nii"}, "begins with FULLWIDTH HYPHEN-MINUS"),
        ({"args": "-x m.nii other.nii"}, "-x has the values m.nii other.nii"),
        ({"args": "-b [-5]"}, "bspline_fitting_distance is -5.0"),
        ({"bspline_fitting_distance": -5.0}, "bspline_fitting_distance is -5.0"),
        ({"n_iterations": []}, "n_iterations is ()"),
        ({"shrink_factor": 0}, "shrink_factor is 0"),
    ],
)
def test_bad_values_are_named_with_the_file(image, work, inputs, message):
    node = N4BiasFieldCorrection(input_image=str(image), **inputs)
    with pytest.raises(ValueError) as raised:
        node.run(cwd=str(work))
    text = str(raised.value)
    assert text.startswith(str(image)) and message in text and "\n" not in text
    assert list(work.iterdir()) == []


def test_dimension_4_is_refused_with_what_to_do(image, work):
    node = N4BiasFieldCorrection(input_image=str(image), dimension=4)
    with pytest.raises(ValueError, match=r"sub-01_T1w\.nii\.gz: dimension is 4.*MapNode"):
        node.run(cwd=str(work))


@pytest.mark.parametrize("copy_header", [False, True])
def test_outputs(image, work, copy_header):
    node = short(input_image=str(image), save_bias=True, copy_header=copy_header)
    outputs = node.run(cwd=str(work)).outputs
    assert outputs.output_image == str(work / "sub-01_T1w_corrected.nii.gz")
    assert outputs.bias_image == str(work / "sub-01_T1w_bias.nii.gz")
    corrected, bias, source = map(nb.load, (outputs.output_image, outputs.bias_image, image))
    assert corrected.get_data_dtype() == (np.int16 if copy_header else np.float32)
    assert bias.get_data_dtype() == np.float32
    # One step of int16 over a range of about 1000, or three roundings of float32.
    step = 1000 / 2**16 if copy_header else 1000 * 5e-7
    product = corrected.get_fdata() * bias.get_fdata()
    np.testing.assert_allclose(product, source.get_fdata(), atol=2 * step)
    assert nb.load(outputs.lattice_image).shape == (5, 5, 5)
    record = json.loads(json.dumps(outputs.correction, allow_nan=False))
    assert record == outputs.correction
    assert (
        record["details"]["n_iterations"] == [2, 2]
        and record["output_image"] == outputs.output_image
    )


def test_no_bias_unless_asked_for(image, work):
    outputs = short(input_image=str(image)).run(cwd=str(work)).outputs
    assert not isdefined(outputs.bias_image)
    assert sorted(path.name for path in work.iterdir()) == [
        "sub-01_T1w_corrected.nii.gz",
        "sub-01_T1w_lattice.nii.gz",
    ]


def test_auto_mask(image, work):
    outputs = short(input_image=str(image), auto_mask="otsu").run(cwd=str(work)).outputs
    inside = otsu_mask(nb.load(image).get_fdata(dtype=np.float32))
    assert outputs.correction["mask"] == "otsu"
    assert outputs.correction["n_voxels_mask"] == inside.sum()
    assert not isdefined(outputs.found_mask_image)


def test_auto_mask_is_saved_on_request(image, work):
    for word in ("auto", "head"):
        given = {"auto_mask": word, "found_mask_image": f"{word}.nii.gz"}
        outputs = short(input_image=str(image), **given).run(cwd=str(work)).outputs
        assert outputs.found_mask_image == str(work / f"{word}.nii.gz")
        inside = np.asarray(nb.load(outputs.found_mask_image).dataobj)
        assert outputs.correction["n_voxels_mask"] == inside.sum()
        assert outputs.correction["mask"] == word and outputs.correction["mask_found"]["kind"]
    assert short(input_image=str(image), auto_mask="otsu").inputs.auto_mask == "otsu"
    assert short(input_image=str(image), auto_mask="hd-bet").inputs.auto_mask == "hd-bet"
    with pytest.raises(Exception, match="auto_mask"):
        short(input_image=str(image), auto_mask="bet")


@pytest.mark.parametrize("name", ["missing.nii.gz", "empty.nii.gz"])
def test_a_bad_image_raises_one_line(work, name):
    (work / "empty.nii.gz").touch()
    with pytest.raises((OSError, ValueError), match=name) as raised:
        short(input_image=str(work / name)).run(cwd=str(work))
    assert "\n" not in str(raised.value)
    assert [path.name for path in work.iterdir()] == ["empty.nii.gz"]


def test_the_hash_is_of_what_changes_the_result():
    def value(**inputs):
        return N4BiasFieldCorrection(input_image="x.nii", **inputs).inputs.get_hashval()[1]

    assert value() == value(use_gpu=True) == value(device="cpu") == value(num_threads=4)
    assert value() != value(over_relaxation=1.8) and value() != value(auto_mask="otsu")


@pytest.mark.parametrize(
    ("plugin", "plugin_args"),
    [("Linear", {}), ("MultiProc", {"n_procs": 2, "mp_context": "spawn"})],
)
def test_a_mapnode_over_real_files(tmp_path, test_data, plugin, plugin_args):
    files = [str(test_data(name)) for name in REAL]
    node = MapNode(short(save_bias=True), name="n4", iterfield=["input_image"])
    node.inputs.input_image = files
    workflow = Workflow(name="wf", base_dir=str(tmp_path))
    workflow.add_nodes([node])
    executed = workflow.run(plugin=plugin, plugin_args=plugin_args)
    outputs = next(iter(executed.nodes())).result.outputs
    assert len(outputs.output_image) == 3
    for source, corrected, bias in zip(
        files, outputs.output_image, outputs.bias_image, strict=True
    ):
        source, corrected, bias = (nb.load(path) for path in (source, corrected, bias))
        np.testing.assert_array_equal(corrected.affine, source.affine)
        np.testing.assert_allclose(
            corrected.get_fdata() * bias.get_fdata(),
            source.get_fdata(),
            rtol=1e-6,
            atol=1e-6,  # float32 rounding of intensities and field
        )
        assert np.ptp(bias.get_fdata()) > 1e-3
