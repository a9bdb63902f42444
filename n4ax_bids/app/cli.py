"""The commands `n4ax-bids` and `n4ax-files`: flags in, exit status out."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Sequence

from n4ax_bids.app import logs
from n4ax_bids.app.command import extra
from n4ax_bids.app.command.asked import (
    options_of,
    parse,
    request_of,
    tell_without_effect,
    warn_of_little_memory,
)
from n4ax_bids.app.command.consistent import require_consistent
from n4ax_bids.app.command.files import FILES
from n4ax_bids.app.command.parser import DATASET, LEVELS, Program, build_parser
from n4ax_bids.app.machine import signals, writable
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.runtime import compilation, startup

CONTINUE = "run the same command again to continue: images that are finished stay"


def program() -> int:
    """Run `n4ax-bids` as a process of its own."""
    return _as_process(DATASET)


def files_program() -> int:
    """Run `n4ax-files` as a process of its own."""
    return _as_process(FILES)


def _as_process(program: Program) -> int:
    startup.begin()
    try:
        return main(None, program)
    finally:
        startup.end()


def files_main(argv: Sequence[str] | None = None) -> int:
    """Run `n4ax-files`."""
    return main(argv, FILES)


def main(argv: Sequence[str] | None = None, program: Program = DATASET) -> int:
    """Run the program and return its exit status; see `app.status`."""
    try:
        arguments = parse(argv, program)
        options = options_of(arguments)
        require_consistent(arguments)
    except ValueError as error:
        build_parser(program=program).error(str(error))
    logs.set_up(verbose=arguments.verbose > 0)
    log = logging.getLogger("n4ax_bids")
    os.environ.setdefault("NIPYPE_NO_ET", "1")  # no telemetry, no network
    compilation.keep_place()
    # Several runs may share a GPU; by default the first one would take most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    signals.end_on_signals()
    try:
        extra.require(program.name)
        if arguments.analysis_level not in LEVELS:
            raise Refusal(
                Status.UNKNOWN_LEVEL,
                f"analysis level is {arguments.analysis_level}; expected {' or '.join(LEVELS)}",
            )
        from n4ax_bids.app.run import run

        request = request_of(arguments, options, program)
        warn_of_little_memory(request)
        tell_without_effect(request)
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
        signals.end_of_run()
