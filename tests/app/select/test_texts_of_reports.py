"""Tables and records that the reports read: participants, records of figures, names of labels."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from n4ax_bids.app.reports import checked, contents, tissues
from n4ax_bids.app.request import Request
from tests.app.select.odd_texts import MARK, T1W


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
