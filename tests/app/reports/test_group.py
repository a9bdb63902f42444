"""The level group: the table of all images, its old name, and links between pages."""

from __future__ import annotations

import csv

from tests.app.reports.pages import NAMES, drawn


def test_a_dry_run_of_the_group_writes_nothing(fake_node, run, out, capsys):
    assert run() == 0
    before = drawn(out)
    assert run("--dry-run", level="group") == 0
    assert drawn(out) == before and not (out / "group_bias.tsv").exists()
    assert "group_bias.tsv" in capsys.readouterr().out


def test_a_table_under_its_old_name_is_replaced(fake_node, run, out, tmp_path, capsys):
    assert run() == 0
    old, others = out / "group_n4.tsv", tmp_path / "others.tsv"
    ours = "bids_name\tsuffix\tstatus\tfield_min\nsub-01_T1w\tT1w\tcorrected\t0.5\n"
    old.write_text(ours)
    capsys.readouterr()
    assert run("--dry-run", level="group") == 0
    assert old.is_file() and f"removed: {old}" in capsys.readouterr().out
    assert run(level="group") == 0
    assert not old.exists() and (out / "group_bias.tsv").read_text().startswith("bids_name\t")
    assert f"{old}: removed, group_bias.tsv replaces it" in capsys.readouterr().err
    # What is not our table stays: a file of the user, a folder, a link to another place.
    old.write_text("participant\tage\n")
    assert run(level="group") == 0 and old.read_text() == "participant\tage\n"
    old.unlink()
    others.write_text(ours)
    old.symlink_to(others)
    assert run(level="group") == 0 and old.is_symlink()
    old.unlink()
    old.mkdir()
    assert run(level="group") == 0 and old.is_dir()
    assert "removed" not in capsys.readouterr().err


def test_what_failed_at_last_has_failed(fake_node, run, out, tmp_path):
    """This holds although the outputs of an earlier run still exist."""
    assert run() == 0
    (tmp_path / "raw" / NAMES[0]).write_bytes(b"")
    assert run() == 1
    assert "sub-01_desc-before_T1w" not in (out / "sub-01.html").read_text()
    assert run(level="group") == 0
    with (out / "group_bias.tsv").open(newline="") as stream:
        rows = {row["bids_name"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert rows["sub-01_T1w"]["status"] == "failed, earlier outputs kept"
    assert rows["sub-01_T1w"]["cv_after"] == "n/a"
    assert rows["sub-02_ses-1_T1w"]["status"] == "corrected"
    assert len(rows) == 3


def test_hidden_files_of_macos_are_no_images(fake_node, run, out, capsys):
    """What Finder leaves beside each file on a network disk."""
    assert run() == 0
    for path in [*out.glob("sub-*/**/*.nii.gz"), *out.glob("sub-*/**/*.json")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert run(level="group") == 0
    assert "WARNING" not in capsys.readouterr().err.replace("WARNING dataset not validated", "")
    with open(out / "group_bias.tsv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream, delimiter="\t"))) == len(NAMES)


def test_pages_of_separate_runs_are_linked_by_the_group(fake_node, run, out):
    """On a cluster, each run knows only its own participant."""
    for label in ("02", "01"):
        assert run("--participant-label", label) == 0
    page = out / "sub-02.html"
    assert 'rel="prev"' not in page.read_text()  # there was no other page when it was written
    assert 'href="./sub-02.html">sub-02 →' in (out / "sub-01.html").read_text()
    before = (out / "sub-01.html").stat().st_mtime_ns
    assert run(level="group") == 0
    assert 'href="./sub-01.html">← sub-01' in page.read_text()
    assert (out / "sub-01.html").stat().st_mtime_ns == before  # it was right
