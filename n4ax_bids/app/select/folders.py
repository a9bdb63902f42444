"""Where a dataset's anatomical images may lie, and why what lies elsewhere is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from n4ax_bids.app.request import Request
from n4ax_bids.io.names import printable, why_unfit

LABEL = "[0-9a-zA-Z+]+"
"""what BIDS takes as the label of a participant or a session"""


def folders(parent: Path, prefix: str) -> dict[str, Path]:
    """Return the folders `<prefix><label>` right below a folder, by their labels.

    Parameters
    ----------
    parent : root of a dataset, or folder of a participant
    prefix : "sub-" or "ses-"
    """
    found = sorted(path for path in parent.glob(f"{prefix}*") if path.is_dir())
    return {
        path.name.removeprefix(prefix): path
        for path in found
        if re.fullmatch(prefix + LABEL, path.name)
    }


NO_LABEL = (
    "the name is not sub-LABEL or ses-LABEL, where a label has letters, digits and + only; "
    "rename the folder if its images are to be corrected"
)
UNKNOWN = "a folder that BIDS does not have here; images are read from anat"
OUTSIDE = "not in a folder anat"
BELOW = "not directly in anat"
NO_FILE = "a folder, not a file"
REASONS = (NO_LABEL, UNKNOWN, OUTSIDE, BELOW, NO_FILE)
"""Why something that looks like an image of a participant is not read, by its place alone."""

_IMAGES = (".nii", ".nii.gz")


def unindexed(
    request: Request, subjects: Iterable[Path], datatypes: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield what looks like data of a participant but lies where BIDS has none, and why.

    Folders whose name is wrong are told as a whole, images one by one.

    Parameters
    ----------
    request : the run
    subjects : folders of the chosen participants
    datatypes : names of folders that BIDS has in a participant's or a session's folder
    """
    found = [] if request.participants else list(_at_root(request.bids_dir))
    for subject in subjects:
        sessions = folders(subject, "ses-")
        chosen = [sessions[label] for label in request.sessions or sessions if label in sessions]
        found += _inside(subject, {*datatypes, *(each.name for each in sessions.values())})
        for place in (subject, *chosen):
            if place != subject:
                found += _inside(place, datatypes)
            found += _in_anat(place / "anat")
    for path, reason in found:
        yield path.relative_to(request.bids_dir).as_posix(), reason


def _at_root(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield folders and images at the root whose name begins like a participant's."""
    for entry in _entries(root):
        if not entry.name.lower().startswith("sub-"):
            continue
        if entry.name.endswith(_IMAGES) and not entry.is_dir():
            yield Path(entry.path), OUTSIDE
        elif entry.is_dir() and not re.fullmatch(f"sub-{LABEL}", entry.name):
            yield Path(entry.path), NO_LABEL


def _inside(place: Path, known: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield images in a participant's or session's folder itself, and folders not known there."""
    for entry in _entries(place):
        if entry.name.endswith(_IMAGES) and not entry.is_dir():
            yield Path(entry.path), OUTSIDE
        elif entry.is_dir() and entry.name not in known:
            misnamed = entry.name.lower().startswith("ses-") and "sub-" in place.name
            yield Path(entry.path), NO_LABEL if misnamed else UNKNOWN


def _in_anat(anat: Path) -> Iterator[tuple[Path, str]]:
    """Yield files with names that are not indexed, and the images in subfolders of `anat`.

    Links to folders are not followed.
    """
    for entry in _entries(anat):
        if not entry.is_dir(follow_symlinks=False):
            why = why_unfit(entry.name)
            if why and entry.name.endswith((*_IMAGES, ".json")):
                yield Path(entry.path), why
            continue
        if entry.name.endswith(_IMAGES):
            yield Path(entry.path), NO_FILE
            continue
        for folder, inner, names in os.walk(entry.path):
            inner.sort()
            for name in sorted(names):
                if name.endswith(_IMAGES) and not name.startswith("."):
                    yield Path(folder, name), BELOW


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder in the order of the names, hidden files left out."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:  # there is no such folder, or the index will say that it cannot be read
        return []


def misplaced(image: Any) -> str | None:
    """Return why an image does not belong where it is, by the folders' names and its own."""
    *above, name = Path(image.relpath).parts
    parts = name.split(".")[0].split("_")[:-1]
    for kind in ("sub", "ses"):
        place = next((each for each in above if each.startswith(f"{kind}-")), None)
        # Whatever begins like the entity counts, so that no odd label hides whose image it is.
        others = [part for part in parts if part.lower().startswith(kind) and part != place]
        if place and others:
            return f"its name says {printable(others[0])}, but it lies in the folder {place}"
    if parts[:1] != above[:1]:
        return f"its name does not begin with {above[0]}_, the participant of its folder"
    if any(each.startswith("ses-") for each in above) and not re.search(r"_ses-", name):
        return _doubled(Path(image.path), len(above))
    return None


def _doubled(image: Path, n_above: int) -> str | None:
    """Return why an image without a session in its name is one that lies elsewhere as well.

    A link to a folder of the same dataset gives its images a second name, and a link to a folder
    above it any number of them.
    """
    root = os.path.realpath(image.parents[n_above])
    for folder in image.parents[: n_above - 1]:
        real = os.path.realpath(folder) if folder.is_symlink() else ""
        if real.startswith(os.path.join(root, "sub-")):
            return f"the folder {folder.name} is a link to {os.path.relpath(real, root)}"
    return None
