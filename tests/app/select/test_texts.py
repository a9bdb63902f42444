"""Texts in another encoding, links and folders in their places, and labels: what a run says."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app.status import Status
from tests.app.select.odd_texts import MARK, NO_MARK, NOT_UTF_8


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
