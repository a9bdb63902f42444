"""Turns the command line into a request: parses it, checks it and makes paths absolute."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n4ax_bids.app.command import files
from n4ax_bids.app.command.config import read_config, snapshot
from n4ax_bids.app.command.flag import absolute
from n4ax_bids.app.command.parser import DATASET, Program, build_parser, flag_of
from n4ax_bids.app.request import DEFAULT_METHOD, Request, flags
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.methods import METHODS, option_names
from n4ax_bids.options import MASK_PROGRAMS

SEED = "seed"
"""option of a method that --random-seed sets"""
LITTLE = 100_000_000
"""bytes; an image of usual size needs more"""


def parse(argv: Sequence[str] | None = None, program: Program = DATASET) -> argparse.Namespace:
    """Parse the command line; a configuration file that it names provides the defaults.

    Raises
    ------
    ValueError
        If the configuration file has an error, or an option belongs to another method.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config-file", type=Path)
    first.add_argument("--method")
    try:
        known = first.parse_known_args(argv)[0]
        config_file, method = known.config_file, known.method
    except argparse.ArgumentError:  # a value is missing: the complete parser reports it
        config_file, method = None, None
    given = {}
    if config_file:
        given = read_config(Path(os.path.expanduser(config_file)), method, program)
        method = method or given.get("method")
    method = method if method in [each.name for each in program.methods] else DEFAULT_METHOD
    parser = build_parser(method=method, program=program)
    if given:
        typed = parser.parse_args(argv)
        for option, replaced in METHODS[method].replaces.items():
            if option in typed and replaced not in typed:
                given.pop(replaced, None)  # an option on the command line replaces it
        parser.set_defaults(**given)
    arguments = parser.parse_args(argv)
    for name in program.lacks:
        flag = flags()[name]
        setattr(arguments, flag.dest, flag.default)
    _require_own_options(arguments)
    _require_own_suffixes(arguments)
    return arguments


def _require_own_options(arguments: argparse.Namespace) -> None:
    """Refuse options of another method than the chosen one."""
    own = option_names(METHODS[arguments.method])
    for method in METHODS.values():
        for name in option_names(method):
            if name not in own and name in vars(arguments):
                raise ValueError(
                    f"{flag_of(name)} is an option of --method {method.name}; the method is "
                    f"{arguments.method}"
                )


def _require_own_suffixes(arguments: argparse.Namespace) -> None:
    """Refuse suffixes that the chosen method does not take."""
    from n4ax_bids.app.select.vocabulary import widened

    query = METHODS[arguments.method].query
    taken = (widened(query) if arguments.realign_4d else query).suffixes
    for suffix in arguments.modalities:
        if taken is not None and suffix not in taken:
            raise ValueError(
                f"--modalities {suffix}: --method {arguments.method} takes {', '.join(taken)}"
            )


def options_of(arguments: argparse.Namespace) -> Any:
    """Return the preset's options, with --sloppy and the options on the command line applied."""
    method = METHODS[arguments.method]
    base = method.presets[arguments.preset]
    given = vars(arguments)
    changes = {name: given[name] for name in option_names(method) if name in given}
    if arguments.random_seed is not None and SEED in option_names(method):
        changes.setdefault(SEED, arguments.random_seed)
    for option, replaced in method.replaces.items():
        if option in changes and replaced not in changes:
            changes[replaced] = None
    return dataclasses.replace(method.sloppy(base) if arguments.sloppy else base, **changes)


