"""The pages of a run: gathers figures, numbers, faults and texts of a participant or of all."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.dataset import Job, Selection
from n4ax_bids.app.derivatives import LATTICE, NAME, write_text
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.atomic import replacing

log = logging.getLogger("n4ax_bids")

GENERATOR = f"{NAME} {__version__}"
FOLDER = "figures"
"""of a participant; a line of `.bidsignore`"""
ENDINGS = {
    "record": ".json",
    "before": ".webp",
    "after": ".webp",
    "field": ".webp",
    "curves": ".svg",
}
"""of an image's figures, by their labels; the record holds its numbers"""
GROUP, TABLE = "group.html", "group_n4.tsv"
CRASH, NO_FIGURES = "crash-", "report-"
"""how the names of files in `logs` begin: of an image that failed; of one without figures"""


class Pages:
    """The pages of a run: that of a participant is written when all of its images are done.

    Parameters
    ----------
    selection : all images of the run, those that are finished already among them
    request : the run
    """

    def __init__(self, selection: Selection, request: Request) -> None:
        self._jobs, self._request = selection.jobs, request
        self._subjects = subjects(selection)
        self._left = Counter(map(subject_of, selection.jobs))
        self._written: set[str] = set()
        self._failed: set[str] = set()

    def tell(self, job: Job) -> None:
        """Take note that an image is done, well or not."""
        subject = subject_of(job)
        self._left[subject] -= 1
        if self._left[subject] == 0:
            self._write(subject)

    def close(self) -> bool:
        """Draw what is not there yet and write the other pages; tell whether all went well."""
        request = self._request
        if not request.reports:
            return True
        late = [job for job in self._jobs if not _drawn(job, request.output_dir)]
        with ThreadPoolExecutor(request.nprocs or request.omp_nthreads) as threads:
            done = list(threads.map(lambda job: image(job, request), late))
        changed = {subject_of(job) for job in late}
        for subject in self._subjects:
            page = request.output_dir / f"{subject}.html"
            if subject not in self._written or subject in changed or not page.is_file():
                self._write(subject)
        return all(done) and not self._failed

    def _write(self, subject: str) -> None:
        if not self._request.reports:
            return
        try:
            page(subject, self._request)
        except OSError as error:
            log.error("%s: no page: %s", subject, error)
            self._failed.add(subject)
            return
        self._failed.discard(subject)
        self._written.add(subject)


def again(selection: Selection, request: Request) -> Status:
    """Make figures and pages of images that have been corrected already; nothing is solved.

    Parameters
    ----------
    selection : images; those that have not been corrected are told and left out
    request : the run
    """
    jobs = selection.jobs
    there = [job for job in jobs if job.outputs.corrected.is_file()]
    for job in jobs:
        if job not in there:
            log.warning("%s: not corrected yet: nothing to report", job.name)
    with ThreadPoolExecutor(request.nprocs or request.omp_nthreads) as threads:
        done = list(threads.map(lambda job: image(job, request), there))
    for subject in subjects(selection):
        page(subject, request)
    log.info("%d of %d images reported", sum(done), len(jobs))
    return Status.OK if sum(done) == len(jobs) else Status.SOME_FAILED


def image(job: Job, request: Request) -> bool:
    """Draw an image's figures, if that is wanted; tell whether it went well.

    A corrected image stays corrected where its figures cannot be drawn: the log says why, and so
    does a file in `logs`.
    """
    if not request.reports:
        return True
    from n4ax_bids.app import figures

    folder = request.output_dir / subject_of(job)
    told = request.output_dir / "logs" / f"{NO_FIGURES}{job.name}.txt"
    try:
        figures.write(job, names(job.name, folder), request.derivatives)
    except Exception as error:
        log.warning("%s: corrected, but without figures: %s", job.name, error)
        with suppress(OSError):  # the log has said it
            told.parent.mkdir(parents=True, exist_ok=True)
            write_text(told, f"{GENERATOR}\n{job.source}\n\n{traceback.format_exc()}")
        return False
    told.unlink(missing_ok=True)  # an earlier run's
    return True


def subjects(selection: Selection) -> list[str]:
    """Return the participants of a selection, also those of whom every image is left out."""
    left_out = (Path(name).parts[0] for name, _ in selection.skipped)
    return sorted({*map(subject_of, selection.jobs), *(s for s in left_out if s[:4] == "sub-")})


def subject_of(job: Job) -> str:
    """Return the name of an image's participant, "sub-01"."""
    return Path(job.relative).parts[0]


