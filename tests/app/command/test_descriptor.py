"""The Boutiques descriptor agrees with the parser."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from n4ax_bids.app.command import descriptor, parser
from n4ax_bids.app.status import MEANINGS, Status
from n4ax_bids.methods import METHODS

ROOT = Path(__file__).parents[3]
FILE = ROOT / "boutiques" / "n4ax-bids.json"


def test_the_file_is_what_the_parser_says():
    """Where this fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION > boutiques/n4ax-bids.json
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert FILE.read_text() == descriptor.encode(descriptor.descriptor(version))


def test_every_flag_is_an_input():
    inputs = json.loads(FILE.read_text())["inputs"]
    flags = {each["command-line-flag"] for each in inputs if each["optional"]}
    for action in parser.build_parser()._actions:
        if action.option_strings and action.dest not in ("help", "version"):
            assert flags & set(action.option_strings), action.option_strings


def test_boutiques_takes_it_and_makes_our_command_line(tmp_path):
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(FILE)])
    given = {
        "bids_dir": "/raw",
        "output_dir": "/out",
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "n_iterations": [5, 4],
        "no_refine": True,
        "mem": "800M",
        "shrink_mm": 3.5,
    }
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(given))
    made = bosh(["exec", "simulate", str(FILE), "-i", str(invocation)])
    command = re.search(r"^n4ax-bids (.*)$", str(made), flags=re.MULTILINE)[1]
    arguments = parser.build_parser().parse_args(command.split())
    assert str(arguments.bids_dir) == "/raw"
    assert arguments.participant_label == ["01", "02"]
    assert arguments.n_iterations == [5, 4]
    assert (arguments.refine, arguments.mem, arguments.shrink_mm) == (False, 800_000_000, 3.5)


def test_a_switch_changes_the_default():
    flags = {each.get("command-line-flag") for each in json.loads(FILE.read_text())["inputs"]}
    options = [field for method in METHODS.values() for field in fields(method.options)]
    switches = [field for field in options if isinstance(field.default, bool)]
    assert {field.default for field in switches} == {True, False}
    for field in switches:
        flag = field.name.replace("_", "-")
        assert (f"--no-{flag}" in flags, f"--{flag}" in flags) == (
            field.default,
            not field.default,
        )


def test_every_status_has_a_meaning_and_a_row_in_the_documentation():
    assert set(MEANINGS) == set(Status)
    text = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
    for status, meaning in MEANINGS.items():
        assert f"| {int(status)} | {meaning} |" in text
