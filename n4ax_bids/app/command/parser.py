"""The command line's flags and their help."""

from __future__ import annotations

import argparse
import re
import textwrap
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from n4ax_bids import __version__
from n4ax_bids.app.command import words
from n4ax_bids.arguments import odd_dash
from n4ax_bids.methods import METHODS, Method, option_names
from n4ax_bids.options import MASK_PROGRAMS

LEVELS = ("participant", "group")
DEFAULT_METHOD = "n4"
LEVEL_HELP = (
    "participant corrects images; group gathers the numbers of those that have been corrected in "
    "a table and a page"
)

DESCRIPTION = """\
Correct the T1w and T2w images of a BIDS dataset, and others on request, for intensity
non-uniformity (N4, as ANTs computes it) and write corrected images, bias fields and B-spline
lattices as BIDS derivatives. By default the field is estimated in the brain, or in the head where
no brain is found with confidence (--mask auto), from samples about 4 mm apart (--preset standard),
and the whole image is divided by it without rescaling, so that corrected x field = input. --preset
ants --mask otsu gives the ANTs program's options in ITK's Otsu mask, --preset ants --mask none the
ANTs program's defaults. --dry-run shows what would be done.
"""

EXAMPLES = """\
examples:
  n4ax-bids BIDS_DIR OUT_DIR participant --dry-run
  n4ax-bids BIDS_DIR OUT_DIR participant --participant-label 01 02 -m T1w FLAIR
  n4ax-bids BIDS_DIR OUT_DIR participant -d fmriprep=FMRIPREP_DIR --mask derivatives
"""


def first_name(message: str) -> str:
    """Return an error of argparse with the first of a flag's names in place of all of them."""
    return re.sub(r"^argument (--[\w-]+)(/--[\w-]+)+:", r"argument \1:", message)


class Parser(argparse.ArgumentParser):
    """A parser that says first, and in one line, what is wrong."""

    def error(self, message: str) -> NoReturn:
        message = first_name(message)
        if message.startswith("unrecognized arguments: "):
            word = message.split()[2].split("=")[0]
            dash = odd_dash(word)
            message += (
                f" (it begins with {dash.sign}; expected two hyphens: --{dash.bare})"
                if dash
                else words.did_you_mean(word, self._option_string_actions)
            )
        lines = (f"{self.prog}: error: {message}", f"{self.prog} --help lists the flags")
        self.exit(2, "".join(f"{line}\n" for line in lines))


