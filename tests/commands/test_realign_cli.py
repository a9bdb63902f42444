"""The command n4ax-realign, and its Boutiques descriptor."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import RealignOptions
from n4ax_bids.app.command import descriptor
from n4ax_bids.commands import realign_cli
from n4ax_bids.series.outputs import Files
from tests.moving_head import motions, moving_head

ROOT = Path(__file__).parents[2]
FILE = ROOT / "boutiques" / "n4ax-realign.json"


@pytest.fixture(scope="module")
def bold(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "bold.nii"
    moved = moving_head(motions(3), shape=(28, 30, 22), zooms=(6.0, 6.0, 7.0))
    nb.Nifti1Image(np.moveaxis(moved.volumes, 0, -1), moved.affine).to_filename(path)
    return path


def test_a_series(bold, tmp_path, capsys):
    words = [
        str(bold),
        str(tmp_path / "out.nii.gz"),
        "--no-register-to-mean",
        "--max-iterations",
        "50",
    ]
    words += ["--reference", "middle", "--motion-table", str(tmp_path / "motion.tsv")]
    words += ["--sidecar", str(tmp_path / "out.json"), "--device", "cpu"]
    assert realign_cli.main(words) == 0
    assert nb.load(tmp_path / "out.nii.gz").shape == nb.load(bold).shape
    assert len((tmp_path / "motion.tsv").read_text().splitlines()) == 4
    options = json.loads((tmp_path / "out.json").read_text())["Options"]
    assert (options["max_iterations"], options["reference"]) == (50, "middle")
    assert options["register_to_mean"] is False
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.nii"], "none.nii"),
        (["BOLD", "--quality", "2"], "quality is 2.0; expected above 0"),
        (["BOLD", "--nthreads", "0"], "nthreads is 0"),
        (["BOLD", "--device", "tpu"], "device is 'tpu'"),
        (["BOLD", "out.txt"], "neither .nii nor .nii.gz"),
        (["BOLD", "--reference", "last"], "reference is 'last'"),
    ],
)
def test_what_does_not_fit_is_one_line(bold, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert realign_cli.main([str(bold) if word == "BOLD" else word for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("n4ax-realign: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_every_option_and_every_file_is_a_flag():
    actions = {action.dest: action for action in realign_cli.build_parser()._actions}
    for field in dataclasses.fields(RealignOptions):
        assert actions[field.name].default == field.default
    outputs = {field.name for field in dataclasses.fields(Files)} - {"reference_image"}
    assert outputs | {"reference_output"} == {"output_image", *realign_cli.FILES}
    assert outputs <= actions.keys()


def test_help_loads_no_jax():
    code = "import sys; from n4ax_bids.commands import realign_cli; realign_cli.build_parser()\n"
    code += "assert not {'jax', 'nipype', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_descriptor_is_what_the_parser_says():
    """Where this fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION n4ax-realign > boutiques/n4ax-realign.json
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert FILE.read_text() == descriptor.encode(descriptor.realign_descriptor(version))


def test_boutiques_makes_our_command_line(tmp_path):
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(FILE)])
    given = {
        "input_image": "/raw/bold.nii.gz",
        "output_image": "/out/bold.nii.gz",
        "no_jitter": True,
        "separation": 3.5,
        "motion_table": "/out/motion.tsv",
    }
    (tmp_path / "invocation.json").write_text(json.dumps(given))
    made = bosh(["exec", "simulate", str(FILE), "-i", str(tmp_path / "invocation.json")])
    command = re.search(r"^n4ax-realign (.*)$", str(made), flags=re.MULTILINE)[1]
    found = realign_cli.build_parser().parse_args(command.split())
    assert (str(found.input_image), str(found.output_image)) == (
        "/raw/bold.nii.gz",
        "/out/bold.nii.gz",
    )
    assert (found.jitter, found.separation) == (False, 3.5)
    assert str(found.motion_table) == "/out/motion.tsv"
