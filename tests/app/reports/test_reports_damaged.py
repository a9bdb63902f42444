"""Records, sidecars and texts of the output folder that are damaged or made by somebody else."""

from __future__ import annotations

import hashlib
import json

import pytest

from n4ax_bids.app.outputs import boilerplate
from n4ax_bids.app.reports import reports
from n4ax_bids.app.request import Request
from tests.app.reports.pages import NAMES, text_of


@pytest.fixture
def request_of(tmp_path):
    """Make the request of a run in the same folders."""
    return lambda: Request(tmp_path / "raw", tmp_path / "out")


def test_outputs_of_a_version_with_other_sidecars_are_named(fake_node, run, out, caplog):
    """They are not shown and do not end the run; the images must be corrected again."""
    assert run() == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    content = json.loads(sidecar.read_text())
    content["N4"] = content.pop("BiasCorrection")
    sidecar.write_text(json.dumps(content))
    record = next((out / "sub-01/figures").glob("*_desc-record_T1w.json"))
    facts = json.loads(record.read_text())
    facts["sidecar_sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
    record.write_text(json.dumps(facts))
    assert run(level="group") == 0
    assert "sub-01_T1w" not in text_of(out / "group.html")
    assert run("--reports-only") == 1
    text = next((out / "logs").glob("report-sub-01_*.txt")).read_text()
    assert "has no BiasCorrection; expected a sidecar of this version" in text


HUGE = 10**400
ODD_RECORDS = [
    *[("gain", value) for value in (None, "x", [], HUGE, 1e308)],
    *[("window", value) for value in (None, 5, "ab", [], [1], [1, "x"], [1, HUGE], [[1], 2])],
    *[("region", value) for value in (None, 5, [])],
    *[("outline", value) for value in (None, 5)],
    *[("field_median", value) for value in ("x", HUGE)],
    *[("files", value) for value in (None, [5], ["../x"], [".."], ["/etc/passwd"])],
    *[("tissues", value) for value in (5, True, {"a": 1}, [1], [["a"]])],
    *[("details", value) for value in ([1], ["ab"], [[]], [["a"]], [["a", "b"]], [["a", HUGE]])],
    *[("measures", value) for value in ({}, {"cv_before": 1})],
    *[("measures.field_max", value) for value in ("x", [], {}, HUGE, -1e308)],
    *[("measures.cjv_after", value) for value in ("x", HUGE, 1)],
    *[("method", value) for value in ([], {}, 5)],
    *[("image", value) for value in ("x", "sub-02_T1w", "a" * 100_000)],
    *[("status", value) for value in (None, 5, [], "all is well")],
]
ODD_SIDECARS = [
    *[("Options", value) for value in (None, 5, [])],
    *[("Versions", value) for value in (None, 5, [], "x")],
    ("Device", None),
]


def test_a_damaged_record_counts_as_none(fake_node, run, out, request_of):
    """Anyone who may write to the folder can have changed it; pages and table are still made."""
    assert run(names=NAMES[:1]) == 0
    (path,) = out.glob("sub-01/figures/*_desc-record_T1w.json")
    whole = path.read_text()
    for key, value in ODD_RECORDS:
        record = json.loads(whole)
        place, _, name = key.rpartition(".")
        (record[place] if place else record)[name] = value
        path.write_text(json.dumps(record))
        shown = _shown(run, out, request_of)
        assert shown == (["corrected"] if key == "status" else []), (key, value)


def test_a_damaged_sidecar_has_no_record(fake_node, run, out, request_of):
    assert run(names=NAMES[:1]) == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    (path,) = out.glob("sub-01/figures/*_desc-record_T1w.json")
    whole, record = sidecar.read_text(), json.loads(path.read_text())
    for key, value in ODD_SIDECARS:
        content = json.loads(whole)
        content["BiasCorrection"][key] = value
        if value is None:
            del content["BiasCorrection"][key]
        sidecar.write_text(json.dumps(content))
        record["sidecar_sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
        path.write_text(json.dumps(record))
        assert _shown(run, out, request_of) == [], (key, value)


def _shown(run, out, request_of):
    """Make page and table of the one image, and return its status in the table, if it is there.

    Another participant's failure is there too, without which the level group has nothing to do.
    """
    (out / "logs" / "crash-sub-09_T1w.txt").write_text("an error\n")
    assert run(level="group") == 0
    rows = [line.split("\t") for line in (out / "group_bias.tsv").read_text().splitlines()]
    found = [row[2] for row in rows if row[0] == "sub-01_T1w"]
    reports.page("sub-01", request_of())
    assert ('id="sub-01_T1w"' in (out / "sub-01.html").read_text()) == bool(found)
    return found


def test_a_damaged_record_of_a_finished_image_ends_no_page(fake_node, run, out, request_of):
    """The methods text leaves out what it cannot describe."""
    assert run(names=NAMES[1:]) == 0
    path = out / "logs/images/sub-01/anat" / NAMES[1].rpartition("/")[2].replace("nii.gz", "json")
    whole = path.read_text()
    for key in ("mask", "weight", "preset", "output_dtype", "derivatives"):
        for value in (5, "x\n", [1], ["a"], {"a": 1}, None, 1e308):
            content = json.loads(whole)
            (content if key == "preset" else content["settings"])[key] = value
            path.write_text(json.dumps(content))
            reports.page("sub-01", request_of())
            boilerplate.write(out)
            assert "Tustison" in text_of(out / "logs/CITATION.md")


def test_a_text_of_the_logs_that_is_a_link_is_not_shown(fake_node, run, out, tmp_path):
    """Otherwise somebody else could make a page show a file of the user who runs the program."""
    assert run() == 0
    secret = tmp_path / "secret"
    secret.write_text("file\treason\nsecret\tsecret\n")
    (out / "logs/skipped").mkdir(exist_ok=True)
    for name in ("crash-sub-01_T9w.txt", "report-sub-01_T8w.txt", "skipped/sub-01.tsv"):
        (out / "logs" / name).unlink(missing_ok=True)
        (out / "logs" / name).symlink_to(secret)
    assert run("--reports-only") == 0 == run(level="group")
    for page in ("sub-01.html", "group.html", "group_bias.tsv"):
        assert "secret" not in text_of(out / page)