def build_parser(
    kind: type[argparse.ArgumentParser] = Parser, method: str = DEFAULT_METHOD
) -> Any:
    """Return the command line's parser.

    Parameters
    ----------
    kind : class of the parser
    method : whose options are read; those of the others are shown, and refused by `of_method`
    """
    parser = kind(
        prog="n4ax-bids",
        description=DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bids_dir", type=Path, help="root of a BIDS dataset")
    add("output_dir", type=Path, help="root of the derivative dataset, made if it is not there")
    add("analysis_level", metavar="{" + ",".join(LEVELS) + "}", help=LEVEL_HELP)
    add_flags(parser, method)
    return parser


def add_flags(parser: argparse.ArgumentParser, method: str = DEFAULT_METHOD) -> None:
    """Add all that is not positional; options are those of a method."""
    chosen = METHODS[method]
    _add_selection_flags(parser.add_argument_group("which images"))
    _add_correction_flags(parser.add_argument_group("how they are corrected"), chosen)
    _add_output_flags(parser.add_argument_group("what is written"))
    _add_machine_flags(parser.add_argument_group("what the run may take"))
    _add_restart_flags(parser.add_argument_group("what is done again"))
    _add_other_flags(parser.add_argument_group("other"))
    others = [each for each in METHODS.values() if each is not chosen]
    for each in (chosen, *others):
        _add_option_flags(parser, each)


def _add_selection_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    labels = partial(add, nargs="+", default=[], metavar="LABEL")
    labels(
        "--participant-label",
        "--participant_label",
        type=words.label("sub-"),
        help='only these participants, with or without "sub-" (default: all)',
    )
    labels(
        "--session-label",
        "--session-id",
        type=words.label("ses-"),
        help='only these sessions, with or without "ses-" (default: all)',
    )
    labels(
        "--run-id",
        type=words.label("run-"),
        help='only these runs, with or without "run-"; 1 is 01 (default: all)',
    )
    add(
        "-m",
        "--modalities",
        nargs="+",
        default=["T1w", "T2w"],
        metavar="SUFFIX",
        help="suffixes of the images: T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 UNIT1 MEGRE "
        "MESE ...; phase, maps and masks are never taken (default: T1w T2w)",
    )
    add(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON in fMRIPrep\'s form: {"t1w": {"acquisition": "mprage"}}; null is none, "*" any',
    )
    add(
        "--skip-normalized",
        choices=("no", "warn", "yes"),
        default="warn",
        help="leave out images that the scanner has corrected (ImageType has NORM), or warn of "
        "them (default: %(default)s)",
    )
    add(
        "--skip-bids-validation",
        action="store_true",
        help="do not ask bids-validator-deno whether the dataset is valid",
    )
    add(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep pybids' index of the dataset here and use the one that is there (default: in "
        "memory)",
    )


def _add_correction_flags(group: argparse._ArgumentGroup, method: Method) -> None:
    add = group.add_argument
    add(
        "--method",
        choices=tuple(METHODS),
        default=DEFAULT_METHOD,
        help="how the field is estimated (default: %(default)s)",
    )
    add(
        "--mask",
        choices=("auto", "head", "brain", "otsu", "none", "derivatives", *MASK_PROGRAMS),
        default="auto",
        help="where the field is estimated: in the head or the brain that is found in the image; "
        "auto: in the brain where one is found with confidence, else in the head; otsu: in the "
        "voxels above Otsu's threshold; none: in all voxels, as the ANTs program does without a "
        "mask; derivatives: in desc-brain_mask of -d (where there is none: weighted by its "
        "label-WM_probseg); synthstrip, hd-bet: in the brain that this program finds, where it is "
        "installed; its mask is always written (default: %(default)s)",
    )
    add(
        "--weight",
        metavar="LABEL",
        help="estimate with this tissue's probability of -d as the weight: WM is "
        "label-WM_probseg (default: none)",
    )
    add(
        "-d",
        "--derivatives",
        nargs="+",
        default=[],
        metavar="[NAME=]DIR",
        help="derivative datasets of other pipelines that hold masks and tissue probabilities; "
        "the first that has one for the image counts. Reports measure white and grey matter there",
    )
    add(
        "--preset",
        choices=tuple(method.presets),
        default=method.default_preset,
        help="named set of the method's options, listed below (default: %(default)s)",
    )
    add(
        "--rescale",
        action="store_true",
        help="with a mask of -d, do as the ANTs program: voxels outside keep their values, those "
        "inside are rescaled to the range that they had",
    )
    add(
        "--sloppy",
        action="store_true",
        help="at most two levels of five iterations, shrink 4: for trying out, not for results",
    )


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--desc",
        type=words.desc,
        default="biascorr",
        metavar="LABEL",
        help="desc label of the corrected images (default: %(default)s)",
    )
    add("--no-bias-field", action="store_true", help="write no fields; the lattice holds them")
    add(
        "--output-dtype",
        choices=("float32", "source"),
        default="float32",
        help="voxels of the corrected images: as computed, or in the source's own type with "
        "slope and intercept (default: %(default)s)",
    )
    add(
        "--save-mask",
        action="store_true",
        help="write the mask that --mask auto, head, brain or otsu finds as desc-brain_mask, "
        "desc-head_mask or desc-otsu_mask",
    )
    add(
        "--dry-run",
        action="store_true",
        help="show each image, why it is taken or not, its options and its outputs; write nothing",
    )
    add("--boilerplate-only", action="store_true", help="write the methods text and nothing else")
    add("--no-reports", action="store_true", help="draw no figures and write no pages")
    add(
        "--reports-only",
        action="store_true",
        help="draw the figures and write the pages of images that have been corrected; solve "
        "nothing",
    )


