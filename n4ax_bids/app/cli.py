"""The command `n4ax-bids`: flags in, exit status out."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n4ax_bids import compilation
from n4ax_bids.app.command import extra
from n4ax_bids.app.command.config import read_config, snapshot
from n4ax_bids.app.command.parser import DEFAULT_METHOD, LEVELS, build_parser, flag_of
from n4ax_bids.app.machine import writable
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import printable, printable_lines
from n4ax_bids.methods import METHODS, option_names
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

if TYPE_CHECKING:
    from n4ax_bids.app.request import Request


CONTINUE = "run the same command again to continue: images that are finished stay"
LITTLE = 100_000_000
"""bytes; images of usual size take more than that each"""
PATIENCE = 10.0
"""seconds that a run has for its clean-up after a signal, in which others have no effect"""
GRACE = 60.0
"""seconds after a signal in which a run may end by itself: a solve is not broken off"""
_last_signal = -math.inf
_limit: threading.Timer | None = None
_at_work = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status; see `app.status`."""
    try:
        arguments = parse(argv)
        options = options_of(arguments)
        _require_consistent(arguments)
    except ValueError as error:
        build_parser().error(str(error))
    _set_up_log(verbose=arguments.verbose > 0)
    log = logging.getLogger("n4ax_bids")
    os.environ.setdefault("NIPYPE_NO_ET", "1")  # no telemetry, no network
    compilation.keep_place()
    # Several runs may share a GPU; by default the first one would take most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _end_on_signals()
    try:
        extra.require()
        if arguments.analysis_level not in LEVELS:
            raise Refusal(
                Status.UNKNOWN_LEVEL,
                f"analysis level is {arguments.analysis_level}; expected {' or '.join(LEVELS)}",
            )
        from n4ax_bids.app.run import run

        request = request_of(arguments, options)
        _warn_of_little_memory(request)
        with writable.places([request.work_dir or request.output_dir]):
            return run(request)
    except Refusal as refusal:
        log.error("%s", refusal)
        return refusal.status
    except KeyboardInterrupt:
        log.error("interrupted; %s", CONTINUE)
        return Status.INTERRUPTED
    except SystemExit:  # only a signal raises it here
        log.error("ended by SIGTERM; %s", CONTINUE)
        raise
    except Exception as error:
        log.error("internal error: %s: %s (-v shows where)", type(error).__name__, error)
        log.debug("%s", traceback.format_exc())
        return Status.INTERNAL
    finally:
        _end_of_run()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, with the configuration file that it names as defaults.

    Raises
    ------
    ValueError
        If the configuration file does not fit, or an option is of a method that is not used.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config-file", type=Path)
    first.add_argument("--method")
    try:
        known = first.parse_known_args(argv)[0]
        config_file, method = known.config_file, known.method
    except argparse.ArgumentError:  # no value: the whole parser says so
        config_file, method = None, None
    given = {}
    if config_file:
        given = read_config(Path(os.path.expanduser(config_file)), method)
        method = method or given.get("method")
    method = method if method in METHODS else DEFAULT_METHOD
    parser = build_parser(method=method)
    typed = parser.parse_args(argv)
    for option, replaced in METHODS[method].replaces.items():
        if option in typed and replaced not in typed:
            given.pop(replaced, None)  # an option on the command line replaces it
    parser.set_defaults(**given)
    arguments = parser.parse_args(argv)
    _require_own_options(arguments)
    return arguments


def _require_own_options(arguments: argparse.Namespace) -> None:
    """Refuse options of a method that is not the chosen one."""
    own = option_names(METHODS[arguments.method])
    for method in METHODS.values():
        for name in option_names(method):
            if name not in own and name in vars(arguments):
                raise ValueError(
                    f"{flag_of(name)} is an option of --method {method.name}; the method is "
                    f"{arguments.method}"
                )


def options_of(arguments: argparse.Namespace) -> Any:
    """Return the preset's options, made sloppy where that is wanted, and changed by flags."""
    method = METHODS[arguments.method]
    base = method.presets[arguments.preset]
    given = vars(arguments)
    changes = {name: given[name] for name in option_names(method) if name in given}
    for option, replaced in method.replaces.items():
        if option in changes and replaced not in changes:
            changes[replaced] = None
    return dataclasses.replace(method.sloppy(base) if arguments.sloppy else base, **changes)


def request_of(arguments: argparse.Namespace, options: Any) -> Request:
    """Return what was asked for, with absolute paths."""
    from n4ax_bids.app.outputs.places import check_folders
    from n4ax_bids.app.request import Request
    from n4ax_bids.app.select.filters import read_filters

    _require_utf_8(arguments)
    filter_file = _absolute(arguments.bids_filter_file)
    request = Request(
        bids_dir=_absolute(arguments.bids_dir),
        output_dir=_absolute(arguments.output_dir),
        level=arguments.analysis_level,
        participants=tuple(arguments.participant_label),
        sessions=tuple(arguments.session_label),
        runs=tuple(arguments.run_id),
        modalities=tuple(dict.fromkeys(arguments.modalities)),
        filters=read_filters(filter_file) if filter_file else {},
        skip_normalized=arguments.skip_normalized,
        validate=not arguments.skip_bids_validation,
        bids_database_dir=_absolute(arguments.bids_database_dir),
        method=arguments.method,
        mask=arguments.mask,
        mask_program=mask_program(arguments),
        weight=arguments.weight,
        derivatives=named_folders(arguments.derivatives),
        options=options,
        rescale=arguments.rescale,
        desc=arguments.desc,
        bias_field=not arguments.no_bias_field,
        output_dtype=arguments.output_dtype,
        save_mask=arguments.save_mask or arguments.mask in MASK_PROGRAMS,
        dry_run=arguments.dry_run,
        boilerplate_only=arguments.boilerplate_only,
        reports=not arguments.no_reports,
        reports_only=arguments.reports_only,
        overwrite=arguments.overwrite,
        verify_inputs=arguments.verify_inputs,
        accept_new_source=arguments.accept_new_source,
        stop_on_first_crash=arguments.stop_on_first_crash,
        device=arguments.device,
        use_plugin=_absolute(arguments.use_plugin),
        clean_workdir=arguments.clean_workdir,
        work_dir=_absolute(arguments.work_dir),
        nprocs=arguments.nprocs,
        omp_nthreads=arguments.omp_nthreads,
        mem=arguments.mem,
        preset=arguments.preset,
        sloppy=arguments.sloppy,
    )
    check_folders(request)
    text = snapshot(arguments, dataclasses.asdict(options), request.run_id)
    return dataclasses.replace(request, snapshot=text)


