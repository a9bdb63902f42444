"""Options, traits and back."""

from __future__ import annotations

import dataclasses

import pytest
from nipype.interfaces.base import Undefined, isdefined

from benchmarks import ants_parity
from n4ax_bids.foreign import ants
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.interfaces.n4 import AntsInputSpec
from n4ax_bids.interfaces.spec import node_inputs, read_options
from n4ax_bids.options import PRESETS, N4Options

FIELDS = dataclasses.fields(N4Options)
OURS = [field for field in FIELDS if field.name not in AntsInputSpec.class_trait_names()]


def said(options):
    """The same options with the control points written out, where no other option sets them."""
    if options.bspline_fitting_distance is not None or options.adapt:
        return options
    points = options.n_control_points or (max(4, options.bspline_order + 1),)
    return dataclasses.replace(options, n_control_points=points * (3 // len(points)))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_has_a_trait_that_starts_undefined(field):
    assert not isdefined(getattr(N4BiasFieldCorrection().inputs, field.name))


@pytest.mark.parametrize("field", OURS, ids=lambda field: field.name)
def test_help_and_choices_come_from_the_option(field):
    trait = N4BiasFieldCorrection().inputs.trait(field.name)
    assert trait.desc.startswith(field.metadata["help"])
    if field.metadata["choices"]:
        assert tuple(trait.handler.values) == field.metadata["choices"]


def test_nipypes_own_traits_stay_its_own():
    assert {field.name for field in OURS} == {
        "adapt",
        "shrink_mm",
        "n_control_points",
        "over_relaxation",
        "refine",
        "convergence_statistic",
        "itk_version",
        "shrink_start",
        "precision",
    }


OPTIONS = {
    **PRESETS,
    "order": N4Options(bspline_order=2),
    "high order": N4Options(bspline_order=4),
    "order and points": N4Options(bspline_order=2, n_control_points=(5, 6, 7)),
    "points": N4Options(n_control_points=(5, 6, 7)),
    "one number of points": N4Options(n_control_points=(5,), bspline_order=4),
    "distance and order": N4Options(bspline_order=2, bspline_fitting_distance=80),
    "threshold": N4Options(convergence_threshold=1e-3),
    "sharpening": N4Options(histogram_sharpening=(0.2, 0.1, 256)),
    "all of ours": N4Options(
        over_relaxation=1.5,
        refine=False,
        convergence_statistic="exact",
        itk_version="6",
        shrink_start=(0, 1, 2),
        precision="float64",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_through_a_node_and_back(name):
    """nipype's own checks pass too: an order needs a distance, a threshold needs iterations."""
    options = OPTIONS[name]
    node = N4BiasFieldCorrection(input_image="x.nii", **node_inputs(options))
    node._check_mandatory_inputs()
    words = ants.parse(node.inputs.args if isdefined(node.inputs.args) else "")
    settings = {key: value for part in words.settings.values() for key, value in part.items()}
    assert said(read_options(node.inputs, N4Options, settings)) == said(options)


@pytest.mark.parametrize(("name", "client"), [("fmriprep", "P4"), ("mriqc", "P7")])
def test_a_preset_is_what_its_program_gives_the_node(name, client):
    """The sets are what those programs were seen to pass; they are compared with ANTs itself."""
    node = N4BiasFieldCorrection(input_image="x.nii", **ants_parity.SETS[client].inputs)
    assert node._settings()[1] == PRESETS[name]


def test_many_digits_reach_the_solve():
    """The node rounds its inputs to six digits, as nipype writes them; options are exact."""
    options = N4Options(
        n_iterations=(20, 10),
        bspline_fitting_distance=100 / 3,
        convergence_threshold=1e-4 / 3,
        histogram_sharpening=(0.1 / 3, 0.02, 128),
    )
    node = N4BiasFieldCorrection(input_image="x.nii", **node_inputs(options))
    node._check_mandatory_inputs()
    assert node._settings()[1] == options


def test_undefined_is_the_default():
    inputs = N4BiasFieldCorrection().inputs
    assert read_options(inputs, N4Options) == N4Options()
    assert read_options(inputs, N4Options, {"shrink_factor": 2, "verbose": True}) == N4Options(
        shrink_factor=2
    )
    inputs.shrink_factor = 3
    assert read_options(inputs, N4Options, {"shrink_factor": 2}).shrink_factor == 3
    inputs.shrink_factor = Undefined
    assert read_options(inputs, N4Options).shrink_factor == 4


def test_a_value_out_of_range_is_named():
    inputs = N4BiasFieldCorrection(bspline_fitting_distance=-5.0).inputs
    with pytest.raises(ValueError, match=r"bspline_fitting_distance is -5\.0"):
        read_options(inputs, N4Options)
