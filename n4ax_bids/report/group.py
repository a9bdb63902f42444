"""All images of a dataset: a table, and a page with distributions as in MRIQC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    warnings: tuple[str, ...]
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
            tuple(record["warnings"]),
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
        lines.append(
            [row.name, row.suffix, row.status, *numbers, str(len(row.warnings)), outliers]
        )
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
    panels = [panel for panel in _panels(shown) if _several(table, panel)]
    plots = [(p, _plot(table, p, suffixes)) for p in panels if _spread(table, p)]
    equal = [p.measures[0] for p in panels if not _spread(table, p)]
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
            n_odd=sum(bool(row.outliers) for row in table.rows),
            odd=_odd(table.rows),
            subjects=len({_subject(row) for row in table.rows}),
            labels={m.name: m.label for m in table.measures},
            fewest=measures.FEWEST,
            whisker=measures.WHISKER,
        )
    )


def _subject(row: Row) -> str:
    """Return the page of an image without the image's place on it."""
    return row.page.partition("#")[0]


def _odd(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the images that stand out by participant, the one with most outliers first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.outliers:
            found.setdefault(_subject(row), []).append(row)
    for images in found.values():
        images.sort(key=lambda row: (-len(row.outliers), row.name))

    def order(images: list[Row]) -> tuple[int, str]:
        return -sum(len(row.outliers) for row in images), images[0].name

    return sorted(found.values(), key=order)


class Panel(NamedTuple):
    """What is drawn together: a measure, or the same one before and after the correction."""

    label: str
    meaning: str
    measures: tuple[Measure, ...]


def _panels(shown: Sequence[Measure]) -> list[Panel]:
    """Return the panels of the measures; one before the correction is with that after it."""
    by_name, panels = {measure.name: measure for measure in shown if measure.plotted}, []
    for name, measure in by_name.items():
        start = name.removesuffix("_before")
        after = by_name.get(f"{start}_after") if start != name else None
        if after:
            label = measure.label.removesuffix(" before")
            panels.append(Panel(label, measure.meaning, (measure, after)))
        elif not (name.endswith("_after") and f"{name.removesuffix('_after')}_before" in by_name):
            panels.append(Panel(measure.label, measure.meaning, (measure,)))
    return panels


def _several(table: Table, panel: Panel) -> bool:
    """Return whether several images of one kind have a measure: one alone has no distribution."""
    kinds = Counter(
        row.suffix for row in table.rows if row.values[panel.measures[0].name] is not None
    )
    return max(kinds.values(), default=0) > 1


def _spread(table: Table, panel: Panel) -> bool:
    """Return whether the measures of a panel have different values."""
    values = {row.values[each.name] for row in table.rows for each in panel.measures} - {None}
    return len(values) > 1


def _first(table: Table, name: str) -> float | None:
    return next(row.values[name] for row in table.rows if row.values[name] is not None)


def _plot(table: Table, panel: Panel, suffixes: Sequence[str]) -> str:
    strips_of = {}
    for suffix in suffixes:
        for when, measure in zip(("before", "after"), panel.measures, strict=False):
            points = [
                Point(value, row.name, row.page, measure.name in row.outliers)
                for row in table.rows
                if row.suffix == suffix and (value := row.values[measure.name]) is not None
            ]
            if points:
                key = (suffix, when if len(panel.measures) > 1 else "")
                strips_of[key] = (points, table.boxes[suffix, measure.name])
    return strips(strips_of)


def _cell(text: str) -> str:
    return " ".join(text.split())
