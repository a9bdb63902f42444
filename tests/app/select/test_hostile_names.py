"""Names that are not UTF-8, or that could move a terminal's cursor, forge lines and columns."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app import cli
from n4ax_bids.io.names import printable, printable_lines, why_unfit

GOOD = "sub-01/anat/sub-01_T1w.nii.gz"
HOSTILE = {
    b"sub-01_acq-\xff_T1w.nii.gz": r"\xff",
    b"sub-01_acq-\x1b[2Jx_T1w.nii.gz": r"\x1b[2J",
    b"sub-01_acq-a\n10:00:00 INFO fine_T1w.nii": r"a\n10:00",
    b"sub-01_acq-a\tb_T1w.nii.gz": r"a\tb",
    b"sub-01_acq-\xe2\x80\xaeb_T1w.nii.gz": r"\u202e",
    b"sub-01_acq-\xc2\x9bb_T1w.json": r"\x9b",
}


def run(root, out, *words):
    flags = ("participant", "--skip-bids-validation", "--device", "cpu", "--n-iterations", "1")
    return cli.main([str(root), str(out), *flags, *words])


def touch(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.fsencode(folder) + b"/" + name, "wb") as file:
        file.write(b"x")


def no_forgery(text):
    text.encode()  # all of it is UTF-8
    assert not [each for each in text if not each.isprintable() and each not in "\n\t"]
    assert not [line for line in text.splitlines() if line.startswith("10:00:00")]


@pytest.mark.parametrize("name", HOSTILE, ids=list(HOSTILE.values()))
def test_in_anat_it_is_skipped_and_named(make_dataset, tmp_path, capsys, name):
    root, out = make_dataset(GOOD), tmp_path / "out"
    touch(root / "sub-01" / "anat", name)
    assert run(root, out, "--dry-run") == 0
    said = "".join(capsys.readouterr())
    assert HOSTILE[name] in said and "rename it" in said and "1 image to correct" in said
    no_forgery(said)
    assert run(root, out) == 0
    said = "".join(capsys.readouterr())
    assert HOSTILE[name] in said
    for path in (out / "logs" / "skipped" / "sub-01.tsv", out / "sub-01.html"):
        text = path.read_text(encoding="utf-8")
        assert HOSTILE[name] in text
        no_forgery(said + text)
    rows = (out / "logs" / "skipped" / "sub-01.tsv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].count("\t") == 1


@pytest.mark.parametrize("place", [".", "sub-01", "sub-01/anat", "sub-01/anat/old", "other"])
@pytest.mark.parametrize("kept", [False, True])
def test_anywhere_in_a_dataset(make_dataset, tmp_path, capsys, place, kept):
    root, out = make_dataset(GOOD), tmp_path / "out"
    for name in (*HOSTILE, b"\xff", b"sub-\xff", b"\x1b[2J.json", b"sub-" + b"\xff" * 250):
        touch(root / place, name)
    words = ["--bids-database-dir", str(tmp_path / "index")] if kept else []
    assert run(root, out, "--no-reports", *words) == 0
    no_forgery("".join(capsys.readouterr()))
    assert len(list((out / "sub-01" / "anat").iterdir())) == 6


@pytest.mark.parametrize("name", [b"sub-\xff", b"sub-\x1b[2J", b"sub-" + b"\xff" * 250])
def test_folder_of_a_participant(make_dataset, tmp_path, capsys, name):
    root, out = make_dataset(GOOD), tmp_path / "out"
    touch(root / os.fsdecode(name) / "anat", b"sub-01_T1w.nii.gz")
    assert run(root, out, "--no-reports") == 0
    said = "".join(capsys.readouterr())
    no_forgery(said)
    assert printable(os.fsdecode(name)) in said
    for path in (out / "logs" / "skipped").iterdir():
        no_forgery(path.name + path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("which", ["dataset", "output", "-d", "-w", "--bids-database-dir"])
def test_a_path_that_is_not_utf_8_is_refused_by_name(make_dataset, tmp_path, capsys, which):
    root, out = make_dataset(GOOD), tmp_path / "out"
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    if which == "dataset":
        root = root.rename(odd / "raw")
    out = odd if which == "output" else out
    words = [which, str(odd)] if which.startswith("-") else []
    assert run(root, out, *words) == 2
    said = capsys.readouterr().err
    assert r"caf\xe9" in said and "expected a name in UTF-8" in said
    no_forgery(said)


def test_control_characters_in_the_path_of_a_dataset(make_dataset, tmp_path, capsys):
    make_dataset(GOOD, "sub-02/anat/sub-02_T1w.nii.gz")
    place = tmp_path / "a\x1b[2J\n10:00:00 INFO"
    place.mkdir()
    root = (tmp_path / "raw").rename(place / "raw")
    (root / "sub-02/anat/sub-02_T1w.nii.gz").write_bytes(b"no image")
    out = place / "out"
    assert run(root, out) == 1
    assert run(root, out, "--dry-run") == 0
    no_forgery("".join(capsys.readouterr()))
    (crash,) = out.glob("logs/crash-*.txt")
    no_forgery(crash.read_text(encoding="utf-8"))
    for table in out.glob("logs/*/images.tsv"):
        no_forgery(table.read_text(encoding="utf-8"))


def test_segmentations_of_hostile_names_are_left_out(make_dataset, tmp_path):
    root, out, other = make_dataset(GOOD), tmp_path / "out", tmp_path / "other"
    touch(other / "sub-01" / "anat", b"sub-01_desc-\xff_dseg.nii.gz")
    assert run(root, out, "-d", str(other)) == 0
    assert not list(out.glob("logs/report-*"))


def test_printable():
    assert printable("sub-01/é日.nii") == "sub-01/é日.nii"
    assert printable("a\x1b\n\tb" + os.fsdecode(b"\xff") + "\u202e") == r"a\x1b\n\tb\xff\u202e"
    assert printable_lines("a\nb\r") == "a\nb\\r"
    assert why_unfit("sub-01_acq-é+_T1w.nii") is None
    assert why_unfit(os.fsdecode(b"\xe9")) == r"its name is not UTF-8 (byte \xe9); rename it"
    assert why_unfit("a\x1bb") == r"its name has the control character \x1b; rename it"