def request_of(arguments: argparse.Namespace, options: Any, program: Program = DATASET) -> Request:
    """Return the request, with absolute paths."""
    from n4ax_bids.app.outputs.places import check_folders
    from n4ax_bids.app.select.filters import read_filters
    from n4ax_bids.app.select.vocabulary import modalities, widened

    _require_utf_8(arguments)
    inputs = files.located(arguments) if program is files.FILES else ()
    method = METHODS[arguments.method]
    values = {name: each.read(getattr(arguments, each.dest)) for name, each in flags().items()}
    left = [each for each in values["modalities"] if each not in values["apply_to"]]
    if not left:
        raise Refusal(
            Status.USAGE,
            f"--apply-to {' '.join(values['apply_to'])}: no other image is corrected, whose field "
            "they could get; expected -m with the suffix of a reference image, such as T1w",
        )
    values["modalities"] = tuple(left)
    filter_file, query = values.pop("filters"), method.query
    if arguments.realign_4d:
        if values["modalities"] == query.default:
            values["modalities"] = (*query.default, *modalities(query.more))
        query = widened(query)
    request = Request(
        bids_dir=absolute(arguments.bids_dir),
        output_dir=absolute(arguments.output_dir),
        level=arguments.analysis_level,
        inputs=inputs,
        filters=read_filters(filter_file, query) if filter_file else {},
        mask_program=mask_program(arguments),
        options=options,
        **values
        | {
            "derivatives": named_folders(values["derivatives"] or ()),
            "save_mask": values["save_mask"] or values["mask"] in MASK_PROGRAMS,
        },
    )
    check_folders(request)
    text = snapshot(arguments, dataclasses.asdict(options), request.run_id, program)
    return dataclasses.replace(request, snapshot=text)


def mask_program(arguments: argparse.Namespace) -> str | None:
    """Return name and version of the program that finds the masks, or None if there is none.

    Raises
    ------
    Refusal
        If the run may correct images and the program is not installed.
    """
    if arguments.mask not in MASK_PROGRAMS or arguments.analysis_level == "group":
        return None
    from n4ax_bids.masks import brain_programs

    try:
        return brain_programs.installed(arguments.mask).label
    except FileNotFoundError as error:
        if arguments.reports_only or arguments.boilerplate_only:  # the masks exist already
            return None
        raise Refusal(Status.USAGE, f"--mask {arguments.mask}: {error}") from error


def _require_utf_8(arguments: argparse.Namespace) -> None:
    """Refuse words that are not UTF-8, because JSON files, tables and pages cannot hold them."""
    for given in vars(arguments).values():
        for word in given if isinstance(given, list | tuple) else [given]:
            if isinstance(word, str | Path) and not _is_utf_8(os.path.abspath(word)):
                raise Refusal(
                    Status.USAGE,
                    f"{word}: not UTF-8; expected a name in UTF-8 (rename the file or folder, or "
                    "mount it under another name)",
                )


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """Read words of the form [NAME=]DIR; the default of NAME is the folder's own name.

    Raises
    ------
    Refusal
        If a folder does not exist, or two folders have the same name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, place = word.partition("=")
        path = absolute(Path(place if equals else word))
        name = re.sub(r"[^0-9a-zA-Z]", "", name if equals else path.name)
        if not path.is_dir():
            what = "a file" if path.exists() else "no such folder"
            raise Refusal(Status.USAGE, f"{path}: {what}; expected a folder of derivatives (-d)")
        if not name or name == "raw" or name in found:
            raise Refusal(
                Status.USAGE,
                f"-d {word}: expected a name that no other folder has and that is not raw, as in "
                f"NAME={path}",
            )
        found[name] = path
    return found


def warn_of_little_memory(request: Request) -> None:
    """Warn if a number that was probably meant as GB has been read as MB."""
    if request.mem is not None and request.mem < LITTLE:
        logging.getLogger("n4ax_bids").warning(
            "--mem is %.4g MB: less than one image takes, so each is corrected alone; "
            "a number without a unit is MB, 8G is 8 GB",
            request.mem / 1e6,
        )


def tell_without_effect(request: Request) -> None:
    """Log the flags that were given and change nothing in this run."""
    reasons = {
        "--write-graph": request.write_graph and "an image is one step; there is no graph",
        "--random-seed": request.random_seed is not None
        and SEED not in option_names(METHODS[request.method])
        and f"the method {request.method} draws no random numbers",
        "--low-mem": request.low_mem
        and request.use_plugin is not None
        and "the engine of --use-plugin decides how many images are in flight",
    }
    for flag, reason in reasons.items():
        if reason:
            logging.getLogger("n4ax_bids").info("%s has no effect: %s", flag, reason)
