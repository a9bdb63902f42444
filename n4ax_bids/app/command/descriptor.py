"""The program in the terms of Boutiques, made from its parser.

`python -m n4ax_bids.app.command.descriptor [VERSION]` prints it;
boutiques/n4ax-bids.json is what it prints for the version of pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from n4ax_bids.app.command.parser import LEVELS, build_parser
from n4ax_bids.app.status import MEANINGS

SCHEMA_VERSION = "0.5"
POSITIONAL_TYPES = {"bids_dir": "File", "output_dir": "String", "analysis_level": "String"}
FLAGS = (argparse._StoreTrueAction, argparse._CountAction, argparse.BooleanOptionalAction)
ENDING_AT_ONCE = ("help", "version")


def descriptor(version: str) -> dict[str, Any]:
    """Return the descriptor.

    Parameters
    ----------
    version : of the tool
    """
    parser = build_parser()
    actions = [action for action in parser._actions if action.dest not in ENDING_AT_ONCE]
    inputs = [_input(parser, action) for action in actions]
    # A flag with any number of values would take the positional words for its own.
    words = [each["value-key"] for each in sorted(inputs, key=lambda each: each["optional"])]
    return {
        "name": parser.prog,
        "description": " ".join(parser.description.split()),
        "author": "The n4ax_bids contributors",
        "tool-version": version,
        "schema-version": SCHEMA_VERSION,
        "command-line": " ".join([parser.prog, *words]),
        "inputs": inputs,
        "output-files": [
            {
                "id": "derivatives_dataset",
                "name": "derivative dataset",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [
            {"code": int(status), "description": meaning}
            for status, meaning in MEANINGS.items()
            if status
        ],
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }


def encode(content: dict[str, Any]) -> str:
    """Return a descriptor as it lies in its file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _input(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, Any]:
    helper = parser._get_formatter()
    name, flag = action.dest, next((n for n in action.option_strings if n.startswith("--")), None)
    if isinstance(action, argparse.BooleanOptionalAction):  # on unless turned off
        name, flag = f"no_{name}", flag.replace("--", "--no-", 1)
    found: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "value-key": f"[{name.upper()}]",
        "description": helper._expand_help(action),
        "optional": flag is not None,
        "type": POSITIONAL_TYPES.get(action.dest) or _type(action),
    }
    if flag:
        found["command-line-flag"] = flag
    if found["type"] == "Number":
        found["integer"] = "int" in getattr(action.type, "__name__", "")
    choices = LEVELS if action.dest == "analysis_level" else action.choices
    if choices:
        found["value-choices"] = list(choices)
    if action.nargs not in (None, 0):
        found["list"] = True
        n_values = action.nargs if isinstance(action.nargs, int) else None
        found["min-list-entries"] = n_values or 1
        if n_values:
            found["max-list-entries"] = n_values
    return found


def _type(action: argparse.Action) -> str:
    if isinstance(action, FLAGS):
        return "Flag"
    return "Number" if getattr(action.type, "__name__", "") in ("int", "float") else "String"


if __name__ == "__main__":
    import sys

    from n4ax_bids import __version__

    print(encode(descriptor(sys.argv[1] if sys.argv[1:] else __version__)), end="")
