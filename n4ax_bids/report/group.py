"""All images of a dataset: a table, and a page with distributions as in MRIQC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from n4ax_bids.report import measures, templates
from n4ax_bids.report.distribution import Point, strips
from n4ax_bids.report.measures import COMMON, Box, Measure
from n4ax_bids.report.page import KEPT, Failure

CORRECTED = "corrected"

FIRST_COLUMNS = ("bids_name", "suffix", "status")
"""the table is recognised by them"""


@dataclass(frozen=True)
class Row:
    """One image."""

    name: str
    suffix: str
    page: str
    """address of its section on the participant's page"""
    values: Mapping[str, float | None]
    status: str
    n_warnings: int
    outliers: tuple[str, ...]
    """measures that are outliers among the images of the same suffix"""


@dataclass(frozen=True)
class Table:
    """All images, and the box of each measure and suffix."""

    rows: Sequence[Row]
    failed: Sequence[Failure]
    boxes: Mapping[tuple[str, str], Box | None]
    """(suffix, measure) → box"""
    measures: Sequence[Measure]
    """the columns"""


def gather(
    records: Iterable[Mapping[str, Any]],
    failed: Sequence[Failure],
    own: Sequence[Measure] = (),
) -> Table:
    """Build the table and find outliers.

    Parameters
    ----------
    records : for each image: image, suffix, page, measures, warnings, and status unless that is
        just "corrected"
    failed : images that could not be corrected
    own : measures of the methods, in addition to those of every image
    """
    records, columns = list(records), (*COMMON, *own)
    names = [measure.name for measure in columns]
    values = [
        {name: measures.number(record["measures"], name) for name in names} for record in records
    ]
    by_kind: dict[tuple[str, str], list[float]] = {}
    for record, numbers in zip(records, values, strict=True):
        for name, value in numbers.items():
            if value is not None:
                by_kind.setdefault((record["suffix"], name), []).append(value)
    boxes = {kind: measures.box(found) for kind, found in by_kind.items()}
    rows = [
        Row(
            record["image"],
            record["suffix"],
            record["page"],
            numbers,
            record.get("status", CORRECTED),
            len(record["warnings"]),
            tuple(_outliers(numbers, record["suffix"], boxes)),
        )
        for record, numbers in zip(records, values, strict=True)
    ]
    return Table(rows, failed, boxes, columns)


def _outliers(
    values: Mapping[str, float | None],
    suffix: str,
    boxes: Mapping[tuple[str, str], Box | None],
) -> Iterable[str]:
    for name, value in values.items():
        usual = boxes.get((suffix, name))
        if value is not None and usual is not None and not usual.holds(value):
            yield name


def tsv(table: Table) -> str:
    """Return the table as tab-separated text: full precision, n/a for missing numbers."""
    names = [measure.name for measure in table.measures]
    lines = [[*FIRST_COLUMNS, *names, "n_warnings", "outliers"]]
    for row in table.rows:
        numbers = ["n/a" if row.values[n] is None else repr(row.values[n]) for n in names]
        outliers = ",".join(row.outliers) or "n/a"
        lines.append([row.name, row.suffix, row.status, *numbers, str(row.n_warnings), outliers])
    known = {row.name for row in table.rows}
    for failure in table.failed:
        if failure.name not in known:
            suffix = failure.name.rpartition("_")[2]
            kept = ", earlier outputs kept" if failure.message.startswith(KEPT) else ""
            lines.append([failure.name, suffix, f"failed{kept}", *["n/a"] * (len(names) + 2)])
    return "".join("\t".join(map(_cell, line)) + "\n" for line in lines)


def html(table: Table, *, generator: str) -> str:
    """Return the page.

    Parameters
    ----------
    table : from `gather`
    generator : the program and its version
    """
    shown = [
        m for m in table.measures if any(row.values[m.name] is not None for row in table.rows)
    ]
    suffixes = sorted({row.suffix for row in table.rows})
    spread = {m.name: _spread(table, m.name) for m in shown if m.plotted}
    plots = [(m, _plot(table, m.name, suffixes)) for m in shown if spread.get(m.name)]
    equal = [m for m in shown if spread.get(m.name) is False]
    style, script = templates.assets(generator)
    return (
        templates.environment()
        .get_template("group.html")
        .render(
            table=table,
            measures=shown,
            plots=plots,
            equal=[(m.label, _first(table, m.name)) for m in equal],
            head=style,
            script=script,
            odd=sorted(filter(attrgetter("outliers"), table.rows), key=_least_odd_last),
            labels={m.name: m.label for m in table.measures},
            fewest=measures.FEWEST,
            whisker=measures.WHISKER,
        )
    )


def _least_odd_last(row: Row) -> tuple[int, str]:
    return -len(row.outliers), row.name


def _spread(table: Table, name: str) -> bool:
    """Return whether a measure has different values."""
    return len({row.values[name] for row in table.rows} - {None}) > 1


def _first(table: Table, name: str) -> float | None:
    return next(row.values[name] for row in table.rows if row.values[name] is not None)


def _plot(table: Table, name: str, suffixes: Sequence[str]) -> str:
    points = {
        suffix: [
            Point(value, row.name, row.page, name in row.outliers)
            for row in table.rows
            if row.suffix == suffix and (value := row.values[name]) is not None
        ]
        for suffix in suffixes
    }
    return strips({s: (found, table.boxes[s, name]) for s, found in points.items() if found})


def _cell(text: str) -> str:
    return " ".join(text.split())
