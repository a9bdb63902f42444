"""The files at the root of the derivative dataset, and the table of what was left out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from n4ax_bids.app.outputs import root_files
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import select


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


def test_rows_that_somebody_has_added_stay_in_the_table(make_dataset, tmp_path):
    root, out = make_dataset(), tmp_path / "out"
    out.mkdir()
    (out / "descriptions.tsv").write_text("desc_id\tdescription\ndesc-preproc\tmine\n")
    for _ in range(2):
        root_files.write_dataset_files(Request(root, out), {})
    head, *rows = (out / "descriptions.tsv").read_text().splitlines()
    assert head == "desc_id\tdescription"
    labels = [row.split("\t")[0] for row in rows]
    assert labels == ["desc-biascorr", "desc-biasfield", "desc-biaslattice", "desc-preproc"]


@pytest.mark.parametrize(
    ("variables", "container"),
    [
        ({}, None),
        ({"N4AX_BIDS_DOCKER_TAG": "1.2"}, {"Type": "docker", "Tag": "1.2"}),
        (
            {"APPTAINER_CONTAINER": "/images/n4ax_bids_1.2.sif"},
            {"Type": "apptainer", "Tag": "n4ax_bids_1.2.sif"},
        ),
        (
            {"SINGULARITY_CONTAINER": "/images/x.sif", "N4AX_BIDS_DOCKER_TAG": "1.2"},
            {"Type": "apptainer", "Tag": "1.2"},
        ),
    ],
)
def test_the_container_is_named(make_dataset, tmp_path, monkeypatch, variables, container):
    for name in ("N4AX_BIDS_DOCKER_TAG", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    request = Request(make_dataset(), tmp_path / "out")
    (maker,) = root_files.dataset_description(request, {})["GeneratedBy"]
    assert maker.get("Container") == container


def test_every_folder_that_uris_name_has_a_link(make_dataset, tmp_path):
    (tmp_path / "my prep").mkdir()
    request = Request(make_dataset(), tmp_path / "out", derivatives={"prep": tmp_path / "my prep"})
    links = root_files.dataset_description(request, {})["DatasetLinks"]
    assert links == {"raw": "../raw", "prep": "../my%20prep"}


def test_a_table_of_what_was_left_out_for_each_participant(make_dataset, tmp_path):
    names = [
        f"sub-0{n}/anat/sub-0{n}_{suffix}.nii.gz" for n in (1, 2) for suffix in ("T1w", "PDw")
    ]
    request = Request(make_dataset(*names, empty=True), tmp_path / "out")
    root_files.write_skipped(request, select(request))
    folder = tmp_path / "out" / "logs" / "skipped"
    assert (folder / "sub-02.tsv").read_text().splitlines() == [
        "file\treason",
        f"{names[3]}\tPDw was not asked for; -m PDw takes it",
    ]
    # A run over one participant leaves the other's table, and renews its own.
    request = replace(request, participants=("01",), modalities=("T1w", "PDw"))
    root_files.write_skipped(request, select(request))
    assert [path.name for path in folder.iterdir()] == ["sub-02.tsv"]
