"""The command line's flags and their help."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from n4ax_bids import __version__
from n4ax_bids.app.command import words
from n4ax_bids.app.request import DEFAULT_METHOD, flags
from n4ax_bids.arguments import odd_dash
from n4ax_bids.methods import METHODS, Method, option_names
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

LEVELS = ("participant", "group")
LEVEL_HELP = (
    "participant corrects images; group gathers the numbers of those that have been corrected in "
    "a table and a page"
)

DESCRIPTION = """\
Correct the T1w and T2w images of a BIDS dataset, and others on request, for intensity
non-uniformity (N4, as ANTs computes it) and write corrected images, bias fields and B-spline
lattices as BIDS derivatives. By default the field is estimated in the brain, or in the head where
no brain is found with confidence (--mask auto), from samples about 4 mm apart (--preset standard),
and the whole image is divided by it, so that corrected x field = input; the mean of the field is 1
in the mask (--field-scale mean). --preset ants --field-scale as-is gives the ANTs program's
options, with --mask otsu in ITK's Otsu mask, with --mask none its defaults. --method realign
corrects the motion of functional, perfusion and diffusion series instead. --dry-run shows what
would be done.
"""

ELSEWHERE = {
    "--output-spaces": "images stay on their own grid; fMRIPrep resamples to spaces",
    "--output-layout": "outputs always have the layout bids",
}
"""flags of other BIDS-Apps that have no meaning here, and what to know instead"""

EXAMPLES = """\
examples:
  n4ax-bids BIDS_DIR OUT_DIR participant --dry-run
  n4ax-bids BIDS_DIR OUT_DIR participant --participant-label 01 02 -m T1w FLAIR
  n4ax-bids BIDS_DIR OUT_DIR participant -d fmriprep=FMRIPREP_DIR --mask derivatives
"""


def first_name(message: str) -> str:
    """Return a message of argparse with only the first of a flag's names."""
    return re.sub(r"^argument (--[\w-]+)(/--[\w-]+)+:", r"argument \1:", message)


class Parser(argparse.ArgumentParser):
    """A parser whose first line of output says what is wrong."""

    def error(self, message: str) -> NoReturn:
        message = first_name(message)
        if message.startswith("unrecognized arguments: "):
            word = message.split()[2].split("=")[0]
            dash = odd_dash(word)
            if dash:
                message += f" (it begins with {dash.sign}; expected two hyphens: --{dash.bare})"
            elif word in ELSEWHERE:
                message += f" ({ELSEWHERE[word]})"
            else:
                message += words.did_you_mean(word, self._option_string_actions)
        lines = (f"{self.prog}: error: {message}", f"{self.prog} --help lists the flags")
        self.exit(2, "".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class Program:
    """A command of the App: its words, and the flags that it lacks."""

    name: str
    description: str
    examples: str
    add_words: Callable[[argparse.ArgumentParser], None]
    """adds the words that are no flags, and flags of this command alone"""
    lacks: frozenset[str] = frozenset()
    """fields of the request that have no flag here, and keep their defaults"""
    has: Callable[[Method], bool] = lambda method: True
    """whether a method can be chosen"""
    helps: Mapping[str, str] = field(default_factory=dict)
    """help of a flag, by the field that it fills, where it differs"""

    @property
    def methods(self) -> list[Method]:
        """The methods that can be chosen."""
        return [method for method in METHODS.values() if self.has(method)]


def _add_dataset_words(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bids_dir", type=Path, help="root of a BIDS dataset")
    add(
        "output_dir",
        type=Path,
        help="root of the derivative dataset; it is made if it does not exist",
    )
    add("analysis_level", metavar="{" + ",".join(LEVELS) + "}", help=LEVEL_HELP)


DATASET = Program("n4ax-bids", DESCRIPTION, EXAMPLES, _add_dataset_words)


def build_parser(method: str = DEFAULT_METHOD, program: Program = DATASET) -> Any:
    """Return the parser of the command line.

    Parameters
    ----------
    method : the chosen method; its options come first. The parser knows the options of the other
        methods too, for --help and so that `asked.parse` can refuse them by name
    program : the command
    """
    parser = Parser(
        prog=program.name,
        description=program.description,
        epilog=_epilog(program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    program.add_words(parser)
    add_flags(parser, method, program)
    return parser


def add_flags(
    parser: argparse.ArgumentParser, method: str = DEFAULT_METHOD, program: Program = DATASET
) -> None:
    """Add all flags, with the options of the chosen method before those of the others."""
    chosen = METHODS[method]
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, flag in flags().items():
        if name in program.lacks:
            continue
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        own = program.helps.get(name)
        flag = replace(flag, help=own) if own else flag
        flag.add_to(groups[flag.group], chosen)
    _add_other_flags(parser.add_argument_group("other"))
    if "derivatives" in program.lacks:
        _narrow(parser, "mask", {*MASK_WORDS, *MASK_PROGRAMS, "none"})
    _narrow(parser, "method", {method.name for method in program.methods})
    others = [each for each in program.methods if each is not chosen]
    for each in (chosen, *others):
        _add_option_flags(parser, each)


def _narrow(parser: argparse.ArgumentParser, name: str, known: Collection[str]) -> None:
    """Leave only some of a flag's choices."""
    for action in parser._actions:
        if action.dest == name and action.choices:
            action.choices = tuple(each for each in action.choices if each in known)


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
    """Return the flag for an option of a method."""
    return "--" + name.replace("_", "-")


def _add_option_flags(parser: argparse.ArgumentParser, method: Method) -> None:
    """Add a group with a method's options; its text lists names that another group has already."""
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
    """Translate a type hint into arguments of `add_argument`."""
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        if any(get_origin(part) is tuple for part in parts) and len(parts) > 1:
            # A number or several; a word stands for None.
            several = words.several("planes")
            return {"type": several, "action": words.OneOrSeveral, "nargs": "+", "metavar": "N"}
        if len(parts) > 1:  # a number or one of some words
            return {"type": words.number_or_word, "metavar": "N|WORD"}
        (hint,) = parts
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


def _epilog(program: Program) -> str:
    lines = []
    for method in program.methods:
        width = max(map(len, method.preset_help))
        wrapped = partial(
            textwrap.fill, width=95, subsequent_indent=" " * (width + 4), break_on_hyphens=False
        )
        lines.append(f"presets of {method.title}:")
        lines += [
            wrapped(f"  {name:{width}}  {text}") for name, text in method.preset_help.items()
        ]
        lines += ["", method.epilog] if method.epilog else [""]
    return "\n".join([*lines, program.examples])
