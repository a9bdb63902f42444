"""The command `n4ax-bids`: flags in, exit status out."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from n4ax_bids import __version__
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.options import PRESET_HELP, N4Options, preset

DESCRIPTION = """\
Correct every T1w and T2w image of a BIDS dataset for intensity non-uniformity (N4, as ANTs
computes it) and write corrected images, bias fields and B-spline lattices as BIDS derivatives.
By default the field is estimated inside an Otsu mask (--mask otsu) with the ANTs program's own
options (--preset ants), and the whole image is divided by it without rescaling, so that
corrected x field = input.
"""

WHY_NOT_FMRIPREP = """\
Why fmriprep is not the default: fMRIPrep gives its last N4 a white-matter weight image. Without
that weight, as here, the preset's fifth level takes tissue contrast for field: grey and white
matter end up closer together than the scanner left them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status; see `app.status`."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        options = preset(arguments.preset, **solver_changes(arguments))
    except ValueError as error:
        parser.error(str(error))
    _set_up_log(verbose=arguments.verbose > 0)
    log = logging.getLogger("n4ax_bids")
    os.environ.setdefault("NIPYPE_NO_ET", "1")  # no telemetry, no network
    # Several runs may share a GPU; by default the first one would take most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _stop_on_sigterm()
    try:
        from n4ax_bids.app.request import Request
        from n4ax_bids.app.run import run

        return run(
            Request(
                bids_dir=_absolute(arguments.bids_dir),
                output_dir=_absolute(arguments.output_dir),
                participants=tuple(arguments.participant_label),
                sessions=tuple(arguments.session_label),
                mask=arguments.mask,
                options=options,
                device=arguments.device,
                work_dir=_absolute(arguments.work_dir) if arguments.work_dir else None,
                nprocs=arguments.nprocs,
                omp_nthreads=arguments.omp_nthreads,
                mem=arguments.mem,
                clean_workdir=arguments.clean_workdir,
                use_plugin=_absolute(arguments.use_plugin) if arguments.use_plugin else None,
                overwrite=arguments.overwrite,
                verify_inputs=arguments.verify_inputs,
                stop_on_first_crash=arguments.stop_on_first_crash,
            )
        )
    except Refusal as refusal:
        log.error("%s", refusal)
        return refusal.status
    except KeyboardInterrupt:
        log.error("interrupted")
        return Status.INTERRUPTED
    except Exception as error:
        log.error("internal error: %s: %s (-v shows where)", type(error).__name__, error)
        log.debug("%s", traceback.format_exc())
        return Status.INTERNAL


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser; solver flags come from `N4Options`."""
    parser = argparse.ArgumentParser(
        prog="n4ax-bids",
        description=DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bids_dir", type=Path, help="root of a BIDS dataset")
    add("output_dir", type=Path, help="root of the derivative dataset, made if it is not there")
    add("analysis_level", choices=("participant",), help="only participant so far")
    add(
        "--participant-label",
        "--participant_label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help='only these participants, with or without "sub-" (default: all)',
    )
    add(
        "--session-label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help='only these sessions, with or without "ses-" (default: all)',
    )
    add(
        "--mask",
        choices=("otsu", "none"),
        default="otsu",
        help="estimate the field in the voxels above Otsu's threshold, or in all voxels as the "
        "ANTs program does without a mask (default: %(default)s)",
    )
    add(
        "--preset",
        choices=tuple(PRESET_HELP),
        default="ants",
        help="named set of solver options, listed below (default: %(default)s)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute; auto takes a GPU if there is one, gpu is an error without one "
        "(default: %(default)s)",
    )
    add(
        "--nprocs",
        type=_positive(int),
        metavar="N",
        help="images in flight: some are solved while others are read and written "
        "(default: as --omp-nthreads, else one for each core)",
    )
    add(
        "--omp-nthreads",
        type=_positive(int),
        metavar="N",
        help="threads of a solve on the CPU (default: as --nprocs, else one for each core)",
    )
    add(
        "--mem",
        type=_positive(float),
        metavar="GB",
        help="memory for images in flight: fewer of them where they would need more; the program "
        "itself takes about half a GB besides (default: what is free)",
    )
    add(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="place for unfinished files; fastest on the output's file system "
        "(default: a hidden folder in the output folder); emptied at the end",
    )
    add(
        "--clean-workdir",
        action="store_true",
        help="first remove what other runs have left in the work folder; not while one goes on "
        "there on another machine",
    )
    add(
        "--use-plugin",
        type=Path,
        metavar="FILE",
        help="run the images as a nipype workflow under the engine that this YAML or JSON file "
        "names: plugin (MultiProc, SLURM, SGE, PBS, ...) and plugin_args",
    )
    add(
        "--overwrite",
        action="store_true",
        help="do all images again; without it those that are finished stay: same size and time "
        "of the input, or else the same content, same options, same version",
    )
    add(
        "--verify-inputs",
        action="store_true",
        help="compare the content of inputs, not size and time alone, to see which images are "
        "finished",
    )
    add(
        "--stop-on-first-crash",
        action="store_true",
        help="begin nothing more when an image has failed",
    )
    add("-v", "--verbose", action="count", default=0, help="say more")
    add("--version", action="version", version=f"n4ax_bids {__version__}")
    _add_solver_flags(parser)
    return parser


def solver_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the solver options that were given on the command line."""
    given = vars(arguments)
    return {item.name: given[item.name] for item in fields(N4Options) if item.name in given}


def flag_of(name: str) -> str:
    """Return the flag of an option."""
    return "--" + name.replace("_", "-")


def _add_solver_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("solver options", "each replaces what the preset says")
    hints = get_type_hints(N4Options)
    for item in fields(N4Options):
        unit = item.metadata["unit"]
        text = item.metadata["help"] + (f" ({unit})" if unit else "")
        group.add_argument(
            flag_of(item.name),
            dest=item.name,
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **_parsing_of(hints[item.name]),
        )


def _parsing_of(hint: Any) -> dict[str, Any]:
    """Translate a type hint into `add_argument`'s terms."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    inner = get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {"choices": inner}
    if get_origin(hint) is tuple:
        many = "+" if inner[-1] is Ellipsis else len(inner)
        return {"type": float if float in inner else int, "nargs": many, "metavar": "N"}
    return {"type": hint, "metavar": "N" if hint is int else "X"}


def _positive(kind: type) -> Callable[[str], Any]:
    """Return a reader of numbers above 0."""

    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}; expected a number above 0")
        return value

    number.__name__ = kind.__name__  # argparse shows it
    return number


def _epilog() -> str:
    width = max(map(len, PRESET_HELP))
    wrapped = partial(
        textwrap.fill, width=95, subsequent_indent=" " * (width + 4), break_on_hyphens=False
    )
    lines = [wrapped(f"  {name:{width}}  {text}") for name, text in PRESET_HELP.items()]
    return "\n".join(["presets:", *lines, "", WHY_NOT_FMRIPREP])


def _stop_on_sigterm() -> None:
    """Let a batch system's signal end the run by way of its clean-up; exit status 143."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _absolute(path: Path) -> Path:
    """Return an absolute path; links stay, for they carry the names (DataLad)."""
    return Path(os.path.abspath(path.expanduser()))


def _set_up_log(*, verbose: bool) -> None:
    log = logging.getLogger("n4ax_bids")
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
