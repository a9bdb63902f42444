"""pybids' index of the files of some datatypes, in memory or kept in a database."""

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


def _pattern(datatypes: Sequence[str]) -> str:
    """Return a pattern of the folders and files that are indexed.

    It matches neither hidden files, which macOS leaves on disks, nor names that JSON and tables
    cannot hold.
    """
    folder = f"({'|'.join(map(re.escape, datatypes))})"
    return "|".join(
        [
            rf"sub-{LABEL}",
            rf"sub-{LABEL}/(ses-{LABEL}|{folder})",
            rf"sub-{LABEL}/ses-{LABEL}/{folder}",
            rf"(sub-{LABEL}/(ses-{LABEL}/)?)?(?=[^/]*\.json\Z){_NAME}",  # inherited sidecars
            rf"sub-{LABEL}/(ses-{LABEL}/)?{folder}/{_NAME}",
        ]
    )


def index(
    root: Path,
    *,
    datatypes: Sequence[str] = ("anat",),
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    database_dir: Path | None = None,
    make: bool = True,
) -> Any:
    """Return a pybids layout of the folders of some datatypes, with names but no metadata.

    An index in memory holds only the chosen participants and sessions. A database holds all of
    them and serves later runs. It is made again if a file has been added or removed, or if the
    description of the dataset has changed.

    Parameters
    ----------
    root : folder of the dataset
    datatypes : names of the folders that are indexed, such as "anat"
    participants, sessions : labels; none means all
    database_dir : folder for databases
    make : whether to make a missing database; if not, the index is in memory
    """
    pattern = _pattern(datatypes)
    if database_dir is None:
        return _layout(root, pattern, participants, sessions)
    real, folder = root.resolve(), database_dir.resolve()
    around = (folder, *folder.parents)
    if real in around and real / "derivatives" not in around:
        raise Refusal(Status.USAGE, f"{database_dir}: lies inside the dataset that it indexes")
    place = database_dir / _name(root, pattern, datatypes)
    try:
        if place.is_dir():
            _require_files(place)
            log.info("index: from %s", place)
        elif not make:
            return _layout(root, pattern, participants, sessions)
        else:
            _make_database(root, pattern, place)
    except OSError as error:
        raise Refusal(
            Status.CANNOT_WRITE, f"{database_dir}: cannot keep an index here: {error.strerror}"
        ) from error
    return _layout(root, pattern, database_path=place)


def _layout(
    root: Path,
    pattern: str,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    **database: Any,
) -> Any:
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignore = [re.compile(rf"^/(?!({pattern})\Z)")]
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
    """Refuse a database with a pipe or a device in it: reading one may never end."""
    for path in place.iterdir():
        if not path.is_file():
            raise Refusal(
                Status.USAGE,
                f"{path}: not a regular file; expected a file of an index (remove the folder "
                f"{place}, and the next run makes it again)",
            )


def _make_database(root: Path, pattern: str, place: Path) -> None:
    """Index a dataset under a temporary name and then rename it; other runs may do the same."""
    log.info("index: made in %s", place)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    try:
        _layout(root, pattern, database_path=new)
        os.rename(new, place)
    except OSError:
        if not place.is_dir():  # if it is there, another process was faster
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _name(root: Path, pattern: str, datatypes: Sequence[str]) -> str:
    """Return a name for an index that is the same only for the same files in the same dataset.

    An index holds only names, so the digest covers every name that it would hold, and the
    dataset's description. The times of folders would be only a little cheaper, and they cannot
    distinguish another dataset at the same place, because archives keep them.
    """
    from bids import __version__

    digest = hashlib.sha256("\n".join([__version__, pattern, str(root)]).encode())
    try:
        digest.update(read_bytes(root / "dataset_description.json"))
    except (OSError, ValueError):  # `dataset.read_description` reports it
        pass
    is_indexed = re.compile(rf"({pattern})\Z").match
    places = [root]
    for subject in folders(root, "sub-").values():
        for place in (subject, *folders(subject, "ses-").values()):
            places += [place, *(place / datatype for datatype in datatypes)]
    for place in places:
        inside = "" if place == root else f"{place.relative_to(root).as_posix()}/"
        names = (f"{inside}{name}" for name in _names(place))
        digest.update(os.fsencode("\0".join(name for name in names if is_indexed(name)) + "\0\0"))
    return digest.hexdigest()[:32]


def _names(place: Path) -> list[str]:
    """Return the sorted names in a folder; those of folders end with a slash."""
    try:
        with os.scandir(place) as entries:
            return sorted(
                f"{entry.name}{'/' * entry.is_dir(follow_symlinks=False)}" for entry in entries
            )
    except OSError:  # it does not exist or cannot be read
        return []
