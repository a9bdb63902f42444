"""The command n4ax-stack, its node and its descriptor."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.command import descriptor
from n4ax_bids.commands import stack_cli
from n4ax_bids.options import StackOptions
from n4ax_bids.stacks.files import load_correction
from tests.core.stack.stacks import ellipsoid, solved

ROOT = Path(__file__).parents[2]
FILE = ROOT / "boutiques" / "n4ax-stack.json"
WORDS = "--sections 2 --shrink-factor 2 --n-iterations 15 15 --section-spline-mm 14".split()
WORDS += "--global-spline-mm 28".split()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "in.nii"
    nb.Nifti1Image(ellipsoid().image.T, np.eye(4)).to_filename(path)
    return path


def test_the_command_does_what_the_call_does(given, tmp_path, capsys):
    out = tmp_path / "out.nii"
    words = [str(given), str(out), *WORDS, "--bias", str(tmp_path / "bias.nii")]
    words += ["--correction", str(tmp_path / "c.npz"), "--picture", str(tmp_path / "p.png")]
    assert stack_cli.main(words) == 0
    found = nb.load(out).get_fdata(dtype=np.float32).T
    np.testing.assert_allclose(found, solved().corrected, rtol=1e-6, atol=1e-7)
    assert len(load_correction(tmp_path / "c.npz").sections) == 2
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr().err
    assert all(f"n4ax-stack: {step}" in said for step in ("read", "sections", "correct"))
    assert "done in" in said


def test_a_dry_run_writes_nothing(given, tmp_path, capsys):
    assert stack_cli.main([str(given), str(tmp_path / "out.nii"), "--dry-run"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["planes, rows, columns"] == [28, 56, 56]
    assert about["options"]["mode"] == "two_pass"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.nii", "out.nii"], "nothing.nii: no such file or folder"),
        (["IN", "IN"], "exists already"),
        (["IN", "out.nii", "--strength", "2"], "strength is 2.0; expected 0 to 1"),
        (["IN", "out.nii", "--sections", "99"], "sections is 99; expected 1 to 28"),
        (["IN", "no/folder/out.nii"], "there is no folder"),
        (["IN", "out.nii", "--correction", "no/c.npz"], "no/c.npz: cannot be written"),
        (["IN", "out.nii", "--picture", "no/p.png", "--dry-run"], "no/p.png: cannot be written"),
        (["IN", "out.nii", "--bias", "./out.nii"], "the name of the corrected stack"),
        (["IN", "out.nii", "--memory-gb", "0"], "memory_gb is 0.0"),
        (["IN", "out.nii", "--mask", "typo.nii"], "mask is 'typo.nii'"),
    ],
)
def test_bad_words_get_one_line(words, message, given, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(given) if word == "IN" else word for word in words]
    assert stack_cli.main(words) == 1
    said = capsys.readouterr().err
    assert message in said.splitlines()[-1] and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_every_option_has_a_flag():
    flags = {flag for each in stack_cli.build_parser()._actions for flag in each.option_strings}
    for name in vars(StackOptions()):
        assert f"--{name.replace('_', '-')}" in flags


def test_sections_as_words():
    parse = stack_cli.build_parser().parse_args
    for words, sections in ((["5"], 5), (["0", "4", "9"], (0, 4, 9)), (["planes"], None)):
        asked = parse(["in", "out", "--sections", *words])
        assert stack_cli._options(asked).sections == sections


def test_the_descriptor_is_the_parsers():
    """Where this fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION n4ax-stack > boutiques/n4ax-stack.json
    """
    version = json.loads(FILE.read_text())["tool-version"]
    assert FILE.read_text() == descriptor.encode(descriptor.stack_descriptor(version))


def test_boutiques_makes_our_command_line(tmp_path):
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(FILE)])
    invocation = tmp_path / "invocation.json"
    values = {"input": "/in.tif", "output": "/out.tif", "sections": ["5"], "memory_gb": 2.5}
    invocation.write_text(json.dumps(values))
    made = bosh(["exec", "simulate", str(FILE), "-i", str(invocation)])
    command = re.search(r"^n4ax-stack (.*)$", str(made), flags=re.MULTILINE)[1]
    asked = stack_cli.build_parser().parse_args(command.split())
    assert (asked.input, asked.output, asked.memory_gb) == ("/in.tif", "/out.tif", 2.5)
    assert stack_cli._options(asked).sections == 5


def test_the_node_does_what_the_call_does(given, tmp_path):
    from n4ax_bids.interfaces.stack import StackCorrection

    options = {"sections": 2, "shrink_factor": 2, "n_iterations": (15, 15)}
    options |= {"section_spline_mm": 14.0, "global_spline_mm": 28.0}
    node = StackCorrection(in_stack=str(given), options=options)
    done = node.run(cwd=str(tmp_path)).outputs
    assert Path(done.out_stack) == tmp_path / "corrected_in.nii"
    found = nb.load(done.out_stack).get_fdata(dtype=np.float32).T
    np.testing.assert_allclose(found, solved().corrected, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="options has strenght; expected sections"):
        StackCorrection(in_stack=str(given), options={"strenght": 1}).run(cwd=str(tmp_path))
