"""Where a dataset's anatomical images may lie, and why what lies elsewhere is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from n4ax_bids.app.request import Request

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


def misnamed(parent: Path, prefix: str) -> list[Path]:
    """Return the folders whose name begins as a participant's or session's but has no label."""
    return sorted(
        path
        for path in parent.glob(f"{prefix}*")
        if not re.fullmatch(prefix + LABEL, path.name) and path.is_dir()
    )


NO_LABEL = (
    "the name is not sub-LABEL or ses-LABEL, where a label has letters, digits and + only; "
    "rename the folder if its images are to be corrected"
)


BELOW = "not directly in anat"


def unindexed(request: Request, subjects: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield what looks like data of a participant but lies where BIDS has none, and why.

    Folders are told as a whole if their name is wrong; images below `anat` one by one.
    """
    root = request.bids_dir
    wrong = [] if request.participants else misnamed(root, "sub-")
    for subject in subjects:
        wrong += misnamed(subject, "ses-")
        sessions = folders(subject, "ses-")
        chosen = [sessions[label] for label in request.sessions or sessions if label in sessions]
        for anat in (place / "anat" for place in (subject, *chosen)):
            for image in _images_below(anat):
                yield image.relative_to(root).as_posix(), BELOW
    for folder in wrong:
        yield folder.relative_to(root).as_posix(), NO_LABEL


def _images_below(anat: Path) -> Iterator[Path]:
    """Yield the images in subfolders of `anat`; links to folders are not followed."""
    try:
        inside = [entry.path for entry in os.scandir(anat) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # there is no such folder, or it cannot be read, which the index will say
        return
    for start in sorted(inside):
        for folder, _, names in os.walk(start):
            for name in sorted(names):
                if name.endswith((".nii", ".nii.gz")) and not name.startswith("."):
                    yield Path(folder, name)


def misplaced(image: Any) -> str | None:
    """Return why an image does not belong where it is, by the folders' names and its own."""
    *above, name = Path(image.relpath).parts
    for kind in ("sub", "ses"):
        own = re.match(rf"(?:.*_)?{kind}-({LABEL})_", name)
        place = next((each for each in above if each.startswith(f"{kind}-")), None)
        if own and place and place != f"{kind}-{own[1]}":
            return f"its name says {kind}-{own[1]}, but it lies in the folder {place}"
    return None
