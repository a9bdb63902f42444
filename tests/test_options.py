"""Options are written once: their ranges, the presets, and every place that shows them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import fields
from pathlib import Path

import pytest
import SimpleITK as sitk

from n4ax_bids.options import (
    DEFAULT_PRESET,
    PRESET_HELP,
    PRESETS,
    N4Options,
    preset,
    require_options,
    sloppy,
)
from n4ax_bids.options.realign import RealignOptions

OPTIONS = fields(N4Options)
USAGE = Path(__file__).parents[1] / "docs" / "usage.md"


def by_name(item):
    return item.name


@pytest.mark.parametrize(
    ("name", "value", "expectation"),
    [
        ("shrink_factor", 0, "at least 1"),
        ("shrink_mm", 0.0, "a positive number of mm"),
        ("shrink_mm", "4", "a number"),
        ("shrink_factor", 2.5, "a whole number"),
        ("shrink_factor", True, "a whole number"),
        ("n_iterations", (), "one number per level"),
        ("n_iterations", (0, 50), "the first at least 1"),
        ("n_iterations", (50, -1), "none negative"),
        ("n_iterations", (50, 1.5), "a whole number"),
        ("convergence_threshold", -1e-6, ">= 0"),
        ("convergence_threshold", float("nan"), ">= 0"),
        ("bspline_fitting_distance", 0.0, "a positive number of mm"),
        ("bspline_fitting_distance", -200.0, "a positive number of mm"),
        ("bspline_fitting_distance", float("inf"), "a positive number of mm"),
        ("bspline_order", 0, "1 to 9"),
        ("bspline_order", 10, "1 to 9"),
        ("n_control_points", (4, 3, 4), "at least order + 1 = 4"),
        ("histogram_sharpening", (0.0, 0.01, 200), "a width of 1e-6"),
        ("histogram_sharpening", (0.15, 0.0, 200), "a noise of 1e-12"),
        ("histogram_sharpening", (0.15, 0.01, 1), "2 to 65536 bins"),
        ("over_relaxation", 0.0, "between 0 and 2"),
        ("over_relaxation", 2.0, "between 0 and 2"),
        ("convergence_statistic", "ants", "itk or exact"),
        ("itk_version", "4", "5 or 6"),
        ("precision", "float16", "float32 or float64"),
        ("n_iterations", None, "a whole number"),
        ("n_iterations", (10**19,), "none negative or above"),
        ("shrink_factor", float("nan"), "a whole number"),
        ("convergence_threshold", "a", "a number"),
        ("histogram_sharpening", (0.15, 0.01), "a width, a noise and a number of bins"),
        ("histogram_sharpening", "abc", "a width, a noise and a number of bins"),
        ("n_control_points", (), "one number for each axis"),
        ("refine", "no", "True or False"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(name, value, expectation):
    with pytest.raises(ValueError, match=re.escape(expectation)) as caught:
        N4Options(**{name: value})
    message = str(caught.value)
    assert "\n" not in message
    shown = [value, *(value if isinstance(value, tuple) else ())]
    assert any(repr(v) in message for v in shown)


def test_the_refusal_names_the_option():
    with pytest.raises(ValueError, match="shrink_factor is 0; expected at least 1"):
        N4Options(shrink_factor=0)


def test_a_distance_and_control_points_exclude_each_other():
    with pytest.raises(ValueError, match="not given together"):
        N4Options(n_control_points=(4, 4, 4), bspline_fitting_distance=200.0)


def test_control_points_follow_the_order():
    assert N4Options(n_control_points=(3, 3, 3), bspline_order=2).n_control_points == (3, 3, 3)
    with pytest.raises(ValueError, match="at least order"):
        N4Options(n_control_points=(3, 3, 3))


def test_sequences_and_whole_floats_become_tuples_of_int():
    options = N4Options(n_iterations=[20, 10.0], shrink_factor=2.0, n_control_points=5)
    assert options.n_iterations == (20, 10)
    assert options.n_control_points == (5,)
    values = (*options.n_iterations, options.shrink_factor, *options.n_control_points)
    assert all(type(value) is int for value in values)


def test_options_are_frozen_comparable_and_hashable():
    assert N4Options(n_iterations=[50] * 4) == N4Options()
    assert hash(N4Options(n_iterations=[50] * 4)) == hash(N4Options())
    with pytest.raises(dataclasses.FrozenInstanceError):
        N4Options().shrink_factor = 2


def test_numbers_of_the_preset_simpleitk_are_those_of_its_filter():
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    assert PRESETS["simpleitk"] == N4Options(
        shrink_factor=1,  # it leaves shrinking to its caller
        n_iterations=n4.GetMaximumNumberOfIterations(),
        convergence_threshold=n4.GetConvergenceThreshold(),
        histogram_sharpening=(
            n4.GetBiasFieldFullWidthAtHalfMaximum(),
            n4.GetWienerFilterNoise(),
            n4.GetNumberOfHistogramBins(),
        ),
        bspline_order=n4.GetSplineOrder(),
    )


def test_the_default_of_the_app_is_ants_with_a_distance_between_samples():
    assert PRESETS[DEFAULT_PRESET] == preset("ants", shrink_mm=4.0)


def test_a_preset_takes_changes_and_an_unknown_one_lists_those_there_are():
    assert preset("fmriprep", shrink_factor=2).shrink_factor == 2
    assert preset("fmriprep", shrink_factor=2).n_iterations == (50,) * 5
    with pytest.raises(ValueError, match="preset is 'best'; expected one of standard, ants"):
        preset("best")


@pytest.mark.parametrize("name", PRESETS)
def test_sloppy_is_less_of_each_preset(name):
    options = PRESETS[name]
    less = sloppy(options)
    assert less.n_iterations == (5, 5)
    assert less.shrink_factor == 4
    names = ("n_iterations", "shrink_factor", "shrink_mm")
    kept = {name: getattr(options, name) for name in names}
    assert less.shrink_mm is None
    assert dataclasses.replace(less, **kept) == options


@pytest.mark.parametrize("item", OPTIONS, ids=by_name)
def test_every_option_has_a_help_text(item):
    text = item.metadata["help"]
    assert text and "\n" not in text and not text.endswith(".")
    assert item.metadata["unit"] is None or item.metadata["unit"]


# The views: flags, traits, sidecar keys, documentation


@pytest.mark.parametrize("item", OPTIONS, ids=by_name)
def test_flag(item):
    from n4ax_bids.app.command import parser

    actions = {action.dest: action for action in parser.build_parser()._actions}
    action = actions[item.name]
    assert "--" + item.name.replace("_", "-") in action.option_strings
    assert item.metadata["help"] in action.help.replace("%%", "%")
    if item.metadata["choices"]:
        assert tuple(action.choices) == item.metadata["choices"]


@pytest.mark.parametrize("name", PRESETS)
def test_options_to_flags_and_back(name):
    from n4ax_bids.app.command import asked, parser

    words = []
    for item in OPTIONS:
        value = getattr(PRESETS[name], item.name)
        flag = parser.flag_of(item.name)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    arguments = parser.build_parser().parse_args(["in", "out", "participant", *words])
    assert asked.options_of(arguments) == PRESETS[name]


@pytest.mark.parametrize("item", OPTIONS, ids=by_name)
def test_row_in_the_documentation(item):
    rows = [row for row in USAGE.read_text(encoding="utf-8").splitlines() if row.startswith("|")]
    (row,) = [row for row in rows if row.startswith(f"| `{item.name}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"`{item.default}`"
    unit = item.metadata["unit"]
    assert cells[2] == item.metadata["help"] + (f" ({unit})" if unit else "")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_in_the_documentation(name):
    assert f"| `{name}` | {PRESET_HELP[name]} |" in USAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_in_the_readme(name):
    options = PRESETS[name]
    distance = options.bspline_fitting_distance
    cells = [
        f"{options.shrink_mm:g} mm" if options.shrink_mm else str(options.shrink_factor),
        " ".join(map(str, options.n_iterations)),
        f"{options.convergence_threshold:g}".replace("e-0", "e-"),
        "–" if distance is None else f"{distance:g} mm",
        f"{options.over_relaxation:g}",
    ]
    if options.adapt:
        cells[0] = cells[3] = "by the mask"
    rows = (USAGE.parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [row for row in rows if re.match(rf"\| `{name}`( \(default\))? \|", row)]
    shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert shown[1:6] == cells


def test_every_preset_has_a_help_text():
    assert list(PRESET_HELP) == list(PRESETS)


@pytest.mark.parametrize(
    "given, remedy",
    [
        ("fast", "preset('fast')"),
        ("faster", "preset('fast')"),
        ({"shrink_factor": 2}, "N4Options(**options)"),
        (N4Options, "N4Options()"),
        (4, "N4Options(...)"),
    ],
)
def test_what_are_no_options_is_named_with_what_to_pass(given, remedy):
    with pytest.raises(TypeError, match=re.escape(remedy)) as raised:
        require_options(given)
    assert repr(given) in str(raised.value)


def test_options_that_are_taken():
    assert require_options(None) == N4Options()
    assert require_options(preset("fast", shrink_factor=2)).shrink_factor == 2
    with pytest.raises(ValueError, match="preset is None; expected one of standard"):
        preset(None)


def test_the_table_of_realignment_has_every_option():
    text = (USAGE.parent / "realign.md").read_text("utf-8")
    for item in fields(RealignOptions):
        shown = "" if item.default is None else f"`{item.default}`"
        assert re.search(rf"^\| `{item.name}` \| {re.escape(shown)} \|", text, re.M), item.name
