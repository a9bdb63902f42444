"""Refuses flags that contradict each other, need another flag, or mean nothing for the method."""

from __future__ import annotations

import argparse

from n4ax_bids.app.request import FIELD_SCALE, flags
from n4ax_bids.methods import METHODS
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

FOR_STACKS = ("auto", "none")
"""values of --mask for a method that takes stacks of planes"""


def _require_fit_for_stacks(arguments: argparse.Namespace) -> None:
    """Refuse flags that have no meaning for a method that takes stacks of planes."""
    name = arguments.method
    if arguments.mask not in FOR_STACKS:
        raise ValueError(
            f"--mask {arguments.mask}: --method {name} finds tissue; expected auto or none"
        )
    for flag, given in (
        ("--weight", arguments.weight),
        ("--save-mask", arguments.save_mask),
        ("--output-dtype source", arguments.output_dtype == "source"),
        (f"--field-scale {arguments.field_scale}", arguments.field_scale != FIELD_SCALE),
    ):
        if given:
            raise ValueError(f"{flag}: not for --method {name}; expected a run without it")


def require_consistent(arguments: argparse.Namespace) -> None:
    """Refuse flags that contradict each other or need another flag."""
    if METHODS[arguments.method].streams:
        _require_fit_for_stacks(arguments)
    if (arguments.mask == "derivatives" or arguments.weight) and not arguments.derivatives:
        which = "--mask derivatives" if arguments.mask == "derivatives" else "--weight"
        raise ValueError(f"{which} needs -d with the folders of masks and tissue probabilities")
    if arguments.rescale and arguments.mask != "derivatives":
        raise ValueError(
            f"--rescale needs --mask derivatives, not {arguments.mask}: the ANTs program rescales "
            "only inside a mask file"
        )
    if arguments.save_mask and arguments.mask not in (*MASK_WORDS, *MASK_PROGRAMS):
        raise ValueError(
            "--save-mask needs a mask that is found in the image; expected --mask auto, head, "
            f"brain, otsu, synthstrip or hd-bet, not {arguments.mask}"
        )
    _require_of_method(arguments)
    method = METHODS[arguments.method]
    if arguments.apply_to and (method.app or method.streams):
        raise ValueError(
            f"--apply-to needs the fields of single images; the method is {arguments.method}"
        )
    if arguments.apply_to and arguments.use_plugin:
        raise ValueError("--apply-to is not for --use-plugin; expected only one of them")
    if arguments.no_reports and arguments.reports_only:
        raise ValueError(
            "--no-reports and --reports-only contradict each other; expected only one of them"
        )
    if arguments.dry_run and arguments.boilerplate_only:
        raise ValueError(
            "--dry-run writes nothing, and --boilerplate-only writes a text; expected only one of "
            "them"
        )


def _require_of_method(arguments: argparse.Namespace) -> None:
    """Refuse flags that mean nothing for the chosen method."""
    method = METHODS[arguments.method]
    if arguments.realign_4d and not method.query.more:
        raise ValueError(f"--realign-4d needs --method realign; the method is {arguments.method}")
    if not method.app:
        return
    of_fields = {
        "--mask": arguments.mask != flags()["mask"].default,
        "--weight": arguments.weight,
        "-d": arguments.derivatives,
        "--rescale": arguments.rescale,
        "--save-mask": arguments.save_mask,
        f"--field-scale {arguments.field_scale}": arguments.field_scale != FIELD_SCALE,
    }
    for name, given in of_fields.items():
        if given:
            raise ValueError(
                f"{name} has no meaning for --method {method.name}; expected --bias and "
                "--bias-mask for the bias field of a series"
            )
