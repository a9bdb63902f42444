"""Refuses images or participants that would share outputs, on this or another file system."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from n4ax_bids.app.status import Refusal, Status

if TYPE_CHECKING:
    from n4ax_bids.app.job import Job


def require_distinct_labels(
    chosen: Iterable[str], known: Iterable[str], prefix: str = "sub-"
) -> None:
    """Refuse a participant or a session if the outputs of another one would replace its outputs.

    The other one need not be chosen: a later run may take it.
    """
    folded = defaultdict(list)
    for label in known:
        folded[folded_name(label)].append(label)
    for label in chosen:
        if len(same := folded[folded_name(label)]) > 1:
            raise Refusal(
                Status.INVALID_INPUT, _differ_in_case(*(f"{prefix}{s}" for s in same[:2]))
            )


def require_distinct(jobs: Sequence[Job]) -> None:
    """Refuse two images that would share an output, or a folder on some file systems.

    To file systems of macOS and Windows, names that differ only in case or in the Unicode form of
    their characters are the same, and BIDS forbids such names. This applies to participants too,
    because their pages are named after them.
    """
    seen: dict[Path, Job] = {}
    spellings: dict[str, tuple[str, Job]] = {}
    for job in jobs:
        other = seen.setdefault(job.outputs.corrected, job)
        if other is not job:
            raise Refusal(
                Status.INVALID_INPUT,
                f"{other.relative} and {job.relative} would share the output "
                f"{job.outputs.corrected.name}; remove one of them",
            )
        relative = PurePath(job.relative)
        for path in (relative.parent / job.outputs.stem, *relative.parents):
            name = path.as_posix()
            spelling, other = spellings.setdefault(folded_name(name), (name, job))
            if spelling != name:
                why = _differ_in_case(spelling, name)
                raise Refusal(Status.INVALID_INPUT, f"{other.relative} and {job.relative}: {why}")


def require_distinct_from(jobs: Sequence[Job], images: Iterable[str]) -> None:
    """Refuse an image if an image that is left out would replace its outputs in a later run.

    Parameters
    ----------
    jobs : images that are taken
    images : all images with the same suffixes, as paths in the dataset
    """
    taken = {folded_name(name): name for name in (_stem(job.relative) for job in jobs)}
    for image in images:
        name = _stem(image)
        if (other := taken.get(folded_name(name), name)) != name:
            raise Refusal(Status.INVALID_INPUT, _differ_in_case(other, name))


def _stem(image: str) -> str:
    """Return the path of an image without its extension."""
    path = PurePath(image)
    return path.with_name(path.name.split(".")[0]).as_posix()


def _differ_in_case(one: str, two: str) -> str:
    return (
        f"{one} and {two} differ only in case or in the form of their characters, and would share "
        "outputs on file systems that see no difference; rename one of them"
    )


def folded_name(name: str) -> str:
    """Return a name as a file system sees it that ignores case and Unicode forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
