"""Names, sidecars and root files of the derivative dataset."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import fields
from pathlib import Path, PurePosixPath

import pytest

from n4ax_bids.app.job import Job, OutputNames
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.app.outputs.sidecars import of as contents_of
from n4ax_bids.app.request import Request
from n4ax_bids.options import PRESETS, N4Options

LATTICE = {"order": 3, "first": (0.0,) * 3, "step": (0.1,) * 3, "clamp": (1.0,) * 3}


@pytest.fixture
def job(tmp_path):
    relative = PurePosixPath("sub-01/ses-1/anat/sub-01_ses-1_run-02_T2w.nii")
    return Job(
        source=tmp_path / "raw" / relative,
        relative=str(relative),
        outputs=OutputNames.of(relative, tmp_path / "out"),
        entities={"subject": "01", "suffix": "T2w"},
        sidecars=(),
    )


def sidecars(job, metadata=None, options=None):
    tmp = job.source.parents[4]
    correction = {
        "output_image": "/somewhere/x.nii.gz",
        "bias_image": None,
        "lattice_image": None,
        "lattice": LATTICE,
        "mask": "otsu",
        "n_voxels_mask": 12,
        "device": "cpu",
        "details": {"n_iterations": (50, 3), "convergence": (1e-3, float("nan"))},
        "seconds": {"solve": 0.1},
    }
    request = Request(tmp, tmp / "out", options=options or N4Options())
    made = contents_of(job, metadata or {}, correction, request)
    return [made[derivatives.sidecar_path(path)] for path in job.outputs.images]


def test_no_sidecar_tells_a_time(job):
    """Equal runs make equal files."""
    for content in sidecars(job):
        assert "Seconds" not in content["BiasCorrection"] and "Mask" in content["BiasCorrection"]


def test_names_keep_the_source_s_entities_and_are_compressed(job):
    assert job.name == "sub-01_ses-1_run-02_T2w"
    assert [path.name for path in job.outputs.images] == [
        f"sub-01_ses-1_run-02_desc-{label}_T2w.nii.gz"
        for label in ("biascorr", "biasfield", "biaslattice")
    ]
    assert derivatives.sidecar_path(job.outputs.field).name == (
        "sub-01_ses-1_run-02_desc-biasfield_T2w.json"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_is_in_every_sidecar(job, name):
    wanted = PRESETS[name]
    for content in sidecars(job, options=wanted):
        found = content["BiasCorrection"]["Options"]
        assert found == {item.name: getattr(wanted, item.name) for item in fields(N4Options)}


def test_what_the_run_found_is_in_the_sidecar_and_its_paths_are_not(job):
    for content in sidecars(job):
        n4 = content["BiasCorrection"]
        assert (n4["Mask"], n4["NVoxelsMask"], n4["Device"]) == ("otsu", 12, "cpu")
        assert not {"output_image", "bias_image", "lattice_image"} & set(n4)
        assert set(n4["Versions"]) == {"n4ax_bids", "jax", "numpy"}
        assert content["Sources"] == [f"bids:raw:{job.relative}"]
        assert content["Description"]


def test_what_is_known_of_the_raw_image_is_kept_and_of_its_conversion_is_not(job):
    corrected, field, lattice = sidecars(
        job,
        {
            "EchoTime": 0.1,
            "ImageType": ["ORIGINAL", "NORM"],
            "ConversionSoftware": "x",
            "ConversionSoftwareVersion": "1",
            "dcmmeta_shape": [1],
            "InversionTime": float("nan"),
            "Description": "raw",
            "Sources": ["x"],
        },
    )
    assert corrected["EchoTime"] == 0.1
    assert corrected["ImageType"] == ["ORIGINAL", "NORM"]
    assert corrected["Description"] != "raw"
    assert corrected["Sources"] != ["x"]
    for gone in ("ConversionSoftware", "ConversionSoftwareVersion", "dcmmeta_shape"):
        assert gone not in corrected
    assert "InversionTime" not in corrected
    assert field["Units"] == "arbitrary"
    assert "EchoTime" not in field
    assert "Units" not in corrected
    assert lattice["Lattice"] == LATTICE


@pytest.mark.parametrize(("said", "expected"), [(None, False), (False, False), (True, True)])
def test_skull_stripped_is_always_said(job, said, expected):
    for content in sidecars(job, {} if said is None else {"SkullStripped": said}):
        assert content["SkullStripped"] is expected


def test_json_is_equal_for_equal_contents_and_has_no_nan():
    text = derivatives.encode({"b": (1.0, float("inf")), "a": {"c": float("nan")}, "p": Path("x")})
    assert json.loads(text) == {"b": [1.0, None], "a": {"c": None}, "p": "x"}
    assert text == derivatives.encode({"p": "x", "a": {"c": None}, "b": [1.0, None]})
    assert "NaN" not in text and "Infinity" not in text


def test_publish_puts_all_in_place_or_none(tmp_path):
    good, target = tmp_path / "a", tmp_path / "out" / "a"
    good.write_text("new")
    with pytest.raises(FileNotFoundError):
        derivatives.publish([(good, target), (tmp_path / "missing", tmp_path / "out" / "b")])
    assert list((tmp_path / "out").iterdir()) == []
    good.write_text("new")
    target.write_text("old")
    derivatives.publish([(good, target)])
    assert target.read_text() == "new"
    assert not good.exists()


def test_publish_crosses_file_systems(tmp_path, monkeypatch):
    def other_file_system(source, target, *rest, **more):
        raise OSError(18, "Invalid cross-device link")

    good, target = tmp_path / "a", tmp_path / "out" / "a"
    good.write_text("new")
    monkeypatch.setattr(os, "rename", other_file_system)
    derivatives.publish([(good, target)])
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["a"]


def test_text_files_have_the_usual_mode_and_are_left_when_equal(tmp_path):
    path = tmp_path / "x.json"
    plain = tmp_path / "plain"
    plain.touch()
    derivatives.write_text(path, "1")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    before = path.stat().st_ino
    derivatives.write_text(path, "1")
    assert path.stat().st_ino == before
    derivatives.write_text(path, "2")
    assert path.read_text() == "2"
    assert sorted(tmp_path.iterdir()) == [plain, path]


def test_a_huge_file_in_the_place_of_a_text_is_replaced_unread(tmp_path):
    path = tmp_path / "dataset_description.json"
    path.touch()
    os.truncate(path, 2**42)  # no memory holds it
    derivatives.write_text(path, "{}")
    assert path.read_text() == "{}"


def test_maps_of_tissues_are_named_as_bids_says_and_removed_when_unwanted(tmp_path):
    relative = PurePosixPath("sub-01/anat/sub-01_chunk-1_T1w.nii.gz")
    labels = ("GM", "class1", "curve")
    outputs = OutputNames.of(relative, tmp_path, further=labels, probsegs=labels[:2])
    names = {label: path.name for label, path in outputs.further.items()}
    assert names == {
        "GM": "sub-01_space-T1w_chunk-1_label-GM_probseg.nii.gz",
        "class1": "sub-01_space-T1w_chunk-1_label-class1_probseg.nii.gz",
        "curve": "sub-01_chunk-1_desc-curve_T1w.nii.gz",
    }
    for path in outputs.further.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        derivatives.sidecar_path(path).touch()
    kept = OutputNames.of(relative, tmp_path, further=["GM"], probsegs=["GM"])
    derivatives.remove_unwanted(kept)
    left = sorted(path.name for path in kept.lattice.parent.iterdir())
    assert left == [names["GM"].replace(".nii.gz", ".json"), names["GM"]]
