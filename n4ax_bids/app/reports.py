"""The pages of a run: gathers figures, numbers, faults and texts of a participant or of all."""

from __future__ import annotations

import csv
import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app import figures
from n4ax_bids.app.dataset import Job
from n4ax_bids.app.derivatives import NAME, write_text
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.atomic import replacing

log = logging.getLogger("n4ax_bids")

GENERATOR = f"{NAME} {__version__}"
GROUP = "group"
"""name of the page of all images; the table is group_n4.tsv"""
CRASH, NO_FIGURES = "crash-", "report-"
"""how the names of files in `logs` begin: of an image that failed; of one without figures"""


def image(job: Job, output_dir: Path, derivatives: Mapping[str, Path]) -> bool:
    """Draw an image's figures; tell whether that went well.

    A corrected image stays corrected where its figures cannot be drawn: the log says why, and so
    does a file in `logs`.
    """
    told = output_dir / "logs" / f"{NO_FIGURES}{job.name}.txt"
    try:
        figures.write(job, output_dir, derivatives)
    except Exception as error:
        log.warning("%s: corrected, but without figures: %s", job.name, error)
        told.parent.mkdir(parents=True, exist_ok=True)
        write_text(told, f"{GENERATOR}\n{job.source}\n\n{traceback.format_exc()}")
        return False
    told.unlink(missing_ok=True)  # an earlier run's
    return True


def again(
    jobs: Iterable[Job], bids_dir: Path, output_dir: Path, derivatives: Mapping[str, Path], n: int
) -> Status:
    """Make figures and pages of images that have been corrected already; nothing is solved.

    Parameters
    ----------
    jobs : images; those that have not been corrected are told and left out
    bids_dir, output_dir, derivatives : as `image` and `pages`
    n : images at a time
    """
    jobs = list(jobs)
    there = [job for job in jobs if job.outputs.corrected.is_file()]
    for job in jobs:
        if job not in there:
            log.warning("%s: not corrected yet: nothing to report", job.name)
    with ThreadPoolExecutor(n) as threads:
        done = list(threads.map(lambda job: image(job, output_dir, derivatives), there))
    for subject in subjects(jobs):
        page(subject, bids_dir, output_dir)
    log.info("%d of %d images reported", sum(done), len(jobs))
    return Status.OK if sum(done) == len(jobs) else Status.SOME_FAILED


def subjects(jobs: Iterable[Job]) -> list[str]:
    """Return the names of the jobs' participants, "sub-01", each once."""
    return list(dict.fromkeys(Path(job.relative).parts[0] for job in jobs))


def page(subject: str, bids_dir: Path, output_dir: Path) -> Path:
    """Write the page of a participant from what there is in the output folder.

    Several runs may work on one participant at a time: who writes last has seen everything.

    Parameters
    ----------
    subject : "sub-01"
    bids_dir, output_dir : roots of the datasets
    """
    from n4ax_bids.report import page as pages

    path = output_dir / f"{subject}.html"
    while True:
        seen = _state(subject, output_dir)
        with replacing(path) as part:
            pages.write(
                part,
                subject,
                [_shown(record, output_dir, path) for record in records(output_dir, subject)],
                failed=failures(output_dir, subject),
                skipped=_rows(output_dir / "logs" / "skipped" / f"{subject}.tsv"),
                participant=_participant(subject, bids_dir),
                methods=_text(output_dir / "logs" / "CITATION.md"),
                generator=GENERATOR,
            )
        if _state(subject, output_dir) == seen:
            return path


def group(output_dir: Path) -> Status:
    """Write the table and the page of all images in an output folder.

    Raises
    ------
    Refusal
        If there is nothing to gather.
    """
    from n4ax_bids.report import group as pages

    rows = [_row(record, output_dir) for record in records(output_dir)]
    failed = failures(output_dir)
    if not rows and not failed:
        raise Refusal(
            Status.NO_IMAGES,
            f"{output_dir}: holds no corrected image; run the level participant first",
        )
    table = pages.gather(rows, failed)
    write_text(output_dir / f"{GROUP}_n4.tsv", pages.tsv(table))
    write_text(output_dir / f"{GROUP}.html", pages.html(table, generator=GENERATOR))
    log.info("%d images and %d failures in %s", len(rows), len(failed), output_dir / "group.html")
    return Status.OK


def records(output_dir: Path, subject: str = "sub-*") -> Iterator[dict[str, Any]]:
    """Yield the records of images in the order of their names, where the image is still there."""
    pattern = f"{subject}/{figures.FOLDER}/*_desc-{figures.RECORD}_*.json"
    for path in sorted(output_dir.glob(pattern)):
        record = _json(path)
        if record and (output_dir / str(record.get("sidecar"))).is_file():
            yield record


def failures(output_dir: Path, subject: str = "sub-*") -> list[Any]:
    """Return the images that failed, and those without figures, from the files in `logs`."""
    from n4ax_bids.report.page import Failure

    found = []
    for start, what in ((CRASH, ""), (NO_FIGURES, "corrected, but without figures: ")):
        for path in sorted((output_dir / "logs").glob(f"{start}{subject}_*.txt")):
            text = _text(path)
            if text:
                last = text.strip().splitlines()[-1]
                found.append(Failure(path.stem.removeprefix(start), what + last, text))
    return found


def _state(subject: str, output_dir: Path) -> list[tuple[str, int]]:
    """Return what a page depends on that other runs may change meanwhile."""
    patterns = (
        f"{subject}/{figures.FOLDER}/*_desc-{figures.RECORD}_*.json",
        f"logs/{CRASH}{subject}_*.txt",
        f"logs/{NO_FIGURES}{subject}_*.txt",
    )
    found = []
    for path in (path for pattern in patterns for path in output_dir.glob(pattern)):
        try:
            found.append((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return sorted(found)


def _shown(record: Mapping[str, Any], output_dir: Path, path: Path) -> Any:
    from n4ax_bids.report.page import Image, address

    folder = output_dir / Path(record["source"]).parts[0]
    names = figures.paths(record["image"], folder)
    sidecar = _json(output_dir / record["sidecar"])
    return Image(record, sidecar, {label: address(name, path) for label, name in names.items()})


def _row(record: Mapping[str, Any], output_dir: Path) -> dict[str, Any]:
    subject = Path(record["source"]).parts[0]
    return dict(record) | {"page": f"{subject}.html#{record['image']}"}


def _participant(subject: str, bids_dir: Path) -> list[tuple[str, str]]:
    """Return the columns of a participant's line."""
    path = bids_dir / "participants.tsv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row.get("participant_id") == subject:
                    return [(str(key), str(value)) for key, value in row.items()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s: not readable: %s", path, error)
    return []


def _rows(path: Path) -> list[tuple[str, str]]:
    lines = (line.split("\t") for line in _text(path).splitlines()[1:])
    return [(cells[0], " ".join(cells[1:])) for cells in lines]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, or no longer
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