def _add_machine_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--device",
        type=words.device,
        default="auto",
        metavar="{auto,gpu,gpu:N,cpu}",
        help="where to compute; auto takes a GPU if there is one and says so where there is "
        "none, gpu is an error without one (default: %(default)s)",
    )
    add(
        "--nprocs",
        "--nthreads",  # this and the next two are fMRIPrep's names
        "--n_cpus",
        "--n-cpus",
        type=words.positive(int),
        metavar="N",
        help="images in flight: some are solved while others are read and written "
        "(default: as --omp-nthreads, else one for each core)",
    )
    add(
        "--omp-nthreads",
        type=words.positive(int),
        metavar="N",
        help="threads of a solve on the CPU (default: as --nprocs, else one for each core)",
    )
    add(
        "--mem",
        "--mem_mb",
        "--mem-mb",
        type=words.memory,
        metavar="MB",
        help="memory for images in flight, in MB or with a unit (8G, 800M, 8GiB): fewer of them "
        "where they would need more; the program itself takes about half a GB besides (default: "
        "what is free)",
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


def _add_restart_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--overwrite",
        action="store_true",
        help="do all images again; without it those that are finished stay: same size, time and "
        "fingerprint of the input, or else the same content, same options, same version",
    )
    add(
        "--verify-inputs",
        action="store_true",
        help="compare the whole content of inputs, not size, time and fingerprint alone, to see "
        "which images are finished",
    )
    add(
        "--accept-new-source",
        action="store_true",
        help="go on although the outputs that are there were made from another dataset; images "
        "with the same name are then replaced, and the others stay",
    )
    add(
        "--stop-on-first-crash",
        action="store_true",
        help="begin nothing more when an image has failed",
    )


def _add_other_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML with long option names as keys; the command line wins. The run's own are "
        "written to logs/RUN/options.toml in this form",
    )
    add("--notrack", action="store_true", help="accepted; there is no telemetry to turn off")
    add("-v", "--verbose", action="count", default=0, help="say more")
    add("--version", action="version", version=f"n4ax_bids {__version__}")


def flag_of(name: str) -> str:
    """Return the flag of an option."""
    return "--" + name.replace("_", "-")


def _add_option_flags(parser: argparse.ArgumentParser, method: Method) -> None:
    """Add a group with a method's options; names that are there already are listed in its text."""
    there = parser._option_string_actions
    shared = [name for name in map(flag_of, option_names(method)) if name in there]
    text = "each replaces what the preset says"
    if shared:
        text += f"; above: {' '.join(shared)}"
    group = parser.add_argument_group(f"options of {method.title} (--method {method.name})", text)
    hints = get_type_hints(method.options)
    for item in fields(method.options):
        if flag_of(item.name) in shared:
            continue
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
        if inner[-1] is Ellipsis:
            kind = words.series(inner[0])
            return {"type": kind, "action": words.Joined, "nargs": "+", "metavar": "N"}
        many = len(inner)
        return {"type": float if float in inner else int, "nargs": many, "metavar": "N"}
    return {"type": hint, "metavar": "N" if hint is int else "X"}


def _epilog() -> str:
    lines = []
    for method in METHODS.values():
        width = max(map(len, method.preset_help))
        wrapped = partial(
            textwrap.fill, width=95, subsequent_indent=" " * (width + 4), break_on_hyphens=False
        )
        lines.append(f"presets of {method.title}:")
        lines += [
            wrapped(f"  {name:{width}}  {text}") for name, text in method.preset_help.items()
        ]
        lines += ["", method.epilog] if method.epilog else [""]
    return "\n".join([*lines, EXAMPLES])
