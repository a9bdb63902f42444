"""Which figures and pages a run draws, draws again or leaves, also with flags that ask for it."""

from __future__ import annotations

import json

import pytest

from n4ax_bids.app.reports import reports
from tests.app.reports.pages import NAMES, drawn, text_of


def test_no_reports(fake_node, run, out, capsys):
    assert run("--no-reports") == 0
    assert drawn(out) == {}
    assert run(level="group") == 66
    assert "--reports-only" in capsys.readouterr().err


def test_reports_only_solves_nothing(fake_node, run, out, capsys):
    assert run("--no-reports") == 0
    n_solved = len(fake_node)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*biascorr*")}
    assert run("--reports-only") == 0
    assert len(fake_node) == n_solved
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*biascorr*")} == made
    assert len(drawn(out)) == 5 * len(NAMES) + 2
    assert "3 of 3 images reported" in capsys.readouterr().err


def test_a_figure_that_is_gone_is_drawn_again(fake_node, run, out):
    assert run() == 0
    before, n_solved = drawn(out), len(fake_node)
    (out / "sub-02/figures/sub-02_ses-1_desc-field_T1w.webp").unlink()
    assert run() == 0
    after = drawn(out)
    assert set(after) == set(before) and len(fake_node) == n_solved
    assert {name for name in after if after[name] != before[name] and "sub-01" in name} == set()


def test_reports_only_of_nothing_leaves_nothing(fake_node, run, out, capsys):
    assert run("--reports-only") == 66
    assert not out.exists()
    assert "holds no output of ours" in capsys.readouterr().err


def test_reports_only_names_what_has_not_been_corrected(fake_node, run, out, capsys):
    assert run("--participant-label", "01", "--no-reports") == 0
    assert run("--reports-only") == 1
    assert "sub-02_ses-1_T1w: not corrected yet" in capsys.readouterr().err


def test_both_flags_contradict_each_other(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--no-reports", "--reports-only")
    assert "--no-reports and --reports-only" in capsys.readouterr().err


def test_figures_of_an_earlier_correction_are_not_shown(fake_node, run, out):
    """This happens if a run is killed between the new correction of an image and its figures."""
    assert run() == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    content = json.loads(sidecar.read_text())
    content["BiasCorrection"]["FieldMax"] = 3.0
    sidecar.write_text(json.dumps(content))
    assert run(level="group") == 0
    assert "sub-01_T1w" not in text_of(out / "group.html")
    assert run("--reports-only") == 0 == run(level="group")
    assert "sub-01_T1w" in text_of(out / "group.html")
    assert "… 3" in text_of(out / "sub-01.html")


def test_what_is_missing_is_drawn_at_the_end_and_the_rest_stays(run, out, capsys):
    """This happens if a run that finished images was killed or drew no figures."""
    fast = ["--device", "cpu", "--sloppy"]
    assert run("--no-reports", *fast) == 0
    assert run(*fast) == 0
    before = drawn(out)
    assert len(before) == 5 * len(NAMES) + 2
    (out / "sub-02.html").unlink()
    (out / "sub-01/figures/sub-01_desc-record_T1w.json").unlink()
    assert run(*fast) == 0
    assert capsys.readouterr().err.count("corrected in") == len(NAMES)  # by the first run
    after = drawn(out)
    assert set(after) == set(before)
    changed = {name for name in before if after[name] != before[name]}
    of_the_image = {name for name in before if name.startswith("sub-01/") and "_T1w" in name}
    assert changed == of_the_image | {"sub-02.html"}  # the page of sub-01 is as it was


def test_a_page_that_was_overtaken_is_written_again(fake_node, run, out, monkeypatch, tmp_path):
    """Another run finishes an image of the participant while the page is being written."""
    from n4ax_bids.app.request import Request
    from n4ax_bids.report import page

    assert run() == 0
    (hidden,) = (out / "sub-01" / "figures").glob("*_desc-record_T2w.json")
    content = hidden.read_bytes()
    hidden.unlink()
    html = page.html

    def slow(*given, **more):
        made = html(*given, **more)
        hidden.write_bytes(content)
        return made

    monkeypatch.setattr(page, "html", slow)
    reports.page("sub-01", Request(tmp_path / "raw", out))
    assert "task-x" in text_of(out / "sub-01.html")
