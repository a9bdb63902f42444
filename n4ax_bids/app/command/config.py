"""Reads options from a TOML file, and writes the options of a run as such a file."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.command.parser import DATASET, Program, add_flags, first_name
from n4ax_bids.app.command.words import did_you_mean
from n4ax_bids.app.request import DEFAULT_METHOD
from n4ax_bids.io.text import read_text
from n4ax_bids.methods import METHODS

ABOUT = "run"
"""table of a snapshot with facts about the run, which are no options"""
RECORDED = ("jax", "numpy", "nibabel", "nipype", "pybids")
"""packages whose versions a snapshot records"""
MOST_TIMES = 3
"""how often a flag such as -v may be repeated"""
NOT_OPTIONS = ("help", "version", "config_file")


class _Reader(argparse.ArgumentParser):
    """A parser that raises its messages as errors."""

    def error(self, message: str) -> Any:
        raise ValueError(first_name(message))


def options(
    method: str = DEFAULT_METHOD, program: Program = DATASET
) -> dict[str, argparse.Action]:
    """Return the flags by their keys in a configuration file: long names without the dashes."""
    reader = _Reader(add_help=False, allow_abbrev=False)
    add_flags(reader, method, program)
    return {_key(action): action for action in reader._actions if action.dest not in NOT_OPTIONS}


def _key(action: argparse.Action) -> str:
    names = [name for name in action.option_strings if name.startswith("--")]
    return names[0].removeprefix("--")


def read_config(
    path: Path, method: str | None = None, program: Program = DATASET
) -> dict[str, Any]:
    """Return the options of a TOML file, as the parser would return them.

    Parameters
    ----------
    path : TOML file
    method : the method that the command line names; if None, the file may name it
    program : the command

    Raises
    ------
    ValueError
        If the file has an unknown key or an unsuitable value; one line that names the file.
    """
    try:
        text = read_text(path, what="TOML")
    except OSError as error:
        raise ValueError(str(error)) from error
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
    content.pop(ABOUT, None)
    named = method or content.get("method")
    method = named if isinstance(named, str) and named in METHODS else DEFAULT_METHOD
    known = options(method, program)
    reader = _Reader(add_help=False, allow_abbrev=False)
    add_flags(reader, method, program)
    for each in reader._actions:
        each.default = argparse.SUPPRESS
    words: list[str] = []
    for key, value in content.items():
        action = known.get(key.replace("_", "-"))
        if action is None:
            near = did_you_mean(key.replace("_", "-"), known)
            there = ", ".join(sorted(known))
            raise ValueError(f"{path}: no option {key}{near}; there are: {there}")
        words += _words(path, key, action, value)
    try:
        return vars(reader.parse_args(words))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _words(path: Path, key: str, action: argparse.Action, value: Any) -> list[str]:
    """Return an option as words of the command line."""
    flag = f"--{_key(action)}"
    if isinstance(action, argparse._CountAction) and type(value) is int:
        if not 0 <= value <= MOST_TIMES:
            raise ValueError(f"{path}: {key} is {value}; expected a number from 0 to {MOST_TIMES}")
        return [flag] * value
    if isinstance(action, argparse.BooleanOptionalAction) and isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise ValueError(f"{path}: {key} is {value!r}; expected true or false")
        return [flag] if value else []
    if isinstance(value, bool | Mapping):
        raise ValueError(f"{path}: {key} is {value!r}; expected a word, a number or a list")
    values = value if isinstance(value, list) else [value]
    if any("\0" in str(each) for each in values):  # possible in TOML, but not on a command line
        raise ValueError(f"{path}: {key} holds a zero byte; expected text without it")
    if action.nargs is None and len(values) != 1 or isinstance(value, list) and not value:
        raise ValueError(f"{path}: {key} is {value!r}; expected one value")
    if action.nargs is None:  # a value may begin with a dash
        return [f"{flag}={values[0]}"]
    return [flag, *map(str, values)]


def snapshot(
    arguments: argparse.Namespace,
    solver: Mapping[str, Any],
    run_id: str,
    program: Program = DATASET,
) -> str:
    """Return every option of a run as TOML that `read_config` can read.

    Parameters
    ----------
    arguments : the parsed command line
    solver : the method's options and their values
    run_id : name of the run
    program : the command
    """
    import tomli_w

    values = {**vars(arguments), **solver}
    if arguments.mem is not None:  # a bare number would be read as MB
        values["mem"] = f"{arguments.mem}B"
    table = {
        ABOUT: {
            "id": run_id,
            "version": __version__,
            "versions": {name: packages.version(name) for name in RECORDED},
            "bids_dir": str(arguments.bids_dir),
            "output_dir": str(arguments.output_dir),
            "analysis_level": arguments.analysis_level,
        }
    }
    used = {
        key: _plain(values[action.dest])
        for key, action in options(arguments.method, program).items()
        if values.get(action.dest) not in (None, [], ())
    }
    return tomli_w.dumps(used | table)


def _plain(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
