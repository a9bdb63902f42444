"""The node, in the place of nipype's."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import types
from pathlib import Path

import nibabel as nb
import nipype.interfaces.ants as nipype_ants
import nipype.interfaces.ants.tests.test_auto_N4BiasFieldCorrection as auto
import numpy as np
import pytest
from nipype import MapNode, Node, Workflow
from nipype.interfaces.base import isdefined

import n4ax_bids.correct
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.foreign import ants
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.interfaces import bias as door
from n4ax_bids.options import N4Options

REAL = (
    "bids-small/sub-spine01/anat/sub-spine01_T1w.nii.gz",
    "bids-small/sub-spine01/anat/sub-spine01_T2w.nii.gz",
    "bids-small/sub-kidney01/ses-1/anat/sub-kidney01_ses-1_echo-1_MEGRE.nii.gz",
)


@pytest.fixture
def image(tmp_path, rng):
    """A small int16 image in a folder that is not the working directory."""
    x = np.linspace(-1, 1, 20)[:, None, None]
    data = rng.choice([300, 500, 700], (20, 18, 16)) * np.exp(0.3 * x)
    data *= 1 + 0.02 * rng.standard_normal(data.shape)
    path = tmp_path / "data" / "sub-01_T1w.nii.gz"
    path.parent.mkdir()
    nb.Nifti1Image(data.astype(np.int16), np.diag([1.0, 1.1, 1.2, 1])).to_filename(path)
    (tmp_path / "work").mkdir()
    return path


@pytest.fixture
def work(image):
    return image.parents[1] / "work"


@pytest.fixture
def calls(monkeypatch):
    """Record what the node asks of `correct`, and write nothing."""
    recorded = []

    def stand_in(input_image, output_image, **kwargs):
        recorded.append({"input_image": input_image, "output_image": output_image} | kwargs)
        raise InterruptedError

    monkeypatch.setattr(n4ax_bids.correct, "correct", stand_in)
    return recorded


def asked(calls, cwd, **inputs):
    with pytest.raises(InterruptedError):
        N4BiasFieldCorrection(**inputs).run(cwd=str(cwd))
    return types.SimpleNamespace(**calls[-1])


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


def test_what_is_undefined_is_left_to_ants_defaults(calls, image, work):
    call = asked(calls, work, input_image=str(image))
    assert call.options == N4Options()
    assert call.input_image == image and call.dimension == 3 and call.device == "auto"
    assert call.mask_image is None and call.weight_image is None and call.auto_mask is None
    assert call.rescale_intensities and call.output_dtype == "float32"


@pytest.mark.parametrize(("num_threads", "asked_for"), [(None, 1), (3, 3), (-1, None)])
def test_threads_are_asked_of_jax(calls, image, work, monkeypatch, num_threads, asked_for):
    """nipype reckons with 1 where nothing is said; -1 is the program's own choice."""
    from n4ax_bids.runtime import device

    started = []
    monkeypatch.setattr(device, "start", started.append)
    inputs = {} if num_threads is None else {"num_threads": num_threads}
    asked(calls, work, input_image=str(image), **inputs)
    assert started == [asked_for]


def test_the_lattice_may_have_a_name(calls, image, work, tmp_path):
    call = asked(calls, work, input_image=str(image))
    assert call.lattice_image == work / "sub-01_T1w_lattice.nii.gz"
    call = asked(calls, work, input_image=str(image), lattice_image="l.nii.gz")
    assert call.lattice_image == work / "l.nii.gz"
    call = asked(calls, work, input_image=str(image), lattice_image=str(tmp_path / "l.nii"))
    assert call.lattice_image == tmp_path / "l.nii"