def mask_program(arguments: argparse.Namespace) -> str | None:
    """Return name and version of the program that finds the masks; None where there is none.

    Raises
    ------
    Refusal
        If images may be corrected and the program is not installed.
    """
    if arguments.mask not in MASK_PROGRAMS or arguments.analysis_level == "group":
        return None
    from n4ax_bids import skull_strip

    try:
        return skull_strip.installed(arguments.mask).label
    except FileNotFoundError as error:
        if arguments.reports_only or arguments.boilerplate_only:  # the masks are there already
            return None
        raise Refusal(Status.USAGE, f"--mask {arguments.mask}: {error}") from error


def _require_utf_8(arguments: argparse.Namespace) -> None:
    """Refuse words that no JSON, table or page can hold, which are written as UTF-8."""
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
    """Read [NAME=]DIR; a folder without a name has its own.

    Raises
    ------
    Refusal
        If a folder is not there or two have one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, place = word.partition("=")
        path = _absolute(Path(place if equals else word))
        name = re.sub(r"[^0-9a-zA-Z]", "", name if equals else path.name)
        if not path.is_dir():
            what = "a file" if path.exists() else "no such folder"
            raise Refusal(Status.USAGE, f"{path}: {what}; expected a folder of derivatives (-d)")
        if not name or name == "raw" or name in found:
            raise Refusal(
                Status.USAGE,
                f"-d {word}: expected a name of its own that is not raw, as in NAME={path}",
            )
        found[name] = path
    return found


def _warn_of_little_memory(request: Request) -> None:
    """Warn where a number that was meant as GB has been read as MB."""
    if request.mem is not None and request.mem < LITTLE:
        logging.getLogger("n4ax_bids").warning(
            "--mem is %.4g MB: less than one image takes, so each is corrected alone; "
            "a number without a unit is MB, 8G is 8 GB",
            request.mem / 1e6,
        )


def _require_consistent(arguments: argparse.Namespace) -> None:
    """Refuse flags that need another one."""
    if (arguments.mask == "derivatives" or arguments.weight) and not arguments.derivatives:
        which = "--mask derivatives" if arguments.mask == "derivatives" else "--weight"
        raise ValueError(f"{which} needs -d: where masks and tissue probabilities are")
    if arguments.rescale and arguments.mask != "derivatives":
        raise ValueError(
            f"--rescale needs --mask derivatives; with --mask {arguments.mask} the ANTs program "
            "has no mask to rescale in"
        )
    if arguments.save_mask and arguments.mask not in (*MASK_WORDS, *MASK_PROGRAMS):
        raise ValueError(
            "--save-mask needs a mask that is found in the image; expected --mask auto, head, "
            f"brain, otsu, synthstrip or hd-bet, not {arguments.mask}"
        )
    if arguments.no_reports and arguments.reports_only:
        raise ValueError("--no-reports and --reports-only contradict each other; expected one")
    if arguments.dry_run and arguments.boilerplate_only:
        raise ValueError("--dry-run writes nothing, --boilerplate-only a text; expected one")


def _end_on_signals() -> None:
    """Let a batch system's signal, or Ctrl+C, end the run by way of its clean-up.

    Exit status 143 or 130. One that follows soon would break off the clean-up; one that comes
    later is from somebody who has waited for it. At the end of the time of grace the process ends
    in any case: a thread may wait for a file that never comes.
    """
    global _last_signal, _limit, _at_work
    _last_signal, _limit, _at_work = -math.inf, None, True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def _end_of_run() -> None:
    global _limit, _at_work
    if _limit is not None:
        _limit.cancel()
    _limit, _at_work = None, False


def _end(number: int, _: Any) -> None:
    global _last_signal, _limit
    if time.monotonic() - _last_signal < PATIENCE:
        return
    _last_signal = time.monotonic()
    if _limit is None and _at_work:
        _limit = threading.Timer(GRACE, _give_up, [128 + number])
        _limit.daemon = True
        _limit.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _give_up(status: int) -> None:
    """End the process at once; the next run removes what this one leaves."""
    logging.getLogger("n4ax_bids").error("an image is still being worked on: ended without it")
    os._exit(status)


def _absolute(path: Path | None) -> Path | None:
    """Return an absolute path; links stay, for they carry the names (DataLad)."""
    try:
        return path and Path(os.path.abspath(path.expanduser()))
    except RuntimeError as error:
        raise Refusal(
            Status.USAGE, f"{path}: no home folder is known for it; expected a path without ~"
        ) from error


class _Printable(logging.Formatter):
    """Shows each message as one line, so that no name of a file can forge a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return (printable_lines if record.levelno == logging.DEBUG else printable)(text)


def _set_up_log(*, verbose: bool) -> None:
    log = logging.getLogger("n4ax_bids")
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
