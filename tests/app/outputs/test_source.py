"""An output folder belongs to one dataset, independent of its path and its description."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.outputs import finished, root_files, source
from n4ax_bids.app.request import Request

NAMES = [f"sub-0{n}/anat/sub-0{n}_T1w.nii" for n in (1, 2)]
TEMPLATE = {"Name": "Study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", "--no-reports", *flags])


@pytest.fixture
def make_study(tmp_path, write_image):
    """Make a dataset: the seed decides whose scans they are. Names, sizes and times are equal."""

    def make(folder, seed, description=TEMPLATE, names=NAMES):
        root = tmp_path / folder
        for number, name in enumerate(names):
            write_image(root / name, seed=100 * seed + number)
            os.utime(root / name, (1_000_000_000, 1_000_000_000))
        (root / "dataset_description.json").write_text(json.dumps(description))
        return root

    return make


def made_from(out):
    """The digests of the images that outputs were made from."""
    records = sorted((out / "logs/images").rglob("*.json"))
    return [
        json.loads(each.read_text())["inputs"]["input_image"]["fingerprint"] for each in records
    ]


@pytest.mark.usefixtures("finishing_node")
@pytest.mark.parametrize("description", [TEMPLATE, TEMPLATE | {"Name": "Other"}])
@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--dry-run",), ("--reports-only",)])
def test_another_study_with_equal_names_sizes_and_times(
    make_study, tmp_path, capsys, description, flags
):
    out = tmp_path / "out"
    assert main(make_study("a", 1), out) == 0
    before = made_from(out)
    capsys.readouterr()
    other = make_study("b", 2, description)
    flags = [*flags] if flags != ("--reports-only",) else []
    words = [str(other), str(out), "participant", *flags]
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(out) in line and "'Study'" in line and repr(description["Name"]) in line
    assert "2 of 2 images" in line and NAMES[0] in line and "--accept-new-source" in line
    assert made_from(out) == before


@pytest.mark.usefixtures("finishing_node")
def test_another_study_is_accepted_by_an_explicit_word(make_study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(make_study("a", 1), out) == 0
    other = make_study("b", 2, TEMPLATE | {"Name": "Other"})
    before = made_from(out)
    assert main(other, out, "--accept-new-source") == 0
    text = capsys.readouterr().err
    assert "2 of 2 images corrected" in text and "'Study'" in text
    assert not set(made_from(out)) & set(before)
    # From now on the folder is the other study's.
    assert main(other, out) == 0
    assert main(tmp_path / "a", out) == 2
    assert "'Other'" in capsys.readouterr().err


@pytest.mark.usefixtures("finishing_node")
def test_a_container_mounts_every_dataset_at_one_place(make_study, tmp_path, capsys):
    out, data = tmp_path / "out", tmp_path / "data"
    make_study("a", 1), make_study("b", 2)
    (tmp_path / "a").rename(data)
    assert main(data, out) == 0
    data.rename(tmp_path / "a")
    (tmp_path / "b").rename(data)
    assert main(data, out) == 2
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "a", data)  # other times, too
    capsys.readouterr()
    assert main(data, out) == 0
    assert "2 of 2 images are finished already" in capsys.readouterr().err


@pytest.mark.usefixtures("finishing_node")
def test_the_same_dataset_moved_and_described_anew(make_study, tmp_path, capsys):
    out = tmp_path / "out"
    root = make_study("a", 1)
    assert main(root, out) == 0
    root = root.rename(tmp_path / "elsewhere")
    text = json.dumps(TEMPLATE | {"Name": "A better name", "Authors": ["N. N."], "License": "CC0"})
    (root / "dataset_description.json").write_text(text)
    capsys.readouterr()
    assert main(root, out) == 0
    assert "2 of 2 images are finished already" in capsys.readouterr().err
    assert "A better name" in (out / "dataset_description.json").read_text()


@pytest.mark.usefixtures("finishing_node")
def test_an_image_that_was_replaced_is_done_again(make_study, write_image, tmp_path, capsys):
    """This holds with the old size and time, and if only this image is requested."""
    out = tmp_path / "out"
    root = make_study("a", 1)
    assert main(root, out) == 0
    write_image(root / NAMES[0], seed=7)
    os.utime(root / NAMES[0], (1_000_000_000, 1_000_000_000))
    capsys.readouterr()
    assert main(root, out, "--participant-label", "01") == 0
    assert "1 of 1 images corrected" in capsys.readouterr().err


@pytest.mark.usefixtures("finishing_node")
def test_one_participant_of_another_study(make_study, tmp_path):
    """The folder has no outputs of this participant, but the others come from another study."""
    out = tmp_path / "out"
    assert main(make_study("a", 1), out) == 0
    names = [*NAMES, "sub-03/anat/sub-03_T1w.nii"]
    assert main(make_study("b", 2, names=names), out, "--participant-label", "03") == 2
    assert not (out / "sub-03").exists()
    assert main(make_study("a", 1, names=names), out, "--participant-label", "03") == 0


@pytest.mark.usefixtures("finishing_node")
@pytest.mark.parametrize(
    ("description", "status"),
    [
        (TEMPLATE, 0),
        (TEMPLATE | {"License": "CC0"}, 0),
        (TEMPLATE | {"Name": "Other"}, 2),
        (TEMPLATE | {"Authors": ["N. N."]}, 2),
        ({"BIDSVersion": "1.10.0"}, 2),
    ],
)
def test_where_no_image_can_be_compared_the_description_decides(
    make_study, tmp_path, description, status
):
    """This happens on a cluster if each job gets a copy of only its own participants."""
    out = tmp_path / "out"
    assert main(make_study("a", 1), out) == 0
    names = ["sub-03/anat/sub-03_T1w.nii"]
    assert main(make_study("b", 2, description, names), out) == status


def identity(**changes):
    return source.Identity(**{"name": "Study", "version": "x", **changes})


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({}, {}, True),
        ({"version": "y"}, {}, True),
        ({"version": "y", "name": "Other"}, {}, False),
        ({"version": "y", "name": "Other", "doi": "10.1/a"}, {"doi": "10.1/a"}, True),
        ({"version": "y", "doi": "10.1/b"}, {"doi": "10.1/a"}, False),
        ({"version": "y", "is_named": False}, {}, False),
    ],
)
def test_descriptions_agree(one, two, expected):
    assert identity(**one).agrees(identity(**two)) == expected


def test_the_version_of_a_dataset_is_no_part_of_its_name():
    found = {source._doi({"DatasetDOI": f"doi:10.18112/openneuro.ds1.v1.0.{n}"}) for n in (0, 1)}
    assert found == {"10.18112/openneuro.ds1"}


def test_outputs_say_which_dataset_they_were_made_from(make_dataset, tmp_path):
    root, out = make_dataset(), tmp_path / "out"
    out.mkdir()
    raw = {"Name": "tiny", "DatasetDOI": "doi:10.1/x", "Authors": ["A", "B"]}
    root_files.write_dataset_files(Request(root, out), raw)
    assert source.Identity.in_outputs(out) == source.Identity.of(root, raw)
    (out / "dataset_description.json").write_text('{"Name": [], "SourceDatasets": 7}')
    assert source.Identity.in_outputs(out) is None


def test_of_many_finished_images_a_few_are_compared_and_none_is_read_completely(
    make_study, tmp_path, finishing_node, monkeypatch
):
    """So that a large study is found finished in seconds."""
    names = [f"sub-{n:04}/anat/sub-{n:04}_T1w.nii" for n in range(200)]
    root, out = make_study("a", 1, names=names), tmp_path / "out"
    assert main(root, out) == 0
    compared, read = [], []
    for module, function, calls in (
        (source, "_same_content", compared),
        (finished, "_digest", read),
    ):
        monkeypatch.setattr(module, function, counted(getattr(module, function), calls))
    assert main(root, out) == 0
    assert len({image for image, _ in compared}) == source.MOST and read == []
    assert len(compared) == 2 * source.MOST  # once more before the run writes its first file
    assert len(finishing_node) == 200


def counted(function, calls):
    """Return the function with a list of its calls."""

    def counting(*words):
        calls.append(words)
        return function(*words)

    return counting
