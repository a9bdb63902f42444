"""Command lines that are almost right, and folders that are no datasets."""

from __future__ import annotations

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.select.strays import why_no_dataset


@pytest.fixture
def said(make_dataset, tmp_path, capsys):
    """Run over a participant 001; return the status and what was said."""

    def run(*flags, root=None, out=None):
        raw = make_dataset("sub-001/anat/sub-001_T1w.nii.gz", empty=True)
        try:
            words = [str(root or raw), str(out or tmp_path / "out"), "participant", *flags]
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--participant-label 1",
            "no participant 1 in the dataset (did you mean 001?); there are",
        ),
        ("-m T1W", "no modality T1W that can be corrected (did you mean T1w?); there are: T1w"),
        ("-m T1w,T2w", "no modality T1w,T2w; expected spaces between them: -m T1w T2w"),
    ],
)
def test_words_that_are_nearly_right(said, flags, words):
    status, lines = said(*flags.split())
    assert status == 2
    assert words in lines[-1]


def test_keys_that_are_nearly_right(said, tmp_path):
    path = tmp_path / "file"
    path.write_text("n-procs = 2")
    assert "no option n-procs (did you mean nprocs?)" in said("--config-file", str(path))[1][0]
    for text, words in (
        ('{"t1": {}}', "no modality t1 (did you mean t1w?)"),
        ('{"t1w": {"aquisition": "a"}}', "no entity aquisition (did you mean acquisition?)"),
    ):
        path.write_text(text)
        assert words in said("--bids-filter-file", str(path))[1][-1]


def test_a_usage_error_begins_with_its_reason(said):
    assert said("--mask", "skull")[1] == [
        "n4ax-bids: error: argument --mask: invalid choice: 'skull' (choose from 'auto', 'head', "
        "'brain', 'otsu', 'none', 'derivatives', 'synthstrip', 'hd-bet')",
        "n4ax-bids --help lists the flags",
    ]


def test_a_flag_that_is_nearly_right(said):
    (line, _) = said("--modalites", "T1w")[1]
    assert line.endswith("unrecognized arguments: --modalites T1w (did you mean --modalities?)")


def test_iterations_as_ants_writes_them(said, tmp_path, monkeypatch):
    from n4ax_bids.app import run

    asked = []
    monkeypatch.setattr(run, "run", lambda request: asked.append(request) or 0)
    path = tmp_path / "file.toml"
    path.write_text('n-iterations = "40x30"')
    said("--n-iterations", "50x50")
    said("--n-iterations", "50", "20x10")
    said("--config-file", str(path))
    found = [request.options.n_iterations for request in asked]
    assert found == [(50, 50), (50, 20, 10), (40, 30)]
    assert "--n-iterations: invalid int value: '50x'" in said("--n-iterations", "50x")[1][0]


@pytest.mark.parametrize("flag", ["out", "-w", "--bids-database-dir", "-d"])
def test_a_file_where_a_folder_is_expected(said, tmp_path, flag):
    path = tmp_path / "file"
    path.write_text("x")
    status, lines = said(out=path) if flag == "out" else said(flag, str(path))
    assert status == 2
    assert f"{path}: a file; expected " in lines[-1]
    assert path.read_text() == "x"


def test_a_file_or_a_folder_of_files_is_no_dataset(said, tmp_path):
    folder = tmp_path / "loose"
    folder.mkdir()
    assert why_no_dataset(folder) == "no BIDS dataset: it has no dataset_description.json"
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    status, lines = said(root=folder)
    assert status == 16
    assert "it holds DICOM files: convert it first: dcm2niix" in lines[-1]
    assert "a DICOM file" in said(root=folder / "IM0001")[1][-1]
    (folder / "a.nii.gz").touch()
    status, lines = said(root=folder)
    assert status == 16
    assert f"it holds loose NIfTI files: n4ax-files {folder} OUT_DIR corrects them" in lines[-1]
    assert "a NIfTI file; expected the folder" in said(root=folder / "a.nii.gz")[1][-1]
    (folder / "x").write_text("")
    assert "a file; expected the folder of a BIDS dataset" in said(root=folder / "x")[1][-1]


def test_a_folder_inside_a_dataset(said, tmp_path):
    status, lines = said(root=tmp_path / "raw" / "sub-001")
    assert status == 16
    assert f"it lies inside the dataset {tmp_path / 'raw'}; expected that one" in lines[-1]


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_folder_below_a_file(make_dataset, tmp_path, capsys, dry):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    (tmp_path / "file").write_text("x")
    assert cli.main([str(root), str(tmp_path / "file" / "out"), "participant", *dry]) == 73
    assert f"{tmp_path / 'file'}: a file; expected a folder" in capsys.readouterr().err


def test_labels_with_commas(make_dataset, tmp_path, capsys):
    root = make_dataset(*(f"sub-0{n}/anat/sub-0{n}_T1w.nii" for n in (1, 2)), empty=True)
    words = [str(root), str(tmp_path / "out"), "participant", "--participant-label", "01,02"]
    assert cli.main(words) == 2
    assert "expected spaces between the labels: 01 02" in capsys.readouterr().err
