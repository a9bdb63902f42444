"""The table and the page of all images."""

from __future__ import annotations

import csv
import io

import pytest

from n4ax_bids.report import group
from n4ax_bids.report.measures import Measure
from n4ax_bids.report.page import Failure


@pytest.fixture
def table(make_record):
    """Twenty images of two kinds, one of which stands out, and one that failed."""
    records = [
        make_record(f"sub-{n:02}_{suffix}", field_cv=0.1 + n / 1000 + (suffix == "T2w"))
        for n in range(10)
        for suffix in ("T1w", "T2w")
    ]
    records[6]["measures"]["field_cv"] = 0.9
    own = [Measure("n_iterations", "iterations", "iterations of all fitting levels together")]
    for record in records:
        record["measures"]["n_iterations"] = 1
    return group.gather(records, [Failure("sub-77_T1w", "ValueError: broken", "…")], own)


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_what_stands_out_is_judged_by_kind(table):
    odd = {row.name: row.outliers for row in table.rows if row.outliers}
    assert odd == {"sub-03_T1w": ("field_cv",)}  # 0.9 would be low among the T2w


def test_table_as_text(table):
    rows = rows_of(group.tsv(table))
    assert len(rows) == 21
    by_name = {row["bids_name"]: row for row in rows}
    assert by_name["sub-03_T1w"]["outliers"] == "field_cv"
    assert by_name["sub-03_T1w"]["field_cv"] == "0.9"
    assert by_name["sub-04_T2w"]["outliers"] == "n/a"
    assert by_name["sub-04_T2w"]["white_cv_after"] == "n/a"
    assert by_name["sub-77_T1w"]["status"] == "failed"
    assert by_name["sub-77_T1w"]["suffix"] == "T1w"
    assert all(None not in row and None not in row.values() for row in rows)


def test_text_cannot_break_the_table(make_record):
    (row,) = rows_of(group.tsv(group.gather([make_record("sub-1_T1w\t\nx")], [])))
    assert row["bids_name"] == "sub-1_T1w x"


def test_page_has_links_marks_and_plots(table):
    page = group.html(table, generator="us 1")
    assert page.count('<a href="sub-03.html#sub-03_T1w">') == 3  # list, plot, table
    assert page.count('class="odd"') == 1
    assert page.count("odd-cell") == 2  # the style and one cell
    assert "sub-77.html#failed-sub-77_T1w" in page
    assert page.count("<svg") == 1  # all other measures are equal
    assert "iterations 1" in page
    assert "white CV" not in page  # nobody has it


def test_pairs_share_a_panel_and_one_image_has_none(make_record):
    """A measure before and after has one scale; an image that is alone has no distribution."""
    records = [
        make_record(f"sub-{n}_T1w", cv_before=0.3 + n / 99, cv_after=0.2, white_cv_before=n)
        for n in range(3)
    ]
    page = group.html(group.gather(records, []), generator="us")
    (panel,) = [p for p in page.split("<figure>") if ">before</text>" in p]
    assert panel.index("<b>CV</b>") < panel.index(">before</text>") < panel.index(">after</text>")
    assert "<b>white CV before</b>" in page  # there is none after
    alone = group.html(
        group.gather([make_record("sub-1_T1w", cv_before=0.3), make_record("sub-1_T2w")], []),
        generator="us",
    )
    assert "<svg" not in alone and "has been corrected more than once" in alone


def test_outliers_are_counted_by_participant(make_record):
    records = [
        make_record(f"sub-{n:02}_{s}", field_cv=0.1, cv_after=0.2)
        for n in range(9)
        for s in ("T1w", "T2w")
    ]
    for number, name in ((4, "field_cv"), (5, "field_cv"), (5, "cv_after"), (8, "cv_after")):
        records[number]["measures"][name] = 0.9
    page = group.html(group.gather(records, []), generator="us")
    assert "18 images of 9 participants corrected" in page
    assert "Numbers of 3 images of 2 participants stand out" in page
    assert page.index('>sub-02</td><td class="n" rowspan="2">3<') < page.index(">sub-04</td>")


def test_text_stays_text(make_record, evil):
    records = [make_record("sub-1_T1w", warnings=[evil], field_cv=n) for n in range(6)]
    plain = group.html(group.gather(records, []), generator="us")
    records[2] |= {"image": evil, "suffix": evil, "page": evil}
    page = group.html(group.gather(records, [Failure(evil, evil, evil)]), generator=evil)
    assert "<img src=x" not in page and "<script>document" not in page
    assert page.count("<script") == plain.count("<script") == 1
    assert "&lt;script&gt;" in page


def test_many_images_are_bars_and_the_odd_ones_dots(make_record):
    records = [make_record(f"sub-{n:04}_T1w", field_cv=1 + (n % 97) / 97) for n in range(1000)]
    records[500]["measures"]["field_cv"] = 9.0
    page = group.html(group.gather(records, []), generator="us")
    assert page.count("<circle") == 1 and 30 < page.count('class="bar"') <= 60
    assert page.count("<tr>") > 1000
