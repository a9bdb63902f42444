"""Reads the input of reports (records of images, errors, texts), and names the figures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import Job, page_of
from n4ax_bids.app.outputs import boilerplate, finished, provenance
from n4ax_bids.app.outputs.derivatives import NAME, require_inside
from n4ax_bids.app.reports.checked import is_record, is_sidecar
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.inheritance import require_of_dataset
from n4ax_bids.io.names import printable
from n4ax_bids.io.text import parse_json, read_bytes, read_json, read_text
from n4ax_bids.report.page import KEPT

log = logging.getLogger("n4ax_bids")

GENERATOR = f"{NAME} {__version__}"
FOLDER = "figures"
"""name of a participant's folder of figures; also a line of `.bidsignore`"""
ENDINGS = {
    "before": ".webp",
    "after": ".webp",
    "field": ".webp",
    "curves": ".svg",
    "record": ".json",
}
"""extensions of an image's figures by their labels; the record with the numbers comes last"""
LARGEST_TABLE = 2**30
"""most bytes of a participants.tsv: a study of 100,000 people may have many columns"""
CRASH, NO_FIGURES = "crash-", "report-"
"""beginnings of names in `logs`, for an image that failed and for one without figures"""


@dataclass(frozen=True)
class Contents:
    """The input of a participant's page."""

    records: tuple[dict[str, Any], ...]
    sidecars: tuple[dict[str, Any], ...]
    """sidecars of the corrected images, one for each record"""
    failed: tuple[tuple[str, str, str, str], ...]
    """(name, reason, whole text, page) of each image that failed"""
    skipped: tuple[tuple[str, str], ...]
    """(file, reason) of each image that was left out"""
    participant: tuple[tuple[str, str], ...]
    """(column, value) of the participant's line in participants.tsv"""
    methods: str
    applied: tuple[tuple[str, str], ...] = ()
    """(file, what was done) of each image that got the field of another one"""
    neighbours: tuple[str, str] = ("", "")
    """names of the participants before and after this one; "" for none"""

    @property
    def digest(self) -> str:
        """Digest of this content and of the program's version."""
        text = json.dumps([GENERATOR, *vars(self).values()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def of_subject(subject: str, request: Request, everyone: Sequence[str] = ()) -> Contents:
    """Return the content for a participant, "sub-01", from the output folder.

    Parameters
    ----------
    subject : name of the page
    request : the run
    everyone : sorted names of all pages, of which the page links its neighbours
    """
    found = list(records(request.output_dir, escape(subject)))
    logs = request.output_dir / "logs"
    return Contents(
        records=tuple(record for record, _ in found),
        sidecars=tuple(sidecar for _, sidecar in found),
        failed=failures(request, subject),
        skipped=_skipped(logs / "skipped" / f"{subject}.tsv"),
        participant=_participant(subject, request),
        methods=_methods(request.output_dir, subject),
        applied=_applied(request.output_dir, subject),
        neighbours=beside(subject, everyone),
    )


def beside(subject: str, everyone: Sequence[str]) -> tuple[str, str]:
    """Return the names before and after a participant's among sorted names; "" for none."""
    before, after = bisect_left(everyone, subject), bisect_right(everyone, subject)
    return (
        everyone[before - 1] if before > 0 else "",
        everyone[after] if after < len(everyone) else "",
    )


def subject_of(job: Job) -> str:
    """Return the name of an image's participant, "sub-01"."""
    return page_of(job.relative)


def names(name: str, folder: Path) -> dict[str, Path]:
    """Return the paths of an image's figures and of its record, by their labels.

    Parameters
    ----------
    name : name of the image without extension
    folder : folder of the figures
    """
    entities, line, suffix = name.rpartition("_")
    return {
        label: folder / f"{entities}{line}desc-{label}_{suffix}{ending}"
        for label, ending in ENDINGS.items()
    }


def is_drawn(job: Job, output_dir: Path) -> bool:
    """Return whether all figures of an image exist and show its latest correction."""
    paths = names(job.name, output_dir / subject_of(job) / FOLDER)
    there = all(path.is_file() for path in paths.values())
    return there and bool(_matching(paths["record"], output_dir)[0])


def records(
    output_dir: Path, subject: str = "sub-*"
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield record and sidecar of each image, sorted by name.

    Images that have been corrected again or have failed since their record was made are left out,
    and so are images whose outputs are gone.
    """
    logs = output_dir / "logs"
    for path in sorted(output_dir.glob(f"{subject}/{FOLDER}/*desc-record_*.json")):
        if path.name.startswith("."):  # macOS leaves hidden files
            continue
        record, sidecar = _matching(path, output_dir)
        if record and not (logs / f"{CRASH}{record['image']}.txt").is_file():
            yield record, sidecar


def failures(request: Request, subject: str = "") -> tuple[tuple[str, str, str, str], ...]:
    """Return name, reason, text and page of images that failed or have no figures, from `logs`.

    Parameters
    ----------
    request : the run
    subject : only images of this participant or page; "" for all
    """
    found = []
    for start, what in ((CRASH, ""), (NO_FIGURES, "corrected, but without figures: ")):
        names = f"{subject or 'sub-*'}_*" if request.is_bids else "*"
        for path in sorted((request.output_dir / "logs").glob(f"{start}{names}.txt")):
            text, name = _text(path), path.stem.removeprefix(start)
            page = name.split("_")[0] if request.is_bids else _page_in(text, request)
            if text.strip() and subject in ("", page):
                last = text.strip().splitlines()[-1].replace(f"{printable(request.bids_dir)}/", "")
                kept = f"{KEPT}; " if KEPT in text.splitlines()[:3] else ""
                found.append((name, kept + what + last, text, page))
    return tuple(found)


def _page_in(text: str, request: Request) -> str:
    """Return the page of the image that the second line of a crash file names."""
    source = [*text.splitlines(), "", ""][1]
    return page_of(source.removeprefix(f"{printable(request.bids_dir)}/"))


def _matching(path: Path, output_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a record and its sidecar; both are empty if the sidecar has changed since."""
    try:
        record = read_json(path)
        if not is_record(record):
            return {}, {}
        sidecar = output_dir / record["sidecar"]
        text = read_bytes(sidecar)
        if hashlib.sha256(text).hexdigest() == record["sidecar_sha256"]:
            content = parse_json(sidecar, text)
            if is_sidecar(content) and _has_its_name(record, path):
                return record, content
    except (OSError, ValueError, LookupError, TypeError):  # a file is missing or not ours
        pass
    return {}, {}


def _has_its_name(record: Mapping[str, Any], path: Path) -> bool:
    page = path.parents[1].name
    return names(record["image"], path.parent)["record"] == path and page == page_of(
        record["source"]
    )


def _participant(subject: str, request: Request) -> tuple[tuple[str, str], ...]:
    """Return the columns of a participant's line in participants.tsv.

    A page shows them. So a table that is a link must point to where a sidecar of the participant's
    images may point.
    """
    path = request.bids_dir / "participants.tsv"
    if not request.is_bids:
        return ()
    try:
        rows = _participants(path, path.stat().st_mtime_ns)
    except OSError:  # there is no such table
        return ()
    if path.is_symlink():
        image = next(_images(request, subject), request.bids_dir / subject)
        try:
            require_of_dataset(path, image, image.relative_to(request.bids_dir).as_posix())
        except ValueError as error:
            _warn_once(str(error))
            return ()
    return rows.get(subject, ())


def _images(request: Request, subject: str) -> Iterator[Path]:
    """Yield images of a participant in the folders that the method reads."""
    for datatype in request.query.datatypes:
        for place in (datatype, f"ses-*/{datatype}"):
            yield from sorted((request.bids_dir / subject).glob(f"{place}/*"))


@lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    log.warning("%s", text)


@lru_cache(maxsize=1)
def _participants(path: Path, _: int) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Return the line of every participant; cached, so that an unreadable table is logged once."""
    try:
        text = read_text(path, what="a table", skip_mark=True, limit=LARGEST_TABLE)
        stream = io.StringIO(text, newline="")
        return {
            str(row.get("participant_id")): tuple((str(k), str(v)) for k, v in row.items())
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    except (OSError, ValueError) as error:
        log.warning("%s", error)
    except csv.Error as error:
        log.warning("%s: not readable as a table: %s", path, error)
    return {}


def _methods(output_dir: Path, subject: str) -> str:
    """Return the methods text for a participant's images, or "" if none was corrected."""
    found = provenance.ways(output_dir, subject)
    return boilerplate.markdown(found) if found else ""


def _applied(output_dir: Path, subject: str) -> tuple[tuple[str, str], ...]:
    """Return the images that got the field of another one, from their records."""
    found = []
    for path in sorted((output_dir / finished.FOLDER).glob(f"{escape(subject)}/**/*.json")):
        try:
            content = read_json(path)
            facts = content.get(finished.APPLIED)
            if facts:
                numbers = [int(facts[key]) for key in ("n_outside", "n_voxels", "n_volumes")]
                text = "{} of {} voxels lie outside its image; volumes: {}".format(*numbers)
                found.append((str(content["source"]), f"{facts['reference']}; {text}"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return tuple(found)


def _skipped(path: Path) -> tuple[tuple[str, str], ...]:
    lines = (line.partition("\t") for line in _text(path).splitlines()[1:])
    return tuple((name, reason) for name, _, reason in lines)


def _text(path: Path) -> str:
    """Return a text from `logs`, or "" if it is a link that leads out of the output folder.

    Otherwise a page would show a private file to everyone who may read the page.
    """
    try:
        require_inside(path.parents[1 if path.parent.name == "logs" else 2], [path], links=True)
        return read_text(path, replace=True)
    except (OSError, ValueError):  # it does not exist, or no longer exists
        return ""