def test_traits_reach_correct(calls, image, work):
    call = asked(
        calls,
        work,
        input_image=str(image),
        mask_image="mask.nii",
        weight_image=str(image),
        dimension=2,
        bspline_fitting_distance=200,
        bspline_order=2,
        shrink_factor=3,
        n_iterations=[50, 40],
        convergence_threshold=1e-6,
        histogram_sharpening=(0.2, 0.02, 150),
        over_relaxation=1.8,
        copy_header=True,
        device="gpu:1",
    )
    assert call.options == N4Options(
        shrink_factor=3,
        n_iterations=(50, 40),
        convergence_threshold=1e-6,
        bspline_fitting_distance=200,
        bspline_order=2,
        histogram_sharpening=(0.2, 0.02, 150),
        over_relaxation=1.8,
    )
    assert call.mask_image == work / "mask.nii" and call.weight_image == image
    assert call.dimension == 2 and call.output_dtype == "source" and call.device == "gpu:1"


@pytest.mark.parametrize(
    ("inputs", "rescales"),
    [
        ({}, True),
        ({"rescale_intensities": False}, True),
        ({"rescale_intensities": True}, True),
        ({"args": "-r 0"}, False),
        ({"args": "-r 0", "rescale_intensities": False}, False),
        ({"args": "-r 0", "rescale_intensities": True}, True),  # nipype writes -r 0 ... -r
    ],
)
def test_rescaling_is_as_the_words_that_nipype_writes_say(calls, image, work, inputs, rescales):
    call = asked(calls, work, input_image=str(image), **inputs)
    assert call.rescale_intensities is rescales
    words = nipype_ants.N4BiasFieldCorrection(input_image="x.nii", **inputs).cmdline.split()[1:]
    settings = ants.parse(words).settings
    assert settings.get("rescale-intensities", {"": True}).popitem()[1] is rescales


def test_numbers_have_the_digits_that_nipype_writes(calls, image, work):
    """A third of 100 mm is 33.3333 for the program, which takes four of them, not three."""
    inputs = {
        "bspline_fitting_distance": 100 / 3,
        "n_iterations": [20],
        "convergence_threshold": 1e-4 / 3,
        "histogram_sharpening": (0.1 / 3, 0.02 / 3, 128),
    }
    call = asked(calls, work, input_image=str(image), **inputs)
    words = nipype_ants.N4BiasFieldCorrection(input_image="x.nii", **inputs).cmdline.split()[1:]
    flags = ("bspline-fitting", "convergence", "histogram-sharpening")
    read = ants.parse(words).settings
    expected = {name: value for flag in flags for name, value in read[flag].items()}
    assert expected["bspline_fitting_distance"] == 33.3333
    assert call.options == N4Options(**expected)
    # Words in args are for the program itself.
    call = asked(calls, work, input_image=str(image), args="-b [33.33333333]")
    assert call.options.bspline_fitting_distance == 33.33333333


def test_mask_and_weight_in_args(calls, image, work):
    call = asked(calls, work, input_image=str(image), args="-x m.nii -w /abs/w.nii")
    assert call.mask_image == work / "m.nii" and call.weight_image == Path("/abs/w.nii")
    call = asked(calls, work, input_image=str(image), args="-x m.nii", mask_image="other.nii")
    assert call.mask_image == work / "other.nii" and call.weight_image is None


def test_words_without_effect_are_logged(calls, image, work, caplog):
    logger = logging.getLogger("nipype.interface")
    logger.addHandler(caplog.handler)
    try:
        call = asked(calls, work, input_image=str(image), args="-b 200")
    finally:
        logger.removeHandler(caplog.handler)
    assert call.options == N4Options()
    assert "N4 args: -b 200: not read" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"args": "-b [2x1x3]"}, N4Options(n_control_points=(5, 4, 6))),
        ({"args": "-s 2 -v 1"}, N4Options(shrink_factor=2)),
        (
            {"args": "-s 2 -c [20]", "shrink_factor": 3},
            N4Options(shrink_factor=3, n_iterations=(20,)),
        ),
        # The last flag of a kind counts as a whole: no threshold, no order is left of the first.
        (
            {"args": "-c [20,1e-3]", "n_iterations": [30]},
            N4Options(n_iterations=(30,)),
        ),
        (
            {"args": "-b [2x1x3,2]", "bspline_fitting_distance": 90.0},
            N4Options(bspline_fitting_distance=90),
        ),
    ],
)
def test_args_come_before_the_traits(calls, image, work, inputs, options):
    assert asked(calls, work, input_image=str(image), **inputs).options == options


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


