"""Makes the reports of a run: figures of each image, and a page for each participant."""

from __future__ import annotations

import logging
import re
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from n4ax_bids.app.job import Job, Selection
from n4ax_bids.app.machine import resources
from n4ax_bids.app.outputs.derivatives import publish, require_inside, write_text
from n4ax_bids.app.reports import contents
from n4ax_bids.app.reports.contents import FOLDER, GENERATOR, NO_FIGURES, subject_of
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.folders import LABEL
from n4ax_bids.app.status import Status
from n4ax_bids.io.names import printable, printable_lines
from n4ax_bids.io.text import opened
from n4ax_bids.methods import outputs_of

log = logging.getLogger("n4ax_bids")

LOOKS = 16
"""small files that are read at the same time; a shared file system takes milliseconds for each"""


class Pages:
    """The pages of a run; each is written when all images of its participant are done.

    Parameters
    ----------
    selection : all images of the run
    jobs : those of them that are to be corrected
    request : the run
    work : folder for unfinished files
    """

    def __init__(
        self, selection: Selection, jobs: Sequence[Job], request: Request, work: Path
    ) -> None:
        self._selection, self._request, self._work = selection, request, work
        self._left = Counter(map(subject_of, jobs))
        self._everyone = _everyone(selection, request)

    def tell(self, job: Job) -> None:
        """Note that an image is done, whether it succeeded or failed."""
        subject = subject_of(job)
        self._left[subject] -= 1
        if self._left[subject] == 0 and self._request.reports:
            _page_or_word(subject, self._request, self._everyone)

    def close(self) -> bool:
        """Draw missing figures and write the other pages; return whether all reports exist.

        A page stays as it is if its content would be the same.
        """
        request, jobs = self._request, self._selection.jobs
        if not request.reports:
            return True
        with ThreadPoolExecutor(LOOKS) as looking:
            late = [job for job in looking.map(partial(_if_late, request=request), jobs) if job]
        drawn = _images(late, request, self._work)
        pages = [
            _page_or_word(subject, request, self._everyone)
            for subject in subjects(self._selection, request)
        ]
        return all(drawn) and all(pages)


def again(selection: Selection, request: Request, work: Path) -> Status:
    """Make figures and pages of images that have been corrected already, without any solve.

    Parameters
    ----------
    selection : images; those that have not been corrected are logged and left out
    request : the run
    work : folder for unfinished files
    """
    jobs = selection.jobs
    there = [job for job in jobs if job.outputs.corrected.is_file()]
    for job in jobs:
        if job not in there:
            log.warning("%s: not corrected yet: nothing to report", job.name)
    drawn = _images(there, request, work)
    everyone = _everyone(selection, request)
    pages = [_page_or_word(subject, request, everyone) for subject in subjects(selection, request)]
    log.info("%d of %d images reported", sum(drawn), len(jobs))
    tell_pages(selection, request)
    return Status.OK if sum(drawn) == len(jobs) and all(pages) else Status.SOME_FAILED


class Drawn(NamedTuple):
    """The result of drawing an image's figures."""

    well: bool
    remarks: tuple[str, ...] = ()
    """the warnings on its page, without the notes of its correction"""


def tell_pages(selection: Selection, request: Request) -> None:
    """Log the paths of the pages of a run's participants."""
    paths = [request.output_dir / f"{subject}.html" for subject in subjects(selection, request)]
    there = [path for path in paths if path.is_file()]
    if len(there) == 1:
        log.info("report: %s", there[0])
    elif there:
        log.info("%d reports, the first is %s", len(there), there[0])


def image(job: Job, request: Request, work: Path) -> Drawn:
    """Draw an image's figures, unless --no-reports was given.

    If the figures cannot be drawn, the image still counts as corrected. The log and a file in
    `logs` say why.

    Parameters
    ----------
    job : an image whose outputs are in place
    request : the run
    work : folder for unfinished files
    """
    if not request.reports:
        return Drawn(True)
    from n4ax_bids.app.reports import image_report

    told = request.output_dir / "logs" / f"{NO_FIGURES}{job.name}.txt"
    try:
        with tempfile.TemporaryDirectory(prefix="report-", dir=work) as folder:
            made = contents.names(job.name, Path(folder))
            final = contents.names(job.name, request.output_dir / subject_of(job) / FOLDER)
            own = outputs_of(request.method)
            write = own.report if own else image_report.write
            remarks = write(job, request.output_dir, made, request.derivatives)
            require_inside(request.output_dir, final.values())
            publish((made[label], path) for label, path in final.items())
    except Exception as error:
        log.warning("%s: corrected, but without figures: %s", job.name, error)
        with suppress(OSError):  # the log says it already
            told.parent.mkdir(parents=True, exist_ok=True)
            text = printable_lines(traceback.format_exc(), request.bids_dir, request.output_dir)
            write_text(told, f"{GENERATOR}\n{printable(job.source)}\n\n{text}")
        return Drawn(False)
    told.unlink(missing_ok=True)  # from an earlier run
    return Drawn(True, remarks)


