"""The table and the page of all images in an output folder: the level `group`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from n4ax_bids.app.command.words import counted
from n4ax_bids.app.job import LATTICE, page_of
from n4ax_bids.app.outputs.derivatives import require_inside, write_text
from n4ax_bids.app.reports import contents
from n4ax_bids.app.reports.contents import GENERATOR
from n4ax_bids.app.reports.reports import relink, with_earlier
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import printable
from n4ax_bids.io.text import opened
from n4ax_bids.methods import METHODS

if TYPE_CHECKING:
    from n4ax_bids.report.measures import Measure
    from n4ax_bids.report.page import Failure

log = logging.getLogger("n4ax_bids")

PAGE, TABLE = "group.html", "group_bias.tsv"
OLD_TABLE = "group_n4.tsv"
"""name of the table in version 0.1"""
GONE = "corrected, input is gone"
"""status of an image whose input is no longer in the dataset"""


def write(request: Request) -> Status:
    """Write the table and the page of all images, or with --dry-run say what would be written.

    A table under the old name is removed, so that nobody reads numbers that are out of date.

    Raises
    ------
    Refusal
        If the output folder has no report of an image.
    """
    from n4ax_bids.report import group as pages
    from n4ax_bids.report.page import Failure

    output_dir, rows = request.output_dir, list(_rows(request))
    failed = [Failure(*each) for each in contents.failures(request)]
    if not rows and not failed:
        raise Refusal(
            Status.NO_IMAGES,
            f"{output_dir}: holds no report of an image; run the level participant first, or "
            "--reports-only where it has run without",
        )
    gathered = f"{counted(len(rows), 'image')} and {counted(len(failed), 'failure')}"
    old = _old_table(output_dir)
    if request.dry_run:
        print(f"{gathered} to gather; nothing was written")
        print(*(printable(f"-> {output_dir / name}") for name in (TABLE, PAGE)), sep="\n")
        if old:
            print(printable(f"removed: {old}"))
        return Status.OK
    table = pages.gather(rows, failed, _own_measures(rows))
    relink(_pages(rows, failed, request), request)
    write_text(output_dir / TABLE, pages.tsv(table))
    write_text(output_dir / PAGE, pages.html(table, generator=GENERATOR))
    if old:
        old.unlink(missing_ok=True)
        log.info("%s: removed, %s replaces it", old, TABLE)
    _warn(rows, request)
    log.info("%s: %s", gathered, output_dir / PAGE)
    return Status.OK


def _pages(
    rows: Sequence[Mapping[str, Any]], failed: Sequence[Failure], request: Request
) -> list[str]:
    """Return the sorted names of the pages of participants that are in the output folder."""
    known = {page_of(row["source"]) for row in rows} | {each.page for each in failed if each.page}
    names = with_earlier(known, request)
    return [name for name in names if (request.output_dir / f"{name}.html").is_file()]


def write_of_files(request: Request) -> None:
    """Write table and page at the end of a run of `n4ax-files`, which has no levels."""
    if not request.is_bids and any(_rows(request)):
        write(request)


def _rows(request: Request) -> Iterator[dict[str, Any]]:
    """Yield the record of each image, with the place on its page and its status."""
    whole = (request.bids_dir / "dataset_description.json").is_file()
    everything = "sub-*" if request.is_bids else "*"
    for record, _ in contents.records(request.output_dir, everything):
        page = f"{page_of(record['source'])}.html"
        row = {**record, "page": f"{quote(page)}#{quote(record['image'])}"}
        row.pop("status", None)  # it is decided here, whatever the record says
        if whole and not os.path.lexists(request.bids_dir / record["source"]):
            row["status"] = GONE
        yield row


def _warn(rows: Sequence[Mapping[str, Any]], request: Request) -> None:
    """Warn of images without a report, and of outputs whose input is gone."""
    names = f"sub-*/**/[!.]*_desc-{LATTICE}_*" if request.is_bids else f"**/[!.]*_{LATTICE}.*"
    lattices = request.output_dir.glob(names)
    n_lattices = sum(path.suffix != ".json" for path in lattices)
    if n_lattices > len(rows):
        lacking = counted(n_lattices - len(rows), "image")
        log.warning("no report of %s: --reports-only makes it", lacking)
    gone = [row["source"] for row in rows if row.get("status") == GONE]
    if gone:
        log.warning(
            "%s: no longer has the input of %s, %s among them; their outputs stay, and their "
            "status in %s says so",
            request.bids_dir,
            counted(len(gone), "image"),
            gone[0],
            TABLE,
        )


def _old_table(output_dir: Path) -> Path | None:
    """Return the table that version 0.1 wrote, or None if there is no such file.

    Another file of that name is not ours and stays: its first line is another one, or it is a link
    that leads out of the output folder.
    """
    from n4ax_bids.report.group import FIRST_COLUMNS

    path = output_dir / OLD_TABLE
    try:
        require_inside(output_dir, [path], links=True)
        with opened(path, what="a table") as file:
            columns = file.readline(1000).decode("utf-8", errors="replace").split("\t")
    except (OSError, ValueError):  # it does not exist, or is no file
        return None
    return path if columns[: len(FIRST_COLUMNS)] == list(FIRST_COLUMNS) else None


def _own_measures(rows: Sequence[Mapping[str, Any]]) -> tuple[Measure, ...]:
    """Return the measures of N4 and of every other method that corrected one of the images."""
    from n4ax_bids.report.measures import Measure

    names = dict.fromkeys(["n4", *(row.get("method", "n4") for row in rows)])
    found = [each for name in names if name in METHODS for each in METHODS[name].measures]
    return tuple(Measure(each.name, each.label, each.meaning) for each in found)
