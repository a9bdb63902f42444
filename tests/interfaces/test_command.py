"""What scripts in use ask of nipype's class besides inputs, outputs and a run."""

from __future__ import annotations

import itertools
import pickle

import nipype.interfaces.ants as nipype_ants
import pytest

from n4ax_bids.interfaces import N4BiasFieldCorrection
from tests.interfaces.drop_ins import OURS

pytestmark = pytest.mark.usefixtures("no_ants")


CHOICES = {
    "dimension": [{}, {"dimension": 2}],
    "mask": [{}, {"mask_image": "my mask's.nii", "weight_image": "w.nii.gz"}],
    "spline": [
        {},
        {"bspline_fitting_distance": 100 / 3},
        {"bspline_fitting_distance": 200, "bspline_order": 4},
    ],
    "iterations": [
        {},
        {"n_iterations": [50, 40]},
        {"n_iterations": [5], "convergence_threshold": 1e-7},
    ],
    "output": [
        {},
        {"save_bias": True},
        {"output_image": "o ut.nii", "bias_image": "b.nii"},
        {"output_image": "/abs/x_%s", "save_bias": True},
    ],
    "rest": [
        {},
        {"args": "-v 1 -r 0", "rescale_intensities": True},
        {"histogram_sharpening": (0.12, 0.02, 128), "shrink_factor": 3, "copy_header": True},
    ],
}


@pytest.mark.parametrize("node_class", OURS)
def test_the_command_line_is_nipypes_word_for_word(node_class):
    for choice in itertools.product(*CHOICES.values()):
        inputs = {name: value for part in choice for name, value in part.items()}
        for source in ("structural.nii", "/da ta/sub-01_T1w.nii.gz"):
            theirs = nipype_ants.N4BiasFieldCorrection(input_image=source, **inputs)
            ours = node_class(input_image=source, **inputs)
            assert ours.cmdline == theirs.cmdline, inputs
            assert ours.cmdline == theirs.cmdline, "asked again"
    assert node_class(input_image="x.nii", command="/opt/N4").cmdline.startswith("/opt/N4 -d 3")


def test_a_missing_input_is_named_as_by_nipype():
    messages = []
    for node_class in (nipype_ants.N4BiasFieldCorrection, N4BiasFieldCorrection):
        with pytest.raises(ValueError, match="requires a value for input 'input_image'") as raised:
            node_class().cmdline  # noqa: B018
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


NOT_OURS = {
    "_cmd": "the sign of a program that has to be there: fMRIPrep looks for it",
    "_copy_header_map": "the header is written at once",
    **dict.fromkeys(
        (
            *("_cmd_prefix", "_environ", "_filename_from_source", "_format_arg", "_format_xarray"),
            *("_gen_filename", "_ldd", "_out_bias_file", "_overload_extension", "_parse_inputs"),
        ),
        "how nipype makes a command line; ours is made by nipype's class itself",
    ),
}


def test_each_attribute_of_nipypes_class_is_there_or_left_out_for_a_reason():
    theirs, ours = nipype_ants.N4BiasFieldCorrection(), N4BiasFieldCorrection()
    assert set(dir(theirs)) - set(dir(ours)) <= set(NOT_OURS)


@pytest.mark.parametrize("node_class", OURS)
def test_the_attributes_that_scripts_touch(node_class):
    theirs = nipype_ants.N4BiasFieldCorrection(input_image="x.nii")
    node = node_class(input_image="x.nii")
    for name in ("cmd", "terminal_output", "write_cmdline", "version", "resource_monitor"):
        assert getattr(node, name) == getattr(theirs, name), name
    node.terminal_output = "none"
    assert node.terminal_output == "none"
    with pytest.raises(RuntimeError, match="Setting invalid value"):
        node.terminal_output = "loud"
    assert node_class(terminal_output="file", write_cmdline=True).write_cmdline is True
    assert node.version_from_command(cmd="no-such-program") is None
    assert (
        node.inputs.get_hashval()[1]
        == node_class(
            input_image="x.nii", terminal_output="file", num_threads=3
        ).inputs.get_hashval()[1]
    )


def test_the_hash_of_inputs_is_nipypes():
    inputs = {"input_image": "x.nii", "save_bias": True, "n_iterations": [5], "num_threads": 2}
    theirs = nipype_ants.N4BiasFieldCorrection(**inputs).inputs.get_hashval()
    assert N4BiasFieldCorrection(**inputs).inputs.get_hashval() == theirs


@pytest.mark.parametrize("node_class", OURS)
def test_defaults_of_the_class(node_class, monkeypatch):
    monkeypatch.setattr(node_class, "_terminal_output", "stream")
    monkeypatch.setattr(node_class, "_num_threads", 1)
    before = node_class()
    node_class.set_default_terminal_output("allatonce")
    node_class.set_default_num_threads(3)
    assert node_class().terminal_output == "allatonce" and node_class().inputs.num_threads == 3
    assert node_class(num_threads=2).inputs.num_threads == 2 and before.inputs.num_threads == 1
    with pytest.raises(AttributeError, match="Invalid terminal output_type"):
        node_class.set_default_terminal_output("loud")


@pytest.mark.parametrize("threads", [None, 1, 4, -1])
def test_the_number_of_threads_is_in_the_environment(threads):
    for node_class in (nipype_ants.N4BiasFieldCorrection, N4BiasFieldCorrection):
        node = node_class() if threads is None else node_class(num_threads=threads)
        expected = {} if threads == -1 else {"NSLOTS": str(threads or 1)}
        assert node.inputs.environ == expected
        node.inputs.num_threads = 7
        assert node.inputs.environ["NSLOTS"] == "7"
    copied = pickle.loads(pickle.dumps(node))
    copied.inputs.num_threads = 2
    assert copied.inputs.environ["NSLOTS"] == "2" and node.inputs.environ["NSLOTS"] == "7"


def test_defaults_set_on_the_classes_of_nipype_count_here_too(monkeypatch):
    from nipype.interfaces.ants.base import ANTSCommand
    from nipype.interfaces.base import CommandLine

    monkeypatch.setattr(CommandLine, "_terminal_output", "stream")
    monkeypatch.setattr(ANTSCommand, "_num_threads", 1)
    CommandLine.set_default_terminal_output("file")
    ANTSCommand.set_default_num_threads(3)
    node = N4BiasFieldCorrection()
    assert (node.terminal_output, node.inputs.num_threads) == ("file", 3)
