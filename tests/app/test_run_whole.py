"""The whole run, with the real node: the outputs, their headers, sidecars and validity."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import nibabel as nb
import numpy as np

from n4ax_bids.options import N4Options
from tests.app.three_images import THREE, files, main

FAST = ["--device", "cpu", "--n-iterations", "4", "3"]
"""Few iterations: what is tested here is not the field."""


def assert_same_place(output: Path, source: Path):
    """Affine, q-form and s-form, their codes, zooms and units are those of the source."""
    made, raw = nb.load(output).header, nb.load(source).header
    names = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c")
    for name in (*names, "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units"):
        np.testing.assert_array_equal(made[name], raw[name], err_msg=f"{name} of {output.name}")
    np.testing.assert_array_equal(made.get_best_affine(), raw.get_best_affine())
    assert made.get_zooms() == raw.get_zooms()
    assert made.get_data_shape() == raw.get_data_shape()
    assert made.get_data_dtype() == np.float32


def assert_product(stem: str, source: Path):
    """corrected × field = input: three float32 roundings, far below the demanded 1e-5."""
    corrected = nb.load(f"{stem.replace('@', 'biascorr')}").get_fdata()
    field = nb.load(f"{stem.replace('@', 'biasfield')}").get_fdata()
    image = nb.load(source).get_fdata()
    assert field.min() > 0
    np.testing.assert_allclose(corrected * field, image, rtol=1e-6, atol=1e-12)


def check_outputs(root: Path, out: Path, relative: str):
    source = root / relative
    folder, name = (out / relative).parent, source.name.removesuffix(".gz").removesuffix(".nii")
    entities, _, suffix = name.rpartition("_")
    stem = f"{folder}/{entities}_desc-@_{suffix}.nii.gz"
    for label in ("biascorr", "biasfield"):
        assert_same_place(Path(stem.replace("@", label)), source)
    assert_product(stem, source)
    for label in ("biascorr", "biasfield", "biaslattice"):
        text = Path(stem.replace("@", label).replace(".nii.gz", ".json")).read_text()
        content = json.loads(text)
        assert content["Sources"] == [f"bids:raw:{relative}"]
        n4 = content["BiasCorrection"]
        assert set(n4["Options"]) == {item.name for item in fields(N4Options)}
        assert n4["Mask"] == "auto"
        assert 0 < n4["NVoxelsMask"] < np.prod(nb.load(source).shape)
        assert n4["Device"]
        details, levels = n4["Details"], len(n4["Options"]["n_iterations"])
        assert len(details["n_iterations"]) == len(details["convergence"]) == levels
        assert not n4["Rescaled"]
    assert set(content["Lattice"]) == {"order", "first", "step", "clamp", "shape"}
    assert tuple(content["Lattice"]["shape"]) == nb.load(source).shape


def test_a_small_dataset_becomes_a_valid_derivative(
    make_dataset, write_image, bids_errors, tmp_path
):
    root = make_dataset(
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_task-x_acq-a_run-1_T2w.nii.gz",
        json_files={
            "T1w.json": {"MagneticFieldStrength": 3, "ConversionSoftware": "x"},
            "sub-01/anat/sub-01_T1w.json": {"SkullStripped": False, "EchoTime": 0.003},
        },
    )
    write_image(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii", dtype=np.float32, codes=(0, 4))
    write_image(root / "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz", dtype=np.uint8, codes=(2, 0))
    assert bids_errors(root) == []
    out = tmp_path / "out"
    assert main(root, out, *FAST) == 0
    assert bids_errors(out) == []
    images = [name for name in files(root) if ".nii" in name]
    assert len(images) == 4
    for relative in images:
        check_outputs(root, out, relative)
    content = json.loads((out / "sub-01/anat/sub-01_desc-biascorr_T1w.json").read_text())
    assert content["EchoTime"] == 0.003
    assert content["MagneticFieldStrength"] == 3
    assert "ConversionSoftware" not in content


def test_equal_runs_give_equal_files(make_dataset, tmp_path):
    root = make_dataset(*THREE[:2])
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(root, first, *FAST) == 0
    assert main(root, second, *FAST, "-w", str(tmp_path / "work")) == 0
    assert files(first) == files(second)
    for name in files(first):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_options_reach_the_solver(make_dataset, tmp_path):
    root = make_dataset(THREE[0])
    flags = ["--device", "cpu", "--shrink-factor", "2", "--n-iterations", "3", "2", "1"]
    more = ["--n-control-points", "5", "4", "4", "--over-relaxation", "1.5", "--mask", "none"]
    assert main(root, tmp_path / "out", *flags, *more) == 0
    sidecar = tmp_path / "out/sub-01/anat/sub-01_desc-biascorr_T1w.json"
    n4 = json.loads(sidecar.read_text())["BiasCorrection"]
    assert n4["Mask"] == "none"
    assert n4["Details"]["n_iterations"] == [3, 2, 1]
    assert n4["Details"]["shrink_factors"] == [2, 2, 2]
    assert n4["Details"]["n_control_points"] == [5, 4, 4]
    assert n4["Options"]["over_relaxation"] == 1.5


def test_real_dataset(test_data, bids_errors, tmp_path):
    bids_small = test_data("bids-small")
    out = tmp_path / "out"
    assert main(bids_small, out, "--device", "cpu") == 0
    relative = [
        name
        for name in files(bids_small)
        if name.endswith(("T1w.nii.gz", "T1w.nii", "T2w.nii.gz"))
    ]
    assert len(relative) == 4
    for name in relative:
        check_outputs(bids_small, out, name)
    assert len([name for name in files(out) if "desc-biascorr" in name]) == 2 * len(relative)
    assert bids_errors(out) == []
