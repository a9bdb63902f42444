"""Texts that a run can read, with odd content: nested too deeply, of other types, damaged."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app.status import Status
from n4ax_bids.io import text as text_of
from tests.app.select.odd_texts import T1W

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