def subjects(selection: Selection, request: Request) -> list[str]:
    """Return the participants of a selection, including those without any image that is taken."""
    if not request.is_bids:
        return sorted(set(map(subject_of, selection.jobs)))
    left_out = (Path(name).parts[0] for name, _ in selection.skipped)
    named = (name for name in left_out if re.fullmatch(f"sub-{LABEL}", name))
    return sorted({*map(subject_of, selection.jobs), *named})


def _everyone(selection: Selection, request: Request) -> tuple[str, ...]:
    """Return the sorted names of the pages of a run, and of earlier runs into the same folder."""
    return with_earlier(subjects(selection, request), request)


def with_earlier(names: Iterable[str], request: Request) -> tuple[str, ...]:
    """Return names of pages and those of pages that are in the output folder, sorted."""
    there = request.output_dir.glob("sub-*.html") if request.is_bids else ()
    return tuple(sorted({*names, *(path.stem for path in there)}))


def relink(names: Sequence[str], request: Request) -> None:
    """Write the pages again whose links to their neighbours are out of date.

    Runs on one participant each, as on a cluster, do not know the participants of other runs.

    Parameters
    ----------
    names : sorted names of all pages
    request : the run
    """
    from n4ax_bids.report.page import beside_in_head

    for name in names:
        head = beside_in_head(contents.beside(name, names))
        if not _holds(request.output_dir / f"{name}.html", head):
            _page_or_word(name, request, names)


def page(subject: str, request: Request, everyone: Sequence[str] = ()) -> None:
    """Write the page of a participant from the content of the output folder.

    Several runs may work on one participant at the same time. Each one writes until the content
    stays unchanged, so the last one to write has seen everything.

    Parameters
    ----------
    subject : "sub-01"
    request : the run
    everyone : sorted names of all pages, of which the page links its neighbours
    """
    from n4ax_bids.report import page as pages

    path = request.output_dir / f"{subject}.html"
    found = contents.of_subject(subject, request, everyone)
    while not _holds(path, found.digest):
        shown = []
        for record, sidecar in zip(found.records, found.sidecars, strict=True):
            names = contents.names(record["image"], path.parent / subject / FOLDER)
            addresses = {label: pages.address(name, path) for label, name in names.items()}
            folder = (request.output_dir / record["sidecar"]).parent
            files = [(each, pages.address(folder / each, path)) for each in record["files"]]
            shown.append(pages.Image(record, sidecar, addresses, files))
        text = pages.html(
            subject,
            shown,
            failed=[pages.Failure(*each) for each in found.failed],
            skipped=found.skipped,
            applied=found.applied,
            participant=found.participant,
            methods=found.methods,
            generator=GENERATOR,
            digest=found.digest,
            neighbours=found.neighbours,
        )
        write_text(path, text)
        # Another run may have added something.
        found = contents.of_subject(subject, request, everyone)


def _images(jobs: Sequence[Job], request: Request, work: Path) -> list[bool]:
    """Draw the figures of images, several at a time."""
    n_threads = request.nprocs or request.omp_nthreads or resources.n_cores()
    with ThreadPoolExecutor(n_threads) as threads:
        drawn = list(threads.map(partial(image, request=request, work=work), jobs))
    for job, (_, remarks) in zip(jobs, drawn, strict=True):
        for remark in remarks:
            log.warning("%s: %s", job.name, remark)
    return [each.well for each in drawn]


def _if_late(job: Job, request: Request) -> Job | None:
    """Return the job if its image has been corrected but not drawn since, else None."""
    there = job.outputs.corrected.is_file()
    return job if there and not contents.is_drawn(job, request.output_dir) else None


def _page_or_word(subject: str, request: Request, everyone: Sequence[str]) -> bool:
    """Write a page; if that fails, log why and return False."""
    try:
        page(subject, request, everyone)
    except OSError as error:
        log.error("%s: no page: %s", subject, error)
        return False
    return True


def _holds(path: Path, text: str) -> bool:
    """Return whether a page has a text such as a digest at its beginning."""
    try:
        with opened(path, what="a page") as stream:
            return text.encode() in stream.read(2048)
    except (OSError, ValueError):  # it does not exist, or is no page
        return False
