"""Where the images of a dataset may lie, and why images in other places are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from n4ax_bids.app.request import Request
from n4ax_bids.io.names import printable, why_unfit
from n4ax_bids.io.trees import is_image

LABEL = "[0-9a-zA-Z+]+"
"""what BIDS allows as the label of a participant or a session"""


def folders(parent: Path, prefix: str) -> dict[str, Path]:
    """Return the folders `<prefix><label>` directly in a folder, by their labels.

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
UNKNOWN = "a folder that BIDS does not have here; images are read from {}"
OUTSIDE = "not in a folder {}"
BELOW = "not directly in {}"
NO_FILE = "a folder, not a file"

_IMAGES = (".nii", ".nii.gz", *(".ome" + each for each in (".tif", ".btf", ".zarr")))


def unindexed(
    request: Request, subjects: Iterable[Path], known: Collection[str], datatypes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield what looks like data of a participant but lies where the run does not read, and why.

    A folder with a wrong name is one entry; images are listed one by one.

    Parameters
    ----------
    request : the run
    subjects : folders of the chosen participants
    known : names of the folders that BIDS has in the folder of a participant or a session
    datatypes : those of them that the run reads, such as "anat"
    """
    read = " or ".join(datatypes)
    found = [] if request.participants else list(_at_root(request.bids_dir, read))
    for subject in subjects:
        sessions = folders(subject, "ses-")
        chosen = [sessions[label] for label in request.sessions or sessions if label in sessions]
        found += _inside(subject, {*known, *(each.name for each in sessions.values())}, read)
        for place in (subject, *chosen):
            if place != subject:
                found += _inside(place, known, read)
            for datatype in datatypes:
                found += _in_datatype(place / datatype)
    for path, reason in found:
        yield path.relative_to(request.bids_dir).as_posix(), reason


def _at_root(root: Path, read: str) -> Iterator[tuple[Path, str]]:
    """Yield folders and images at the root whose name begins like a participant's."""
    for entry in _entries(root):
        if not entry.name.lower().startswith("sub-"):
            continue
        if entry.name.endswith(_IMAGES) and not entry.is_dir():
            yield Path(entry.path), OUTSIDE.format(read)
        elif entry.is_dir() and not re.fullmatch(f"sub-{LABEL}", entry.name):
            yield Path(entry.path), NO_LABEL


def _inside(place: Path, known: Collection[str], read: str) -> Iterator[tuple[Path, str]]:
    """Yield images directly in the folder of a participant or session, and unknown folders."""
    for entry in _entries(place):
        if entry.name.endswith(_IMAGES) and not entry.is_dir():
            yield Path(entry.path), OUTSIDE.format(read)
        elif entry.is_dir() and entry.name not in known:
            misnamed = entry.name.lower().startswith("ses-") and "sub-" in place.name
            yield Path(entry.path), NO_LABEL if misnamed else UNKNOWN.format(read)


def _in_datatype(place: Path) -> Iterator[tuple[Path, str]]:
    """Yield files with names that are not indexed, and images in subfolders, such as of `anat`.

    Links to folders are not followed.
    """
    for entry in _entries(place):
        if not entry.is_dir(follow_symlinks=False):
            why = why_unfit(entry.name)
            if why and entry.name.endswith((*_IMAGES, ".json")):
                yield Path(entry.path), why
            continue
        if is_image(entry.name):  # the index has it
            continue
        if entry.name.endswith(_IMAGES):
            yield Path(entry.path), NO_FILE
            continue
        for folder, inner, names in os.walk(entry.path):
            inner[:] = sorted(name for name in inner if not is_image(name))
            for name in sorted(names):
                if name.endswith(_IMAGES) and not name.startswith("."):
                    yield Path(folder, name), BELOW.format(place.name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the content of a folder, sorted by name, without hidden files."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:  # there is no such folder, or the index will say that it cannot be read
        return []


def misplaced(image: Any) -> str | None:
    """Return why an image does not belong in its folder, if its name and the folder's disagree."""
    *above, name = Path(image.relpath).parts
    parts = name.split(".")[0].split("_")[:-1]
    for kind in ("sub", "ses"):
        place = next((each for each in above if each.startswith(f"{kind}-")), None)
        # Everything that begins like the entity counts, so that an odd label cannot hide whose
        # image it is.
        others = [part for part in parts if part.lower().startswith(kind) and part != place]
        if place and others:
            return f"its name says {printable(others[0])}, but it lies in the folder {place}"
    if parts[:1] != above[:1]:
        return f"its name does not begin with {above[0]}_, the participant of its folder"
    if any(each.startswith("ses-") for each in above) and not re.search(r"_ses-", name):
        return _doubled(Path(image.path), len(above))
    return None


def _doubled(image: Path, n_above: int) -> str | None:
    """Return why an image without a session in its name is another name of an image.

    A link to a folder of the same dataset gives its images a second name. A link to a folder above
    itself gives them any number of names.
    """
    root = os.path.realpath(image.parents[n_above])
    for folder in image.parents[: n_above - 1]:
        real = os.path.realpath(folder) if folder.is_symlink() else ""
        if real.startswith(os.path.join(root, "sub-")):
            return f"the folder {folder.name} is a link to {os.path.relpath(real, root)}"
    return None
