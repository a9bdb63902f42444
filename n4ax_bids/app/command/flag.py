"""A flag of the command line, declared beside the field of the request that it fills."""

from __future__ import annotations

import argparse
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.methods import Method


@dataclass(frozen=True)
class Flag:
    """The command line's flag for a field of the request."""

    names: tuple[str, ...]
    group: str
    """title of the group in --help"""
    help: str
    default: Any
    """the parser's value if the flag is absent"""
    parsing: Mapping[str, Any]
    """further arguments of `add_argument`: type, nargs, choices, metavar, action"""
    read: Callable[[Any], Any]
    """turns the parser's value into the field's value"""
    of_method: Callable[[Method], dict[str, Any]] | None = None
    """returns arguments of `add_argument` that depend on the method"""

    @property
    def dest(self) -> str:
        """The name under which the parser stores the value."""
        long = next(name for name in self.names if name.startswith("--"))
        return long.removeprefix("--").replace("-", "_")

    def add_to(self, group: argparse._ArgumentGroup, method: Method) -> None:
        """Add the flag to a group of a parser."""
        words: dict[str, Any] = {"help": self.help, **self.parsing}
        if "action" not in words:
            words["default"] = self.default
        if self.of_method is not None:
            words |= self.of_method(method)
        group.add_argument(*self.names, **words)


def flag(
    *names: str,
    group: str,
    help: str,
    default: Any = None,
    decides: Literal["content", "run"] = "run",
    read: Callable[[Any], Any] | None = None,
    of_method: Callable[[Method], dict[str, Any]] | None = None,
    **parsing: Any,
) -> Any:
    """Declare a field of the request together with its flag.

    Parameters
    ----------
    names : spellings of the flag; the first long one is its key in a configuration file
    group : title of its group in --help
    help : one sentence
    default : default of the field
    decides : "content" if the value affects the content of an image's outputs, so that another
        value makes a finished image unfinished; "run" if it only affects which images are
        processed, or how
    read : turns the parser's value into the field's value
    of_method, parsing : arguments of `add_argument`; see `Flag`
    """
    several = parsing.get("nargs") == "+"
    given = list(default) if several else None if isinstance(default, Mapping) else default
    if read is None:
        read = tuple if isinstance(default, tuple) else _as_given
    made = Flag(names, group, help, given, parsing, read, of_method)
    metadata = {"flag": made, "decides": decides}
    if isinstance(default, Mapping):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def switch(*names: str, **words: Any) -> Any:
    """Declare a field that is True if its flag is given, else False."""
    return flag(*names, default=False, action="store_true", **words)


def switch_off(*names: str, **words: Any) -> Any:
    """Declare a field that is False if its flag is given, else True."""
    return flag(*names, default=True, action="store_true", read=operator.not_, **words)


def path_flag(*names: str, **words: Any) -> Any:
    """Declare a field that is an absolute path, or None."""
    return flag(*names, type=Path, read=lambda given: given and absolute(given), **words)


def derived(default: Any, decides: Literal["content", "run"]) -> Any:
    """Declare a field that has no flag of its own."""
    return field(default=default, metadata={"decides": decides})


def absolute(path: Path) -> Path:
    """Return an absolute path; links are kept, because their names count (DataLad).

    Raises
    ------
    Refusal
        If the path begins with ~ and no home folder of that user is known.
    """
    try:
        return Path(os.path.abspath(path.expanduser()))
    except RuntimeError as error:
        raise Refusal(
            Status.USAGE, f"{path}: no home folder is known for it; expected a path without ~"
        ) from error


def _as_given(value: Any) -> Any:
    return value
