"""What a command line asks for: defaults, presets and flags in the request that they make."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from n4ax_bids.app import cli, run
from n4ax_bids.app.status import Status
from n4ax_bids.methods import METHODS
from n4ax_bids.options import PRESETS, N4Options, TissueOptions

SEVERAL = "--shrink-start 1 0 1 --over-relaxation 1.2 --no-refine --precision float64".split()


@pytest.fixture
def asked(monkeypatch):
    """Parse a command line and return the request."""

    def parse(*flags):
        caught = []
        monkeypatch.setattr(run, "run", lambda request: caught.append(request) or Status.OK)
        assert cli.main(["/raw", "/out", "participant", *flags]) == 0
        return caught[0]

    return parse


def test_defaults(asked):
    request = asked()
    assert (request.mask, request.preset) == ("auto", "standard")
    assert request.options == N4Options(shrink_mm=4.0) == PRESETS["standard"]
    assert request.device == "auto"
    assert request.work_dir is None
    assert request.nprocs is request.omp_nthreads is request.mem is None
    assert (request.participants, request.sessions) == ((), ())


def test_relative_paths_become_absolute_and_links_stay(asked, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    request = asked("-w", "link/work")
    assert request.work_dir == tmp_path / "link" / "work"


def test_what_the_run_may_take(asked):
    request = asked("--nprocs", "3", "--omp-nthreads", "2", "--mem", "150")
    assert (request.nprocs, request.omp_nthreads, request.mem) == (3, 2, 150_000_000)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(asked, name):
    assert asked("--preset", name).options == PRESETS[name]


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--shrink-factor", "2"], "shrink_factor", 2),
        (["--n-iterations", "30", "20"], "n_iterations", (30, 20)),
        (["--convergence-threshold", "1e-5"], "convergence_threshold", 1e-5),
        (["--bspline-fitting-distance", "120"], "bspline_fitting_distance", 120.0),
        (["--bspline-order", "2"], "bspline_order", 2),
        (["--n-control-points", "5", "4", "6"], "n_control_points", (5, 4, 6)),
        (
            ["--histogram-sharpening", "0.2", "0.02", "100"],
            "histogram_sharpening",
            (0.2, 0.02, 100),
        ),
        (["--over-relaxation", "1.5"], "over_relaxation", 1.5),
        (["--no-refine"], "refine", False),
        (["--convergence-statistic", "exact"], "convergence_statistic", "exact"),
        (["--itk-version", "6"], "itk_version", "6"),
        (["--shrink-start", "0", "1", "1"], "shrink_start", (0, 1, 1)),
        (["--adapt"], "adapt", True),
        (["--precision", "float64"], "precision", "float64"),
    ],
)
def test_a_solver_flag_replaces_what_the_preset_says(asked, flags, name, value):
    options = asked("--preset", "mriqc", *flags).options
    assert getattr(options, name) == value
    others = [item.name for item in fields(N4Options) if item.name != name]
    for other in others:
        assert getattr(options, other) == getattr(PRESETS["mriqc"], other)


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--n-curves", "3"], "n_curves", 3),
        (["--width", "8"], "width", 8),
        (["--downsample", "6"], "downsample", 6),
        (["--n-steps", "7"], "n_steps", 7),
        (["--learning-rate", "0.001"], "learning_rate", 0.001),
        (["--weight-decay", "0.01"], "weight_decay", 0.01),
        (["--gradient-clip", "0.1"], "gradient_clip", 0.1),
        (["--exposure", "0.5"], "exposure", 0.5),
        (["--weight-smooth", "200"], "weight_smooth", 200.0),
        (["--weight-spatial", "2"], "weight_spatial", 2.0),
        (["--weight-exposure", "10"], "weight_exposure", 10.0),
        (["--weight-prior", "3"], "weight_prior", 3.0),
        (["--weight-smooth-bias", "10"], "weight_smooth_bias", 10.0),
        (["--region-spatial", "8"], "region_spatial", 8),
        (["--region-exposure", "8"], "region_exposure", 8),
        (["--neighbours", "corners"], "neighbours", "corners"),
        (["--block", "2"], "block", 2),
        (["--no-scaled"], "scaled", False),
        (["--background"], "background", True),
        (["--n-levels", "5"], "n_levels", 5),
        (["--n-rounds", "5"], "n_rounds", 5),
        (["--output", "curve"], "output", "curve"),
        (["--field-spacing", "80"], "field_spacing", 80.0),
        (["--seed", "4"], "seed", 4),
    ],
)
def test_a_flag_of_the_zero_shot_method_replaces_what_its_preset_says(asked, flags, name, value):
    preset = METHODS["zeroshot"].presets["dixon"]
    options = asked("--method", "zeroshot", "--preset", "dixon", *flags).options
    assert getattr(preset, name) != value
    assert options == replace(preset, **{name: value})


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--block-mm", "3"], "block_mm", 3.0),
        (["--n-classes", "4"], "n_classes", 4),
        (["--least-sd", "0.02"], "least_sd", 0.02),
        (["--homogeneity", "2"], "homogeneity", 2.0),
        (["--balance", "0.5"], "balance", 0.5),
        (["--knots", "50"], "knots", 50.0),
        (["--stiffness", "1e9"], "stiffness", 1e9),
        (["--softening", "0"], "softening", 0.0),
        (["--most-rounds", "5"], "most_rounds", 5),
        (["--convergence", "0.001"], "convergence", 0.001),
        (["--largest-misfit", "0.1"], "largest_misfit", 0.1),
        (["--contrast", "T1w"], "contrast", "T1w"),
        (["--posteriors"], "posteriors", True),
    ],
)
def test_a_flag_of_the_tissue_method_replaces_the_default(asked, flags, name, value):
    options = asked("--method", "tissue", *flags).options
    assert options == replace(TissueOptions(), **{name: value}) != TissueOptions()


@pytest.mark.parametrize(
    ("flags", "factor", "distance"),
    [
        ("", 4, 4.0),
        ("--shrink-factor 2", 2, None),  # in the place of the distance
        ("--shrink-factor 4", 4, None),
        ("--shrink-mm 3", 4, 3.0),
        ("--shrink-factor 2 --shrink-mm 3", 2, 3.0),
        ("--preset ants", 4, None),
        ("--preset mriqc", 4, None),
        ("--preset robust --shrink-mm 3", 1, 3.0),
        ("--sloppy", 4, None),
        ("--sloppy --shrink-mm 3", 4, 3.0),
        ("--sloppy --shrink-factor 2", 2, None),
    ],
)
def test_shrink_factor_and_distance_replace_one_another(asked, flags, factor, distance):
    options = asked(*flags.split()).options
    assert (options.shrink_factor, options.shrink_mm) == (factor, distance)


def test_ants_own_numbers_have_their_words(asked):
    request = asked("--preset", "ants", "--mask", "none")
    assert (request.options, request.mask) == (N4Options(), "none")


def test_flags_traits_and_fields_have_the_same_names(asked):
    from n4ax_bids.interfaces import N4BiasFieldCorrection
    from n4ax_bids.interfaces.spec import node_inputs

    names = {item.name for item in fields(N4Options)}
    assert names <= set(N4BiasFieldCorrection.input_spec.class_trait_names())
    for name in PRESETS:
        # A trait of another type than the flag's would raise here.
        N4BiasFieldCorrection(**node_inputs(asked("--preset", name, *SEVERAL).options))


def test_little_memory_is_warned_of(asked, capsys):
    """A number that was meant as GB."""
    asked("--mem", "8")
    assert "WARNING --mem is 8 MB: less than one image takes" in capsys.readouterr().err
    asked("--mem", "150")
    assert "WARNING --mem" not in capsys.readouterr().err
