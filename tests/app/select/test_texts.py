"""Texts that a run reads: one line names the file and the remedy where one is not as expected."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.reports import checked, contents, tissues
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Status
from n4ax_bids.io import text as text_of

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
MARK = b"\xef\xbb\xbf"
NO_MARK = "it begins with a byte order mark; save as UTF-8 without it"
NOT_UTF_8 = "byte 0xe9 in line 1 is not UTF-8; save it as UTF-8"


@pytest.fixture
def run(make_dataset, tmp_path, fake_node, capsys):
    """Run over one image; return the status and what was logged."""
    make_dataset(T1W)

    def once(*flags, level="participant"):
        try:
            words = [str(tmp_path / "raw"), str(tmp_path / "out"), level, *flags]
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return status, text

    return once


@pytest.mark.parametrize(
    ("content", "why"), [(MARK + b"{}", NO_MARK), (b'{"\xe9": 1}', NOT_UTF_8)]
)
def test_the_description(run, tmp_path, content, why):
    path = tmp_path / "raw" / "dataset_description.json"
    path.write_bytes(content)
    status, text = run()
    assert status == Status.INVALID_INPUT
    assert f"{path}: not readable as JSON: {why}" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "why"), [(MARK + b"{}", NO_MARK), (b'{"\xe9": 1}', NOT_UTF_8)]
)
@pytest.mark.parametrize("name", ["T1w.json", "sub-01/anat/sub-01_T1w.json"])
def test_a_sidecar_ends_its_image_alone(run, make_dataset, tmp_path, name, content, why):
    make_dataset("sub-02/anat/sub-02_T1w.nii.gz")
    path = tmp_path / "raw" / name
    path.write_bytes(content)
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {path}: not readable as JSON: {why}" in text
    assert ("sub-02_T1w: corrected" in text) == name.startswith("sub-01")


@pytest.mark.parametrize("name", ["T1w.json", "sub-01/anat/sub-01_T1w.json"])
def test_a_sidecar_that_is_a_link_to_nothing(run, tmp_path, name):
    path = tmp_path / "raw" / name
    path.symlink_to(".git/annex/objects/gone")
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {path}: not readable as JSON: a link to .git/annex/objects/gone" in text
    assert "get the file's content first" in text and "Errno" not in text


@pytest.mark.parametrize("name", ["T1w.json", "sub-01/anat/sub-01_T1w.json"])
def test_a_sidecar_that_is_a_folder(run, tmp_path, name):
    path = tmp_path / "raw" / name
    path.mkdir()
    (path / "x").touch()
    status, text = run()
    assert f"{path}: not readable as JSON: it is a folder; expected a file" in text
    assert status == Status.SOME_FAILED


def test_a_sidecar_that_is_a_pipe_is_not_waited_for(run, tmp_path):
    path = tmp_path / "raw" / "T1w.json"
    os.mkfifo(path)
    status, text = run()
    assert f"{path}: not readable as JSON: it is a named pipe; expected a file" in text
    assert status == Status.SOME_FAILED


@pytest.mark.parametrize(
    ("flag", "kind"),
    [("--bids-filter-file", "JSON"), ("--config-file", "TOML")],
)
@pytest.mark.parametrize(("content", "why"), [(MARK + b"{}", NO_MARK), (b"# \xe9", NOT_UTF_8)])
def test_files_of_the_command_line(run, tmp_path, flag, kind, content, why):
    path = tmp_path / "file"
    path.write_bytes(content)
    status, text = run(flag, str(path))
    assert status == Status.USAGE
    assert f"{path}: not readable as {kind}: {why}" in text
    status, text = run(flag, str(tmp_path))
    assert status == Status.USAGE
    assert f"{tmp_path}: not readable as {kind}: it is a folder; expected a file" in text


def test_a_plugin_file_that_is_not_utf_8(run, tmp_path):
    path = tmp_path / "engine.yml"
    path.write_bytes(b"plugin: \xe9")
    status, text = run("--use-plugin", str(path))
    assert status == Status.USAGE
    assert f"{path}: not readable as YAML or JSON: {NOT_UTF_8}" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dataset_description.json", "JSON"),
        ("descriptions.tsv", "text"),
        (".bidsignore", "text"),
    ],
)
def test_texts_of_the_output(run, tmp_path, name, kind):
    """Foreign bytes are reported with the file; it is not replaced, and nothing crashes."""
    assert run()[0] == Status.OK
    path = tmp_path / "out" / name
    content = path.read_bytes().replace(b"n4ax", b"\xe9") + b"\xe9"
    path.write_bytes(content)
    status, text = run("--overwrite")
    assert status == Status.USAGE
    assert f"{path}: not readable as {kind}: byte 0xe9 in line" in text.splitlines()[-1]
    assert path.read_bytes() == content


def test_a_table_of_the_output_may_come_from_a_spreadsheet(run, tmp_path):
    assert run()[0] == Status.OK
    path = tmp_path / "out" / "descriptions.tsv"
    content = path.read_bytes()
    path.write_bytes(MARK + content)
    assert run("--overwrite")[0] == Status.OK
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("place", "of_images", "is_read"),
    [
        ("elsewhere/secret.tsv", None, False),
        ("raw/phenotype/participants.tsv", None, True),
        ("elsewhere/.git/annex/objects/x.tsv", None, True),
        ("original/participants.tsv", "original", True),  # a view of a dataset on another disk
        ("elsewhere/secret.tsv", "original", False),
    ],
)
def test_a_table_of_participants_that_is_a_link(tmp_path, caplog, place, of_images, is_read):
    raw, table = tmp_path / "raw", tmp_path / place
    (raw / T1W).parent.mkdir(parents=True)
    if of_images:
        original = tmp_path / of_images / T1W
        original.parent.mkdir(parents=True)
        original.touch()
        (raw / T1W).symlink_to(original)
    else:
        (raw / T1W).touch()
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("participant_id\tage\nsub-01\t30\nsub-02\t40\n")
    (raw / "participants.tsv").symlink_to(table)
    found = [contents._participant("sub-01", Request(raw, tmp_path / "out")) for _ in range(2)]
    expected = (("participant_id", "sub-01"), ("age", "30")) if is_read else ()
    assert found == [expected] * 2
    if not is_read:  # nor for a participant who has no image here
        assert contents._participant("sub-02", Request(raw, tmp_path / "out")) == ()
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == (not is_read)
    assert is_read or f"participants.tsv: a link to {table}, which is outside" in told[0]


@pytest.mark.parametrize(
    "change",
    [
        {"measures": None},
        {"measures": "x"},
        {"warnings": 1e400},
        {"warnings": [1]},
        {"notes": {}},
        {"suffix": -1},
        {"image": []},
        {"source": 7},
        {"source": ""},
        {"source": "sub-01/../../x"},
        {"source": "/sub-01/x"},
        {"sidecar": None},
        {"files": ["../x"]},
        {"outline": None},
        {"field_median": "1"},
    ],
)
def test_a_record_of_figures_with_odd_parts_counts_as_none(tmp_path, change):
    """It ended the level group with an internal error."""
    sidecar = tmp_path / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    path = tmp_path / "sub-01/figures/sub-01_desc-record_T1w.json"
    for each in (sidecar, path):
        each.parent.mkdir(parents=True)
    content = {"BiasCorrection": {"Options": {}, "Versions": {}, "Device": "cpu"}}
    sidecar.write_text(json.dumps(content))
    record = {
        "image": "sub-01_T1w",
        "source": T1W,
        "suffix": "T1w",
        "sidecar": "sub-01/anat/sub-01_desc-biascorr_T1w.json",
        "sidecar_sha256": hashlib.sha256(sidecar.read_bytes()).hexdigest(),
        "measures": dict.fromkeys(checked.SHOWN, 1.5),
        "warnings": [],
        "notes": [],
        "panel": "",
        "details": [],
        "region": "brain",
        "method": "n4",
        "tissues": [],
        "window": [0, 1],
        "gain": 1,
        "files": ["sub-01_T1w.nii.gz"],
        "outline": "",
        "field_median": 1.0,
    }
    path.write_text(json.dumps(record))
    assert list(contents.records(tmp_path)) == [(record, content)]
    path.write_text(json.dumps(record | change))
    assert list(contents.records(tmp_path)) == []


def test_participants(tmp_path, caplog):
    path = tmp_path / "participants.tsv"
    path.write_bytes(MARK + b"participant_id\tage\r\nsub-01\t30\r\n")
    expected = (("participant_id", "sub-01"), ("age", "30"))
    assert contents._participant("sub-01", Request(tmp_path, tmp_path / "out")) == expected
    path.write_bytes(b"participant_id\tname\nsub-01\tRen\xe9\n")
    os.utime(path, ns=(0, 0))
    assert contents._participant("sub-01", Request(tmp_path, tmp_path / "out")) == ()
    assert f"{path}: not readable as a table: byte 0xe9 in line 2 is not UTF-8" in caplog.text


def test_the_table_beside_a_segmentation(tmp_path):
    table = tmp_path / "sub-01_dseg.tsv"
    table.write_bytes(MARK + b"index\tname\n7\tWM\n")
    assert tissues._label(tmp_path / "sub-01_dseg.nii.gz", "WM") == 7
    table.write_bytes(b"index\tname\n7\tWM\xe9\n")
    with pytest.raises(ValueError, match=r"sub-01_dseg.tsv: .*line 2 is not UTF-8; save it as"):
        tissues._label(tmp_path / "sub-01_dseg.nii.gz", "WM")


DEEP = b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"
DEEPER = b"[" * 100_000
HALF = b'{"Name": "\\ud800", "BIDSVersion": "1.10.0"}'
too_deep = pytest.mark.parametrize("content", [DEEP, DEEPER])


@pytest.mark.parametrize("content", [DEEP, DEEPER, HALF])
def test_a_description_that_is_no_usual_json(run, tmp_path, content):
    path = tmp_path / "raw" / "dataset_description.json"
    path.write_bytes(content)
    status, text = run()
    assert status == Status.INVALID_INPUT
    assert f"{path}: not readable as JSON: " in text.splitlines()[-1]


@too_deep
def test_a_sidecar_that_is_nested_too_deeply_ends_its_image_alone(
    run, make_dataset, tmp_path, content
):
    make_dataset("sub-02/anat/sub-02_T1w.nii.gz")
    path = tmp_path / "raw" / "sub-01" / "anat" / "sub-01_T1w.json"
    path.write_bytes(content)
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {path}: not readable as JSON: it is nested too deeply" in text
    assert "sub-02_T1w: corrected" in text


@too_deep
def test_a_filter_file_and_an_engine_that_are_nested_too_deeply(run, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for flag in ("--bids-filter-file", "--config-file", "--use-plugin"):
        status, text = run(flag, str(path))
        assert status == Status.USAGE
        assert f"{path}: " in text and len(text) < 2000


def test_an_engine_with_a_date_that_does_not_exist(run, tmp_path):
    path = tmp_path / "engine.yml"
    path.write_text("plugin: 2001-02-30")
    status, text = run("--use-plugin", str(path))
    assert status == Status.USAGE
    assert f"{path}: not readable as YAML or JSON: day is out of range" in text


@pytest.mark.parametrize(
    "maker", ["5", "[5]", "[]", '{"Name": 5}', '[{"Name": ["x"]}]', '[{"Name": null}]', "null"]
)
def test_an_output_folder_whose_maker_is_no_name(run, tmp_path, maker):
    path = tmp_path / "out" / "dataset_description.json"
    path.parent.mkdir()
    path.write_text(f'{{"Name": "x", "GeneratedBy": {maker}}}')
    status, text = run()
    assert status == Status.USAGE
    assert f"{path.parent}: the output folder holds another dataset" in text


@pytest.mark.parametrize("flag", ["--participant-label", "--session-label", "--run-id"])
def test_a_label_is_no_pattern(run, flag):
    status, text = run(flag, "*")
    assert status == Status.USAGE
    assert "no " in text and " * in the dataset" in text


@pytest.mark.parametrize("label", ["\xe9", "\u0663", "\xb2", "\u540d"])
@pytest.mark.parametrize("entity", ["acq", "run", "ses"])
def test_labels_outside_ascii_with_masks(run, make_dataset, tmp_path, label, entity):
    name = f"sub-01_{entity}-{label}_T1w"
    make_dataset(f"sub-01/anat/{name}.nii.gz")
    (tmp_path / "masks" / "sub-01" / "anat").mkdir(parents=True)
    (
        tmp_path / "masks" / "sub-01" / "anat" / f"sub-01_{entity}-{label}_desc-brain_mask.nii"
    ).touch()
    status, text = run("--mask", "derivatives", "-d", str(tmp_path / "masks"))
    assert status == Status.SOME_FAILED and "internal" not in text


@pytest.mark.parametrize("text", ["a/b", "../../../raw", "/", "x" * 200, "\x1b[31m", "a\nb"])
@pytest.mark.parametrize("is_file", [False, True])
def test_a_claim_with_any_text(run, make_dataset, tmp_path, text, is_file):
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims

    claim = tmp_path / "out" / attempt.CLAIMS / f"{claims.key(T1W)}.0"
    claim.parent.mkdir(parents=True)
    if is_file:
        claim.write_text(text)
        os.utime(claim, (0, 0))
    else:
        claim.symlink_to(text)
        os.utime(claim, (0, 0), follow_symlinks=False)
    status, said = run()
    assert status == Status.OK, said
    assert "sub-01_T1w: corrected" in said


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        DEEPER,
        HALF,
        b"5",
        b"null",
        b'{"source": 5}',
        b'{"source": "sub-01/anat/sub-01_T1w.nii.gz", "inputs": {"input_image": 5}}',
        b'{"version": {}, "settings": 5, "inputs": 5, "outputs": 5}',
        b"\xff",
    ],
)
def test_damaged_records(run, tmp_path, content):
    assert run()[0] == Status.OK
    paths = [*(tmp_path / "out" / "logs" / "images").rglob("*.json")]
    paths += [*(tmp_path / "out").glob("sub-*/figures/*record*.json")]
    assert len(paths) == 2
    for path in paths:
        path.write_bytes(content)
    status, text = run()
    assert status == Status.OK and "sub-01_T1w: corrected" in text
    for path in paths:
        path.write_bytes(content)
    assert run(level="group")[0] == Status.NO_IMAGES
    assert run("--reports-only")[0] == Status.OK
    assert run("--boilerplate-only")[0] == Status.OK


@pytest.mark.parametrize("depth", [64, 65])
def test_levels_of_json(tmp_path, depth):
    path = tmp_path / "file"
    path.write_bytes(b"[" * depth + b"]" * depth)
    if depth > text_of.DEEPEST:
        with pytest.raises(ValueError, match="nested too deeply; expected at most 64 levels"):
            text_of.read_json(path)
    else:
        assert text_of.read_json(path)
