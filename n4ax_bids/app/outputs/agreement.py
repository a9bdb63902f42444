"""Runs that use one output folder at the same time must have the same settings and dataset.

Each run first publishes its settings in a file in its hidden folder, and then reads the settings
of the others. So of two runs that differ, at least one sees the other. A run that sees no
differing run starts to work. If two differing runs are both still looking, the one with the larger
token ends, and the other waits for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import Job
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import finished, source
from n4ax_bids.app.outputs.changed import differences
from n4ax_bids.app.outputs.source import Identity
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status

PATIENCE = 30.0
"""seconds to wait for another run that is still looking"""
PAUSE = 0.1
LOOKING, AT_WORK = "looking", "at work"
"""states that a run publishes"""


class Differs(Exception):
    """Another current run has other settings."""

    def __init__(self, why: str, told: Mapping[str, Any]):
        super().__init__(why)
        self.told = told


def require(here: Presence, request: Request, raw: Mapping[str, Any], jobs: Sequence[Job]) -> None:
    """Refuse to work beside a run with other settings, another version or another dataset.

    Parameters
    ----------
    here : this run's presence in the output folder
    request : the run
    raw : description of the raw dataset
    jobs : all images that the run selects, including those that are finished

    Raises
    ------
    Refusal
        One line that names the other run and the first setting that differs.
    """
    try:
        settle(here, terms(request, raw, jobs), bids_dir=request.bids_dir)
    except Differs as error:
        who = f"process {error.told.get('pid')} on {error.told.get('host')}"
        raise Refusal(
            Status.USAGE,
            f"{request.output_dir}: another run is at work here ({who}), and differs: {error}; "
            "expected the same settings, another output folder, or that it has ended",
        ) from error


def terms(request: Request, raw: Mapping[str, Any], jobs: Sequence[Job] = ()) -> dict[str, Any]:
    """Return what all runs on one output folder must have in common while they work.

    This includes a sample of the images, because two studies may have the same description. Other
    runs compare it with their images of the same names, if they have any.
    """
    return {
        "version": __version__,
        "settings": finished.settings(request),
        "source": vars(Identity.of_request(request, raw)),
        "images": source.sample([(job.relative, job.source) for job in jobs]),
    }


def settle(
    here: Presence,
    mine: Mapping[str, Any],
    *,
    bids_dir: Path | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Publish the terms of this run, and return when it is certain that no other run differs.

    Parameters
    ----------
    here : this run's presence in the output folder
    mine : terms of this run
    bids_dir : root of its dataset, to compare the images that other runs name
    pause : function that waits for a number of seconds

    Raises
    ------
    Differs
        If a run with other terms keeps working.
    """
    here.tell(terms=dict(mine), state=LOOKING)
    waited = 0.0
    while True:
        others = {
            token: (why, told)
            for token, told in here.others().items()
            if (why := difference(told.get("terms"), mine, bids_dir))
        }
        if not others:
            break
        for token, (why, told) in others.items():
            if told.get("state") != LOOKING or token < here.token or waited > PATIENCE:
                raise Differs(why, told)
        pause(PAUSE)
        waited += PAUSE
    here.tell(state=AT_WORK)


def difference(theirs: Any, mine: Mapping[str, Any], bids_dir: Path | None = None) -> str | None:
    """Return how the terms of another run differ from ours, or None if they agree.

    A run that corrects nothing, such as one with --reports-only, has no terms.
    """
    if not theirs:
        return None
    try:
        if theirs["version"] != mine["version"]:
            return f"version {theirs['version']}, here {mine['version']}"
        if theirs["settings"] != mine["settings"]:
            return differences(theirs["settings"], mine["settings"], "is")
        other, own = (_identity(each["source"]) for each in (theirs, mine))
        if not own.agrees(other):
            return f"its dataset is {other.name!r}, here {own.name!r}"
        image = source.why_other(theirs.get("images", {}), bids_dir) if bids_dir else None
        return image and f"its dataset has another {image}"
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        return f"its settings cannot be read ({type(error).__name__}: {error})"


def _identity(told: Mapping[str, Any]) -> Identity:
    return Identity(**{**told, "authors": tuple(told["authors"])})
