"""Flags, help text and exit statuses; tests that read images use the fake node."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace

import pytest

import n4ax_bids
from n4ax_bids.app import cli, run
from n4ax_bids.app.status import Status
from n4ax_bids.methods import METHODS
from n4ax_bids.options import PRESET_HELP, PRESETS, N4Options, TissueOptions

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


def usage_error(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        cli.main(list(argv))
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("label", ["0" * 5000, "é" * 200])
def test_a_label_longer_than_a_name_is_not_there(make_dataset, tmp_path, capsys, label):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    words = [str(root), str(tmp_path / "out"), "participant", "--participant-label", label]
    assert cli.main(words) == Status.USAGE
    assert f"no participant {label} in the dataset" in capsys.readouterr().err


def test_a_home_of_nobody_is_refused(make_dataset, tmp_path, capsys):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    words = [str(root), str(tmp_path / "out"), "participant", "-w", "~nobody-of-this-name/x"]
    assert cli.main(words) == Status.USAGE
    assert "~nobody-of-this-name/x: no home folder is known" in capsys.readouterr().err


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


def test_help_says_the_defaults_and_why_not_fmriprep(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: auto)" in text
    assert "(default: standard)" in text
    assert "--preset ants --field-scale as-is gives the ANTs program's options" in text
    assert "with --mask otsu in ITK's Otsu mask, with --mask none its defaults" in text
    assert "Without that weight" in text
    assert "fifth level mistakes tissue contrast for field" in text
    for name, meaning in PRESET_HELP.items():
        assert f"{name} {meaning}" in text.replace("  ", " ")


def test_help_and_version_import_neither_jax_nor_nipype_nor_pybids():
    code = (
        "import sys\n"
        "from n4ax_bids.app.cli import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'jax', 'nipype', 'bids', 'numpy'} & set(sys.modules)))\n"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_n4ax_bids_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "n4ax_bids", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.split() == ["n4ax_bids", n4ax_bids.__version__]
    done = subprocess.run(
        [sys.executable, "-m", "n4ax_bids", "/nowhere", "/nowhere/out", "participant"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == Status.INVALID_INPUT
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mask", "skull"], "--mask"),
        (["--preset", "best"], "--preset"),
        (["--device", "tpu"], "--device"),
        (["--nprocs", "0"], "--nprocs: 0; expected a number above 0"),
        (["--omp-nthreads", "two"], "--omp-nthreads: invalid int value: 'two'"),
        (["--mem", "-1"], "--mem: -1; expected a number above 0"),
        (["--mem", "nan"], "--mem: nan; expected a number above 0"),
        (["--shrink-factor", "0"], "shrink_factor is 0; expected at least 1"),
        (["--shrink-factor", "two"], "--shrink-factor"),
        (["--n-iterations", "0"], "n_iterations is (0,)"),
        (["--bspline-fitting-distance", "-3"], "bspline_fitting_distance is -3.0"),
        (["--shrink", "2"], "unrecognized"),
        (["--unknown"], "--unknown"),
    ],
)
def test_usage_errors(capsys, flags, words):
    text = usage_error(capsys, "/raw", "/out", "participant", *flags)
    assert words in text
    assert "Traceback" not in text


def test_unknown_level_and_missing_arguments(capsys):
    usage_error(capsys, "/raw")
    assert cli.main(["/raw", "/out", "cohort"]) == Status.UNKNOWN_LEVEL
    assert "cohort; expected participant" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("fake_node")
class TestStatus:
    """The exit status and the last line on the screen if a run cannot begin."""

    def run(self, capsys, root, out, *flags):
        status = cli.main([str(root), str(out), "participant", *flags])
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return status, text.splitlines()[-1]

    def test_no_such_folder(self, capsys, tmp_path):
        status, line = self.run(capsys, tmp_path / "no", tmp_path / "out")
        assert status == 16
        assert str(tmp_path / "no") in line
        assert not (tmp_path / "out").exists()

    def test_no_description(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (root / "dataset_description.json").unlink()
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 16
        assert "dataset_description.json" in line

    def test_no_images(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/func/sub-01_task-x_bold.nii.gz", empty=True)
        assert self.run(capsys, root, tmp_path / "out")[0] == 66
        assert not (tmp_path / "out").exists()

    def test_filters_select_nothing(self, capsys, make_dataset, tmp_path):
        root = make_dataset(
            "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/func/sub-02_task-x_bold.nii.gz", empty=True
        )
        assert self.run(capsys, root, tmp_path / "out", "--participant-label", "02")[0] == 18

    def test_unknown_label(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        status, line = self.run(capsys, root, tmp_path / "out", "--participant_label", "07")
        assert status == 2
        assert "07" in line and "there are: 01" in line

    def test_shared_output(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii")
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 16
        assert "sub-01_T1w.nii and " in line and "sub-01_T1w.nii.gz" in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("place", ["", "out", "derivatives", "sub-01", ".."])
    def test_output_that_would_spoil_the_input(self, capsys, make_dataset, place):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        before = sorted(root.rglob("*"))
        assert self.run(capsys, root, root / place)[0] == 2
        assert sorted(root.rglob("*")) == before

    def test_output_through_a_link_is_still_the_input(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (tmp_path / "link").symlink_to(root)
        status, line = self.run(capsys, root, tmp_path / "link")
        assert status == 2
        assert "is the input dataset itself" in line

    def test_output_beneath_derivatives_is_fine(self, capsys, make_dataset):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
        out = root / "derivatives" / "n4ax_bids"
        assert self.run(capsys, root, out)[0] == 0
        # and the second run does not take the first one's outputs for inputs
        assert self.run(capsys, root, out)[0] == 0
        assert len(list(out.rglob("*_T1w.nii.gz"))) == 3

    def test_input_as_sourcedata_of_the_output_is_fine(self, capsys, make_dataset, tmp_path):
        raw = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
        root = tmp_path / "out" / "sourcedata" / "raw"
        root.parent.mkdir(parents=True)
        raw.rename(root)
        assert self.run(capsys, root, tmp_path / "out")[0] == 0

    def test_output_of_another_program_is_left_alone(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        other = tmp_path / "other"
        other.mkdir()
        text = '{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}'
        (other / "dataset_description.json").write_text(text)
        status, line = self.run(capsys, root, other)
        assert status == 2
        assert "fMRIPrep" in line
        assert (other / "dataset_description.json").read_text() == text

    def test_work_folder_inside_the_input(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        assert self.run(capsys, root, tmp_path / "out", "-w", str(root / "work"))[0] == 2
        assert not (root / "work").exists()

    @pytest.mark.parametrize("where", ["output", "work"])
    def test_a_place_that_cannot_be_written(self, capsys, make_dataset, tmp_path, where):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (tmp_path / "file").touch()
        blocked = str(tmp_path / "file" / "x")
        out, flags = (blocked, []) if where == "output" else (tmp_path / "out", ["-w", blocked])
        status, line = self.run(capsys, root, out, *flags)
        assert status == 73
        assert blocked in line

    def test_internal_error(self, capsys, make_dataset, tmp_path, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("surprise")

        monkeypatch.setattr(run.dataset, "select", broken)
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 70
        assert "RuntimeError: surprise" in line


def test_little_memory_is_warned_of(asked, capsys):
    """A number that was meant as GB."""
    asked("--mem", "8")
    assert "WARNING --mem is 8 MB: less than one image takes" in capsys.readouterr().err
    asked("--mem", "150")
    assert "WARNING --mem" not in capsys.readouterr().err