def names(name: str, folder: Path) -> dict[str, Path]:
    """Return the names of an image's figures and of its record.

    Parameters
    ----------
    name : of the image, without extension
    folder : of its participant
    """
    entities, _, suffix = name.rpartition("_")
    return {
        label: folder / FOLDER / f"{entities}_desc-{label}_{suffix}{ending}"
        for label, ending in ENDINGS.items()
    }


def page(subject: str, request: Request) -> Path:
    """Write the page of a participant from what there is in the output folder.

    Several runs may work on one participant at a time: who writes last has seen everything.

    Parameters
    ----------
    subject : "sub-01"
    request : the run
    """
    from n4ax_bids.report import page as pages

    output_dir, bids_dir = request.output_dir, request.bids_dir
    path = output_dir / f"{subject}.html"
    while True:
        seen = _state(subject, output_dir)
        with replacing(path) as part:
            pages.write(
                part,
                subject,
                [
                    _shown(record, sidecar, path)
                    for record, sidecar in records(output_dir, subject)
                ],
                failed=failures(request, subject),
                skipped=_rows(output_dir / "logs" / "skipped" / f"{subject}.tsv"),
                participant=_participant(subject, bids_dir),
                methods=_text(output_dir / "logs" / "CITATION.md"),
                generator=GENERATOR,
            )
        if _state(subject, output_dir) == seen:
            return path


def group(request: Request) -> Status:
    """Write the table and the page of all images in an output folder.

    Raises
    ------
    Refusal
        If there is nothing to gather.
    """
    from n4ax_bids.report import group as pages

    output_dir = request.output_dir
    rows = [_row(record) for record, _ in records(output_dir)]
    failed = failures(request)
    if not rows and not failed:
        raise Refusal(
            Status.NO_IMAGES,
            f"{output_dir}: holds no report of an image; run the level participant first, or "
            "--reports-only where it has run without",
        )
    table = pages.gather(rows, failed)
    write_text(output_dir / TABLE, pages.tsv(table))
    write_text(output_dir / GROUP, pages.html(table, generator=GENERATOR))
    n_lattices = sum(1 for _ in output_dir.glob(f"sub-*/**/*_desc-{LATTICE}_*.nii.gz"))
    if n_lattices > len(rows):
        log.warning("%d images have no report: --reports-only makes it", n_lattices - len(rows))
    log.info("%d images and %d failures: %s", len(rows), len(failed), output_dir / GROUP)
    return Status.OK


def records(output_dir: Path, subject: str = "sub-*") -> Iterator[tuple[dict, dict]]:
    """Yield record and sidecar of images in the order of their names.

    Left out are those that have been corrected anew since, or are gone.
    """
    for path in sorted(output_dir.glob(f"{subject}/{FOLDER}/*_desc-record_*.json")):
        record, sidecar = _matching(path)
        if record:
            yield record, sidecar


def failures(request: Request, subject: str = "sub-*") -> list[Any]:
    """Return the images that failed, and those without figures, from the files in `logs`."""
    from n4ax_bids.report.page import Failure

    found = []
    for start, what in ((CRASH, ""), (NO_FIGURES, "corrected, but without figures: ")):
        for path in sorted((request.output_dir / "logs").glob(f"{start}{subject}_*.txt")):
            text = _text(path)
            if text.strip():
                last = text.strip().splitlines()[-1].replace(f"{request.bids_dir}/", "")
                found.append(Failure(path.stem.removeprefix(start), what + last, text))
    return found


def _drawn(job: Job, output_dir: Path) -> bool:
    """Tell whether an image has figures of its latest correction, or is not to have any."""
    record = names(job.name, output_dir / subject_of(job))["record"]
    return not job.outputs.corrected.is_file() or bool(_matching(record)[0])


def _matching(path: Path) -> tuple[dict, dict]:
    """Return a record and the sidecar that it was made of; nothing where that has changed."""
    try:
        record = json.loads(path.read_bytes())
        text = (path.parent / record["sidecar"]).read_bytes()
        if hashlib.sha256(text).hexdigest() == record["sidecar_sha256"]:
            return record, json.loads(text)
    except (OSError, ValueError, LookupError, TypeError):  # not there, or not ours
        pass
    return {}, {}


def _state(subject: str, output_dir: Path) -> list[tuple[str, int]]:
    """Return what a page depends on that other runs may change meanwhile."""
    patterns = (
        f"{subject}/{FOLDER}/*_desc-record_*.json",
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


def _shown(record: Mapping[str, Any], sidecar: Mapping[str, Any], path: Path) -> Any:
    from n4ax_bids.report.page import Image, address

    found = names(record["image"], path.parent / Path(record["source"]).parts[0])
    return Image(record, sidecar, {label: address(name, path) for label, name in found.items()})


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
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