@pytest.mark.parametrize(
    ("inputs", "output", "bias"),
    [
        ({}, "sub-01_T1w_corrected.nii.gz", None),
        ({"save_bias": True}, "sub-01_T1w_corrected.nii.gz", "sub-01_T1w_bias.nii.gz"),
        ({"bias_image": "b.nii"}, "sub-01_T1w_corrected.nii.gz", "b.nii"),
        ({"save_bias": True, "bias_image": "b.nii"}, "sub-01_T1w_corrected.nii.gz", "b.nii"),
        ({"output_image": "x_%s.nii"}, "x_sub-01_T1w.nii", None),
        ({"output_image": "x_%s"}, "x_sub-01_T1w.nii.gz", None),
        ({"output_image": "other.nii"}, "other.nii", None),
        ({"output_image": "plain"}, "plain", None),
        ({"output_image": "/abs/y.nii", "bias_image": "/abs/b.nii"}, "/abs/y.nii", "/abs/b.nii"),
    ],
)
def test_names_are_those_of_nipype(calls, image, work, monkeypatch, inputs, output, bias):
    call = asked(calls, work, input_image=str(image), **inputs)
    assert call.output_image == work / output
    assert call.bias_image == (work / bias if bias else None)
    assert call.lattice_image == work / "sub-01_T1w_lattice.nii.gz"
    monkeypatch.chdir(work)
    theirs = nipype_ants.N4BiasFieldCorrection(input_image=str(image), **inputs)
    expected = f"[ {output}, {bias} ]" if bias else output
    assert f"--output {expected}" in theirs.cmdline


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


@pytest.fixture
def gpus(monkeypatch):
    def see(number):
        door.n_gpus.cache_clear()
        monkeypatch.setattr(door, "gpu_count", lambda: number)

    yield see
    door.n_gpus.cache_clear()


@pytest.mark.parametrize(
    ("number", "inputs", "use_gpu", "device"),
    [
        (0, {}, False, "auto"),  # nvidia-smi may be missing where JAX does see a GPU
        (1, {}, True, "auto"),
        (1, {"use_gpu": False}, False, "cpu"),
        (0, {"use_gpu": True}, True, "auto"),
        (1, {"device": "cpu"}, False, "cpu"),
        (1, {"device": "gpu:0"}, True, "gpu:0"),
        (2, {"device": "cpu", "use_gpu": True}, True, "cpu"),
    ],
)
def test_a_place_in_the_gpu_queue(gpus, calls, image, work, number, inputs, use_gpu, device):
    gpus(number)
    interface = N4BiasFieldCorrection(input_image=str(image), **inputs)
    assert interface.inputs.use_gpu is use_gpu
    assert Node(interface, name="n4").is_gpu_node() is use_gpu
    assert asked(calls, work, input_image=str(image), **inputs).device == device


def test_setting_the_device_later(gpus):
    gpus(1)
    node = N4BiasFieldCorrection()
    node.inputs.device = "cpu"
    assert node.inputs.use_gpu is False
    node.inputs.device = "gpu"
    assert node.inputs.use_gpu is True


def test_a_copy_of_a_node_has_its_own_place_in_the_queue(gpus):
    gpus(1)
    workflow = Workflow(name="wf")
    workflow.add_nodes([Node(N4BiasFieldCorrection(), name="n4")])
    copied = workflow.clone("copied").get_node("n4")
    copied.inputs.device = "cpu"
    assert not copied.is_gpu_node() and workflow.get_node("n4").is_gpu_node()
    asked_for = Node(N4BiasFieldCorrection(device="gpu", use_gpu=False), name="n4")
    assert not asked_for.clone("copied").is_gpu_node()


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
