"""The Boutiques descriptors of the programs, made from their parsers.

`python -m n4ax_bids.app.command.descriptor [VERSION [PROGRAM]]` prints the descriptor of
`n4ax-bids`, or of the program that is named. The files in boutiques/ are the output for the
version in pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import Any

from n4ax_bids.app.command import files
from n4ax_bids.app.command.parser import LEVELS, build_parser
from n4ax_bids.app.status import MEANINGS
from n4ax_bids.commands import apply_cli, stack_cli
from n4ax_bids.commands.realign_cli import FILES
from n4ax_bids.commands.realign_cli import build_parser as build_realign_parser
from n4ax_bids.methods import METHODS

SCHEMA_VERSION = "0.5"
POSITIONAL_TYPES = {
    "bids_dir": "File",
    "output_dir": "String",
    "analysis_level": "String",
    "input": "String",
    "output": "String",
}
FLAGS = (argparse._StoreTrueAction, argparse._CountAction, argparse.BooleanOptionalAction)
COMMAND_ERRORS = {
    1: "an input, an option or an output does not fit",
    2: "the command line cannot be read",
}
ENDING_AT_ONCE = ("help", "version")

Json = dict[str, Any]

IMAGE = "n4ax-bids:{}-cuda12"
"""name of the image that `make image` builds, by version; it holds every program"""
LARGE = {"cpu-cores": 4, "ram": 8, "walltime-estimate": 3600}
"""for many images, series or stacks: GB and seconds; a GPU is used where there is one"""
SMALL = {"cpu-cores": 1, "ram": 2, "walltime-estimate": 300}
"""for one image at a time"""


def descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-bids`.

    Parameters
    ----------
    version : version of the tool
    """
    output = {
        "id": "derivatives_dataset",  # no option may have the same name
        "name": "derivative dataset",
        "path-template": "[OUTPUT_DIR]",
    }
    errors = {int(status): meaning for status, meaning in MEANINGS.items() if status}
    return _described(build_parser(), version, [output], errors)


def files_descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-files`."""
    output = {"id": "outputs", "name": "folder of outputs", "path-template": "[OUTPUT_DIR]"}
    errors = {int(status): meaning for status, meaning in MEANINGS.items() if status}
    found = _described(build_parser(program=files.FILES), version, [output], errors)
    for each in found["inputs"]:
        if each["id"] == "inputs":
            each["type"] = "File"
    return found


def stack_descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-stack`."""
    output = {"id": "made", "name": "corrected stack", "path-template": "[OUTPUT]"}
    return _described(stack_cli.build_parser(), version, [output], COMMAND_ERRORS)


def realign_descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-realign`."""
    outputs = [
        {
            "id": f"written_{name}",
            "name": name.replace("_", " "),
            "path-template": f"[{name.upper()}]",
            "optional": True,
        }
        for name in ("output_image", *FILES)
    ]
    found = _described(build_realign_parser(), version, outputs, COMMAND_ERRORS)
    for each in found["inputs"]:
        if each["id"] in ("input_image", "reference_image", "weight_image"):
            each["type"] = "File"
    return found


def apply_descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-apply`."""
    output = {"id": "written", "name": "images", "path-template": "[OUTPUT]"}
    found = _described(apply_cli.build_parser(), version, [output], COMMAND_ERRORS, SMALL)
    for each in found["inputs"]:
        if each["id"] in ("field", "images"):
            each["type"] = "File"
    return found


def nipoppy_descriptor(version: str) -> Json:
    """Return the descriptor of `n4ax-bids` for Nipoppy, which runs images of Apptainer."""
    found = descriptor(version)
    found["container-image"] = {
        "type": "singularity",
        "image": found["container-image"]["image"],
        "index": "docker://",
    }
    return found


DESCRIPTORS = {
    "n4ax-bids": descriptor,
    "n4ax-files": files_descriptor,
    "n4ax-apply": apply_descriptor,
    "n4ax-stack": stack_descriptor,
    "n4ax-realign": realign_descriptor,
    "nipoppy": nipoppy_descriptor,
}
"""Makes the descriptor of each program."""


def _described(
    parser: argparse.ArgumentParser,
    version: str,
    outputs: list[Json],
    errors: dict[int, str],
    resources: Json = LARGE,
) -> Json:
    """Return the descriptor of a parser's program."""
    actions = [action for action in parser._actions if action.dest not in ENDING_AT_ONCE]
    inputs = [_input(parser, action) for action in actions]
    # Flags come last: one with any number of values would swallow the positional words.
    words = [each["value-key"] for each in sorted(inputs, key=lambda each: each["optional"])]
    return {
        "name": parser.prog,
        "description": " ".join((parser.description or "").split()),
        "author": "The n4ax_bids contributors",
        "tool-version": version,
        "schema-version": SCHEMA_VERSION,
        "command-line": " ".join([parser.prog, *words]),
        "inputs": inputs,
        "output-files": outputs,
        "error-codes": [
            {"code": status, "description": meaning} for status, meaning in errors.items()
        ],
        "container-image": {"type": "docker", "image": IMAGE.format(version)},
        "suggested-resources": dict(resources),
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }


def encode(content: dict[str, Any]) -> str:
    """Return the text of the descriptor's file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _is_on(action: argparse.Action) -> bool:
    """Return whether a switch is on unless it is turned off; options know it, not their flags."""
    if isinstance(action.default, bool):
        return action.default
    options = (field for method in METHODS.values() for field in fields(method.options))
    return any(field.default is True for field in options if field.name == action.dest)


def _input(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, Any]:
    helper = parser._get_formatter()
    name, flag = action.dest, next((n for n in action.option_strings if n.startswith("--")), None)
    if isinstance(action, argparse.BooleanOptionalAction) and _is_on(action):
        name = f"no_{name}"
        flag = next(n for n in action.option_strings if n.startswith("--no-"))
    found: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "value-key": f"[{name.upper()}]",
        "description": helper._expand_help(action),
        "optional": not action.required,
        "type": POSITIONAL_TYPES.get(action.dest) or _type(action),
    }
    if flag:
        found["command-line-flag"] = flag
    if found["type"] == "Number":
        found["integer"] = "int" in getattr(action.type, "__name__", "")
    choices = LEVELS if action.dest == "analysis_level" else action.choices
    if choices:
        found["value-choices"] = list(choices)
    if action.nargs not in (None, 0, "?"):
        found["list"] = True
        n_values = action.nargs if isinstance(action.nargs, int) else None
        found["min-list-entries"] = n_values or 1
        if n_values:
            found["max-list-entries"] = n_values
    return found


def _type(action: argparse.Action) -> str:
    if isinstance(action, FLAGS):
        return "Flag"
    numbers = ("int", "float", "_number")
    return "Number" if getattr(action.type, "__name__", "") in numbers else "String"


if __name__ == "__main__":
    import sys

    from n4ax_bids import __version__

    given = sys.argv[1] if sys.argv[1:] else __version__
    program = sys.argv[2] if sys.argv[2:] else "n4ax-bids"
    print(encode(DESCRIPTORS[program](given)), end="")
