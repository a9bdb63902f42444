"""The files at the root of the derivative dataset, and the table of what was left out."""

from __future__ import annotations

import json

from n4ax_bids.app import root_files
from n4ax_bids.app.request import Request


def test_root_files(make_dataset, tmp_path):
    root = make_dataset()
    out = tmp_path / "far away" / "out"
    out.mkdir(parents=True)
    raw = {"Name": "tiny", "DatasetDOI": "doi:10.1/x", "License": "CC0", "Authors": []}
    root_files.write_dataset_files(Request(root, out), raw)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "n4ax_bids"
    assert description["DatasetLinks"] == {"raw": "../../raw"}
    assert description["SourceDatasets"][0]["DOI"] == "doi:10.1/x"
    assert description["License"] == "CC0"
    assert "Authors" not in description
    assert (out / ".bidsignore").read_text().splitlines() == ["*.html", "figures", "group_*.tsv"]
    table = (out / "descriptions.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in table] == [
        "desc_id",
        "desc-biascorr",
        "desc-biasfield",
        "desc-biaslattice",
    ]


def test_lines_that_someone_added_to_bidsignore_stay(make_dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".bidsignore").write_text("mine\nfigures\n")
    root_files.write_dataset_files(Request(make_dataset(), out), {})
    lines = (out / ".bidsignore").read_text().splitlines()
    assert lines == ["mine", "figures", "*.html", "group_*.tsv"]
