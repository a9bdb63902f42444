"""Each flag of `n4ax-bids` by what it does to a run; solver flags are in test_cli_request."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from n4ax_bids.app import cli

NAMES = [
    "sub-01/anat/sub-01_acq-a_run-1_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-b_run-2_T1w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
    "sub-02/ses-2/anat/sub-02_ses-2_T2w.nii.gz",
    "sub-02/ses-2/anat/sub-02_ses-2_FLAIR.nii.gz",
    "sub-02/ses-2/anat/sub-02_ses-2_UNIT1.nii.gz",
    "sub-02/ses-2/anat/sub-02_ses-2_part-phase_T2w.nii.gz",
]


@pytest.fixture
def taken(make_dataset, tmp_path, fake_node):
    """Run over the names; return the numbers of those that were corrected."""

    def run(*flags, status=0):
        words = [str(make_dataset(*NAMES)), str(tmp_path / "out"), "participant", *flags]
        words.append("--no-reports")  # they take longer than the rest
        fake_node.clear()
        assert cli.main(words) == status
        names = {str(Path(each.input_image).relative_to(tmp_path / "raw")) for each in fake_node}
        return [number for number, name in enumerate(NAMES) if name in names]

    return run


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("--participant-label 01", [0, 1]),
        ("--participant_label sub-01 sub-02", [0, 1, 2, 3]),
        ("--session-label ses-1", [2]),  # participant 01 has no sessions
        ("--session-id 2 --participant-label 02", [3]),
        ("--run-id 1", [0]),
        ("--run-id run-01 2", [0, 1]),
        ("-m FLAIR", [4]),
        ("--modalities T2w FLAIR UNIT1", [3, 4, 5]),
        ("-m T1w T1w", [0, 1, 2]),
    ],
)
def test_which_images(taken, flags, expected):
    assert taken(*flags.split()) == expected


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ("--participant-label 03", 2, "no participant 03 in the dataset; there are: 01, 02"),
        ("--session-label 3", 2, "no session 3 in the dataset; there are: 1, 2"),
        ("--run-id 3", 2, "no run 3 in the dataset; there are: 1, 2"),
        ("-m T1map", 2, "no modality T1map that can be corrected; there are: T1w, T2w"),
        ("-m PDw", 66, "the dataset has no PDw image; anatomical images there are: FLAIR, T1w"),
        ("-m FLAIR --participant-label 01", 18, "no FLAIR image passes the filters"),
    ],
)
def test_labels_that_are_not_there(taken, capsys, flags, status, words):
    assert taken(*flags.split(), status=status) == []
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"t1w": {"acquisition": "a"}}, [0, 3]),
        ({"t1w": {"acquisition": None}}, [2, 3]),
        ({"t1w": {"acquisition": "*"}}, [0, 1, 3]),
        ({"t1w": {"run": [1, "02"]}, "t2w": {"session": "2"}}, [0, 1, 3]),
        ({"bold": {"task": "x"}}, [0, 1, 2, 3]),
    ],
)
def test_bids_filter_file(taken, tmp_path, content, expected):
    path = tmp_path / "filters.json"
    path.write_text(json.dumps(content))
    assert taken("--bids-filter-file", str(path)) == expected


def test_a_filter_file_against_a_flag(taken, tmp_path, capsys):
    path = tmp_path / "filters.json"
    path.write_text('{"t2w": {"session": "1"}}')
    flags = ["--bids-filter-file", str(path), "--session-label", "2", "--participant-label", "02"]
    assert taken(*flags, status=2) == []
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--session-label 2 and session 1 of the filter file contradict" in line
    assert "there are: 1, 2" in line


def test_bids_database_dir(taken, tmp_path, capsys):
    flags = ["--bids-database-dir", str(tmp_path / "db")]
    assert taken(*flags) == [0, 1, 2, 3]
    assert "index: made in" in capsys.readouterr().err
    (kept,) = (tmp_path / "db").iterdir()
    assert taken(*flags, "--participant-label", "02", "--overwrite") == [2, 3]
    assert f"index: from {kept}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "expected", "warned"),
    [("no", [0, 1, 2, 3], False), ("warn", [0, 1, 2, 3], True), ("yes", [1, 2, 3], False)],
)
@pytest.mark.parametrize("key", ["ImageType", "ImageTypeText"])
def test_skip_normalized(taken, make_dataset, capsys, choice, expected, warned, key):
    sidecar = NAMES[0].replace(".nii.gz", ".json")
    make_dataset(json_files={sidecar: {key: ["ORIGINAL", "PRIMARY", "M", "NORM"]}})
    assert taken("--skip-normalized", choice) == expected
    text = capsys.readouterr().err
    assert ("the scanner has corrected this image already" in text) == warned
    assert ("skipped " + NAMES[0] in text) == (choice == "yes")


def test_unit1_is_warned_of(taken, capsys):
    taken("-m", "UNIT1")
    assert "UNIT1 is free of a receive field by design" in capsys.readouterr().err


def test_few_skipped_images_are_named_and_many_counted(taken, capsys):
    taken()
    text = capsys.readouterr().err
    assert f"skipped {NAMES[4]}: FLAIR was not asked for" in text
    assert f"skipped {NAMES[6]}: part is phase" in text


def test_many_skipped_images_of_one_reason_are_one_line(make_dataset, tmp_path, fake_node, capsys):
    names = [f"sub-{n}/anat/sub-{n}_PDw.nii.gz" for n in range(1, 8)]
    root = make_dataset(*names, empty=True)
    make_dataset("sub-1/anat/sub-1_T1w.nii.gz")
    assert cli.main([str(root), str(tmp_path / "out"), "participant"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " skipped " in line]
    assert f"{', '.join(names[:3])} and 4 more (logs/skipped): PDw was not asked for" in line
    tables = sorted((tmp_path / "out" / "logs" / "skipped").iterdir())
    assert len(tables) == 7


def test_low_mem_is_one_image_at_a_time(taken, capsys):
    flags = ["--nprocs", "3", "--omp-nthreads", "2"]
    assert taken(*flags) == [0, 1, 2, 3]
    found = re.search("INFO 3 images at a time, (.*) for a solve", capsys.readouterr().err)
    assert taken(*flags, "--low-mem", "--overwrite") == [0, 1, 2, 3]
    text = capsys.readouterr().err
    assert f"INFO 1 image at a time, {found[1]} for a solve" in text
    assert "no effect" not in text


def test_resource_monitor(taken, capsys):
    taken("--resource-monitor")
    (line,) = re.findall("processor time .*", capsys.readouterr().err)
    found = re.fullmatch(r"processor time (\S+) s, peak memory (\S+) GB \(the .*\)", line)
    assert float(found[1]) > 1 and 0.05 < float(found[2]) < 100
    taken("--overwrite")
    assert "processor time" not in capsys.readouterr().err


def test_flags_without_effect_say_so_once(taken, capsys):
    assert taken("--write-graph", "--random-seed", "7") == [0, 1, 2, 3]
    text = capsys.readouterr().err
    for words in ("--write-graph has no effect: ", "--random-seed has no effect: the method n4"):
        assert text.count(words) == 1
    assert "--low-mem" not in text


def test_notrack_and_verbose(taken, capsys):
    assert taken("--notrack") == [0, 1, 2, 3]
    assert " DEBUG " not in capsys.readouterr().err
    taken("-v")
    assert " DEBUG " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gpu", "gpu:0", "gpu:7"])
def test_a_gpu_that_is_not_there(make_dataset, tmp_path, capsys, monkeypatch, name):
    from n4ax_bids.runtime import device

    monkeypatch.setattr(device, "_gpus", lambda: [])
    words = [str(make_dataset(NAMES[0])), str(tmp_path / "out"), "participant"]
    assert cli.main([*words, "--device", name]) == 2
    assert f"device is '{name}'; JAX sees no GPU here" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_mem_is_mb_or_has_its_unit(fake_node, make_dataset, tmp_path, monkeypatch):
    from n4ax_bids.app.machine import resources

    found = []
    shares = resources.shares
    monkeypatch.setattr(
        resources, "shares", lambda **given: found.append(given["memory"]) or shares(**given)
    )
    words = [str(make_dataset(NAMES[0])), str(tmp_path / "out"), "participant", "--mem"]
    for text in ("200", "0.2G", "200M"):
        assert cli.main([*words, text, "--overwrite"]) == 0
    assert found == [200_000_000] * 3
