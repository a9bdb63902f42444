"""What n4ax-n4 prints: help, versions, and each iteration as the ANTs program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from n4ax_bids import __version__
from n4ax_bids.commands import ants_cli
from n4ax_bids.foreign import ants
from tests.commands.ants_words import ants_program, needs_ants, ours

pytestmark = pytest.mark.usefixtures("called_n4ax_n4")


def test_help_and_version(capsys):
    assert ours() == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "-x, --mask-image image" in printed.err
    for words in ("--help", "-d 3 --help -i missing.nii"):
        assert ours(*words.split()) == 0
        assert capsys.readouterr().out == printed.err
    assert ours("-h", "--help", "0") == 0
    short = capsys.readouterr().out
    assert "-x, --mask-image image" in short and len(short) < len(printed.err) / 2
    assert ours("--version", "-i", "missing.nii") == 0
    assert capsys.readouterr().out.startswith("n4ax_bids ")


def test_the_version_under_the_name_of_ants(tmp_path):
    """Programs of others read it: nf-neuro by sed, others by grep."""
    link = tmp_path / "N4BiasFieldCorrection"
    link.symlink_to(Path(sys.executable).with_name("n4ax-n4"))
    done = subprocess.run([link, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ANTs Version: v{__version__} of n4ax_bids, in place of ANTs\n"
    assert done.stderr == ""
    expression = r"s/ANTs Version: v\([0-9.]\+\)/\1/p"
    read = subprocess.run(
        ["sed", "-n", expression], input=done.stdout, capture_output=True, text=True, check=True
    ).stdout
    assert read.split()[0] == __version__ and "n4ax_bids" in read
    # nf-neuro writes it behind a key of a YAML file.
    assert yaml.safe_load(f"ants: {read}") == {"ants": read.strip()}


def test_every_flag_is_explained():
    assert list(ants_cli.HELP) == list(ants.FLAGS)


@needs_ants
def test_the_same_flags_with_the_same_names(tmp_path):
    def flags(menu):
        return {flag for line in menu.splitlines() for flag in re.findall(r" (--?[a-z]\S*)", line)}

    _, printed = ants_program(tmp_path, ["-h"])
    theirs, mine = flags(printed), flags(ants_cli.menu(full=False))
    assert mine - theirs == {"--device", "--field-scale"} and theirs <= mine


def test_help_is_fast():
    """Neither jax nor numpy is imported before there is something to compute."""
    program = """
import sys
from n4ax_bids.commands.ants_cli import main
for words in (["--help"], ["-d", "3", "-q"], [], ["--version"]):
    main(words)
assert not {"jax", "numpy", "nibabel", "SimpleITK", "nipype"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


LINE = (
    r"  Iteration (\d+) \(of (\d+)\)\.   Current convergence value = (\S+) \(threshold = (\S+)\)"
)


@needs_ants
@pytest.mark.parametrize("convergence", ["[3x0x2,0]", "[9x1,0.003]", "[3x3,1e-7]"])
def test_verbose_prints_what_ants_prints(here, capsys, convergence):
    words = f"-d 3 -i image.nii.gz -x mask.nii.gz -s 2 -v -c {convergence}".split()
    _, printed = ants_program(here, words)
    assert ours(*words) == 0
    mine = capsys.readouterr().out
    said = [
        re.findall(rf"^(?:Current level = (\d+)|{LINE})$", text, re.MULTILINE)
        for text in (printed, mine)
    ]
    for theirs, line in zip(*said, strict=True):
        assert theirs[:3] + theirs[4:] == line[:3] + line[4:]
        if theirs[3]:  # six digits of a float32 statistic of rounded fields
            assert float(line[3]) == pytest.approx(float(theirs[3]), rel=1e-4)
    assert len(said[0]) >= 4 and "Elapsed time: " in mine and "Device: " in mine


@needs_ants
def test_iterations_and_threshold_without_words_are_those_of_ants(here, capsys):
    words = "-d 3 -i image.nii.gz -v".split()
    _, printed = ants_program(here, words)
    assert ours(*words) == 0
    theirs, mine = (
        [(line[0], line[1], line[3]) for line in re.findall(LINE, text)]
        for text in (printed, capsys.readouterr().out)
    )
    assert mine == theirs and len(theirs) == 4 * 50


def test_words_without_effect_are_said(here, capsys):
    assert ours(*"-i image.nii.gz -s 2 -c [2x2,0] -b 200 -v 0".split()) == 0
    expected = "n4ax-n4: -b 200: not read, as it has no brackets; the default counts\n"
    assert capsys.readouterr() == ("", expected)
