"""Datasets of many kinds by their names alone, in the manner of bids-standard/bids-examples.

Each image has 0 bytes. Every image in a folder `anat` has one reason, and the exit status is the
one of docs/outputs.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from n4ax_bids.app import cli

KINDS = json.loads((Path(__file__).parents[2] / "reference" / "names_only.json").read_text())
IMAGES = (".nii", ".nii.gz", ".mgz", ".jpg")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("fake_node")
def test_one_reason_for_each_file(make_dataset, tmp_path, capsys, name):
    kind = KINDS[name]
    root, out = make_dataset(*kind["files"], empty=True), tmp_path / "out"
    words = [str(root), str(out), "participant", *kind.get("flags", [])]
    assert cli.main(words) == kind["status"]
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "Traceback" not in text and "internal error" not in text
    if kind["status"] in (16, 18, 66):
        assert not out.exists()
    if kind["status"] == 16:
        assert all(file in text.splitlines()[-1] for file in kind["files"])
        return

    failed = [line for line in text.splitlines() if "failed: " in line and "/" in line]
    assert len(failed) == kind["failed"]
    assert all("empty file (0 bytes)" in line for line in failed)
    rows = [
        row.split("\t")
        for table in (out / "logs" / "skipped").glob("*.tsv")
        for row in table.read_text().splitlines()[1:]
    ]
    if kind["status"] in (18, 66):  # nothing is written: the log has them all
        told = re.findall(r"INFO skipped (.*?): (.*)", text)
        rows = [(file, reason) for files, reason in told for file in files.split(", ")]
    assert len(rows) == kind["skipped"]
    anatomy = {
        file
        for file in kind["files"]
        if file.startswith("sub-") and "/anat/" in file and file.endswith(IMAGES)
    }
    assert len(anatomy) == kind["failed"] + kind["skipped"]
    told = {file: reason for file, reason in rows}
    for file in anatomy:
        of_run = [line for line in failed if f"{root / file}:" in line]
        assert len(of_run) + (file in told) == 1, file
    assert all(told.values())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind["status"] == 1])
def test_a_dry_run_says_the_same_and_writes_nothing(make_dataset, tmp_path, capsys, name):
    kind = KINDS[name]
    root, out = make_dataset(*kind["files"], empty=True), tmp_path / "out"
    words = [str(root), str(out), "participant", "--dry-run", *kind.get("flags", [])]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split()[0] for line in lines if line[:1].strip()]
    assert (heads.count("fail"), heads.count("skip")) == (kind["failed"], kind["skipped"])
    assert "correct" not in heads
    assert not out.exists()


def test_the_validator_speaks_of_names_not_of_empty_files(
    make_dataset, tmp_path, capsys, validator
):
    kind = KINDS["anatomy of no weighted image"]
    root = make_dataset(*kind["files"], empty=True)
    assert cli.main([str(root), str(tmp_path / "out"), "participant"]) == 16
    line = capsys.readouterr().err.splitlines()[-1]
    assert "scratch.nii.gz" in line or "T1w.mgz" in line
    assert "EMPTY_FILE" not in line
