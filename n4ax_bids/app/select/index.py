"""The names of a dataset's anatomical files, by pybids; kept in a database where one is wanted."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n4ax_bids.app.select.folders import LABEL, folders
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import UNFIT
from n4ax_bids.io.text import read_bytes

log = logging.getLogger("n4ax_bids")

_NAME = rf"[^/.{UNFIT}][^/{UNFIT}]*"
_ANATOMY = "|".join(
    [
        rf"sub-{LABEL}",
        rf"sub-{LABEL}/(ses-{LABEL}|anat)",
        rf"sub-{LABEL}/ses-{LABEL}/anat",
        rf"(sub-{LABEL}/(ses-{LABEL}/)?)?(?=[^/]*\.json\Z){_NAME}",  # inherited sidecars
        rf"sub-{LABEL}/(ses-{LABEL}/)?anat/{_NAME}",
    ]
)
"""The folders and files that are indexed; hidden files, which macOS leaves on disks, are
not, and neither are names that nothing can hold or show."""


def index(
    root: Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    database_dir: Path | None = None,
    make: bool = True,
) -> Any:
    """Return a pybids layout of the anatomical folders, names only.

    In memory it holds the chosen participants and sessions alone. A database in a folder holds
    all of them, serves later runs, and is made anew when a file has come or gone, or when the
    dataset has another description.

    Parameters
    ----------
    root : of the dataset
    participants, sessions : labels; none means all
    database_dir : folder for databases
    make : make a database where there is none; else the index is in memory then
    """
    if database_dir is None:
        return _layout(root, participants, sessions)
    real, folder = root.resolve(), database_dir.resolve()
    around = (folder, *folder.parents)
    if real in around and real / "derivatives" not in around:
        raise Refusal(Status.USAGE, f"{database_dir}: lies inside the dataset that it indexes")
    place = database_dir / _name(root)
    try:
        if place.is_dir():
            _require_files(place)
            log.info("index: from %s", place)
        elif not make:
            return _layout(root, participants, sessions)
        else:
            _make_database(root, place)
    except OSError as error:
        raise Refusal(
            Status.CANNOT_WRITE, f"{database_dir}: cannot keep an index here: {error.strerror}"
        ) from error
    return _layout(root, database_path=place)


def _layout(
    root: Path, participants: Sequence[str] = (), sessions: Sequence[str] = (), **database: Any
) -> Any:
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignore = [re.compile(rf"^/(?!({_ANATOMY})\Z)")]
    for prefix, labels in (("^/sub-", participants), ("^/sub-[^/]+/ses-", sessions)):
        if labels:
            ignore.append(re.compile(f"{prefix}(?!({'|'.join(map(re.escape, labels))})(/|$))"))
    return BIDSLayout(
        root,
        validate=False,
        derivatives=False,
        config=["bids", "derivatives"],
        indexer=BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore),
        **database,
    )


def _require_files(place: Path) -> None:
    """Refuse a database that has a pipe or a device in it: reading one may never end."""
    for path in place.iterdir():
        if not path.is_file():
            raise Refusal(
                Status.USAGE,
                f"{path}: no regular file; expected one of an index (remove the folder {place}, "
                "and it is made anew)",
            )


def _make_database(root: Path, place: Path) -> None:
    """Index a dataset under another name, then give the folder its own: others may do the same."""
    log.info("index: made in %s", place)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    try:
        _layout(root, database_path=new)
        os.rename(new, place)
    except OSError:
        if not place.is_dir():  # no other process was faster
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _name(root: Path) -> str:
    """Return a name that is the same only for the same files in the same dataset.

    Times of folders would be cheaper by little, and say nothing of another dataset in the same
    place: archives keep them. An index holds names alone, so all that it would hold is compared,
    and the description, by which a dataset is told from another one as well.
    """
    from bids import __version__

    digest = hashlib.sha256("\n".join([__version__, _ANATOMY, str(root)]).encode())
    try:
        digest.update(read_bytes(root / "dataset_description.json"))
    except (OSError, ValueError):  # which is told elsewhere
        pass
    is_indexed = re.compile(rf"({_ANATOMY})\Z").match
    places = [root]
    for subject in folders(root, "sub-").values():
        for place in (subject, *folders(subject, "ses-").values()):
            places += [place, place / "anat"]
    for place in places:
        inside = "" if place == root else f"{place.relative_to(root).as_posix()}/"
        names = (f"{inside}{name}" for name in _names(place))
        digest.update(os.fsencode("\0".join(name for name in names if is_indexed(name)) + "\0\0"))
    return digest.hexdigest()[:32]


def _names(place: Path) -> list[str]:
    """Return the sorted names in a folder, with a slash behind folders."""
    try:
        with os.scandir(place) as entries:
            return sorted(
                f"{entry.name}{'/' * entry.is_dir(follow_symlinks=False)}" for entry in entries
            )
    except OSError:  # not there, or not to be read
        return []
