"""What the node asks of `correct`: the options, files, names and device of its traits and args."""

from __future__ import annotations

import logging
import types
from pathlib import Path

import nipype.interfaces.ants as nipype_ants
import pytest
from nipype import Node, Workflow

import n4ax_bids.correct
from n4ax_bids.foreign import ants
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.interfaces import bias as door
from n4ax_bids.options import N4Options


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
