"""`--mask auto`, `head` and `brain`: from the command line to sidecar, log and page."""

from __future__ import annotations

import json
import logging

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.core.auto_mask import auto_mask
from n4ax_bids.core.metrics import coefficient_of_variation
from n4ax_bids.io import volume

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
SHAPE = (68, 72, 66)
QUICK = ("--device", "cpu", "--n-iterations", "2", "2", "--omp-nthreads", "1", "--nprocs", "1")


def made_head(path, field=2.5):
    """Write a head of 3 mm voxels under a strong field: scalp, skull, grey and white matter."""
    axes = np.ix_(*(3.0 * (np.arange(n) - n / 2) for n in SHAPE))
    away = np.sqrt(sum(axis**2 for axis in axes))
    image = np.zeros(SHAPE)
    for radius, value in ((92, 120), (84, 8), (74, 75), (58, 100)):
        image[away < radius] = value
    image *= np.exp(field * ((away / 92) ** 2 - 0.5))
    image = np.abs(image + np.random.default_rng(0).normal(0, 2, SHAPE)).astype(np.float32)
    made = nb.Nifti1Image(image, nb.affines.from_matvec(np.diag([3.0] * 3), [-100, -100, -90]))
    made.set_qform(made.affine, 1)
    made.set_sform(made.affine, 1)
    made.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    made.to_filename(path)


@pytest.fixture
def places(make_dataset, tmp_path):
    root = make_dataset()
    made_head(root / NAME)
    return root, tmp_path / "out"


def run(places, *flags):
    root, out = places
    return cli.main([str(root), str(out), "participant", *QUICK, *flags])


def sidecar(out):
    return json.loads((out / NAME.replace("_T1w.nii.gz", "_desc-biascorr_T1w.json")).read_text())


def test_the_mask_is_recorded_told_and_measured_in(places, capsys):
    root, out = places
    assert run(places, "--mask", "auto", "-v") == 0
    image = volume.load(root / NAME)
    expected = auto_mask(image.data, image.zooms)
    assert expected.kind == "brain"
    n4 = sidecar(out)["N4"]
    assert n4["mask"] == "auto" and n4["n_voxels_mask"] == expected.mask.sum()
    for name, value in n4["mask_found"].items():
        assert value == getattr(expected, name), name
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if " mask: brain, " in line]
    assert " INFO " in line and f"{expected.rounds} rounds" in line
    warnings = [line for line in told.splitlines() if " WARNING " in line]
    (warning,) = [line for line in warnings if "of the brain mask" in line]
    assert "sub-01_T1w" in warning
    record = json.loads((out / "sub-01" / "figures" / "sub-01_desc-record_T1w.json").read_text())
    inside = coefficient_of_variation(image.data, expected.mask)
    assert record["measures"]["cv_before"] == pytest.approx(inside)
    assert record["region"].startswith("voxels of the brain that was found in the image (")
    assert f"{expected.rounds} rounds, confidence " in record["region"]
    page = (out / "sub-01.html").read_text()
    assert "voxels of the brain that was found" in page and "of the brain mask" in page
    assert "inside a mask that was found in each image" in page


def test_without_v_there_is_no_line_for_the_mask(places, capsys):
    assert run(places, "--mask", "head", "--no-reports") == 0
    assert " mask: head" not in capsys.readouterr().err


def test_reports_alone_find_the_same_mask(places):
    """From the files, in a process that has kept nothing."""
    from n4ax_bids import region

    _, out = places
    path = out / "sub-01" / "figures" / "sub-01_desc-record_T1w.json"
    assert run(places, "--mask", "auto") == 0
    first = path.read_text()
    path.unlink()
    region._kept.clear()
    assert run(places, "--mask", "auto", "--reports-only") == 0
    assert path.read_text() == first


def test_a_tissue_as_the_weight_inside_the_mask(places, tmp_path):
    root, out = places
    folder = tmp_path / "seg"
    weight = folder / NAME.replace("_T1w", "_label-WM_probseg")
    weight.parent.mkdir(parents=True)
    image = nb.load(root / NAME)
    half = np.zeros(SHAPE, np.float32)
    half[:34] = 1
    nb.Nifti1Image(half, image.affine, image.header).to_filename(weight)
    assert run(places, "--mask", "auto", "--weight", "WM", "-d", f"seg={folder}") == 0
    read = volume.load(root / NAME)
    expected = auto_mask(read.data, read.zooms).mask[:34].sum()
    assert sidecar(out)["N4"]["n_voxels_mask"] == expected
    record = json.loads((out / "sub-01" / "figures" / "sub-01_desc-record_T1w.json").read_text())
    assert record["region"] == f"voxels of {weight.name} and the mask auto"
    voxel = 27 / 1000
    assert record["measures"]["mask_ml"] == pytest.approx(expected * voxel)


def test_an_image_without_a_brain_fails_alone(places, write_image, caplog):
    root, out = places
    write_image(root / "sub-02/anat/sub-02_T1w.nii.gz")
    logging.getLogger("n4ax_bids").propagate = False
    assert run(places, "--mask", "brain", "--no-reports") == 1
    text = (out / "logs" / "crash-sub-02_T1w.txt").read_text()
    assert "sub-02_T1w.nii.gz: no plausible brain was found" in text
    assert sidecar(out)["N4"]["mask_found"]["kind"] == "brain"
    assert not list(out.glob("sub-02/anat/*"))
    assert run(places, "--mask", "auto", "--no-reports", "--overwrite") == 0
