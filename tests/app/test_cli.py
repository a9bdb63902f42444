"""Help, version and what is wrong in the words of a command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import n4ax_bids
from n4ax_bids.app import cli
from n4ax_bids.app.status import Status
from n4ax_bids.options import PRESET_HELP


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
