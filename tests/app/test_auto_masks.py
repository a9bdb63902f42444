"""`--mask auto`, `head` and `brain`: from the command line to sidecar, log and page."""

from __future__ import annotations

import json
import logging
import re

import nibabel as nb
import numpy as np
import pytest
from PIL import Image

from n4ax_bids.app import cli
from n4ax_bids.app.job import mask_name
from n4ax_bids.core.mask.auto_mask import auto_mask
from n4ax_bids.core.metrics import coefficient_of_variation
from n4ax_bids.io import volume

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
SHAPE = (68, 72, 66)
KINDS = ("brain", "head")
QUICK = ("--device", "cpu", "--n-iterations", "2", "2", "--omp-nthreads", "1", "--nprocs", "1")


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
    n4 = sidecar(out)["BiasCorrection"]
    assert n4["Mask"] == "auto" and n4["NVoxelsMask"] == expected.mask.sum()
    for name, value in n4["MaskFound"].items():
        field = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()  # OtsuCovers is otsu_covers
        assert value == getattr(expected, field), name
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


@pytest.mark.parametrize("mask", ("auto", "otsu"))
def test_the_outline_of_a_found_mask_is_drawn(places, mask):
    _, out = places
    assert run(places, "--mask", mask) == 0
    for when in ("before", "after"):
        path = out / "sub-01" / "figures" / f"sub-01_desc-{when}_T1w.webp"
        colours = np.asarray(Image.open(path).convert("RGB")).astype(int)
        yellow = colours[..., 0] - colours[..., 2] > 60
        assert yellow.any() and yellow.mean() < 0.2


def test_without_v_there_is_no_line_for_the_mask(places, capsys):
    assert run(places, "--mask", "head", "--no-reports") == 0
    assert " mask: head" not in capsys.readouterr().err


def test_reports_alone_find_the_same_mask(places):
    """It is found from the files, without anything kept from the run."""
    from n4ax_bids.masks import region

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
    assert sidecar(out)["BiasCorrection"]["NVoxelsMask"] == expected
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
    assert sidecar(out)["BiasCorrection"]["MaskFound"]["Kind"] == "brain"
    assert not list(out.glob("sub-02/anat/*"))
    assert run(places, "--mask", "auto", "--no-reports", "--overwrite") == 0


def test_the_mask_is_saved_as_an_output_of_the_image(places, bids_errors, capsys):
    root, out = places
    flags = ("--mask", "auto", "--save-mask", "--no-reports")
    assert run(places, *flags, "--dry-run") == 0
    brain = "sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz"
    assert f"-> {brain}, or sub-01_space-T1w_desc-head_mask.nii.gz" in capsys.readouterr().out
    assert run(places, *flags) == 0
    image = volume.load(root / NAME)
    saved = np.asarray(nb.load(out / brain).dataobj)
    np.testing.assert_array_equal(saved, auto_mask(image.data, image.zooms).mask)
    about = json.loads((out / brain.replace(".nii.gz", ".json")).read_text())
    assert about["Type"] == "Brain" and about["Sources"] == [f"bids:raw:{NAME}"]
    assert about["SpatialReference"] == f"bids:raw:{NAME}" and about["Description"]
    assert about["BiasCorrection"]["MaskFound"]["Kind"] == "brain"
    assert len(list(out.rglob("*_mask.*"))) == 2
    record = json.loads((out / "logs/images/sub-01/anat/sub-01_T1w.json").read_text())
    assert brain in record["outputs"]
    assert "desc-brain\t" in (out / "descriptions.tsv").read_text()
    assert bids_errors(out) == []


def test_a_restart_knows_the_mask(places, capsys):
    root, out = places
    flags = ("--save-mask", "--no-reports")
    brain, head = (out / f"sub-01/anat/sub-01_space-T1w_desc-{k}_mask.nii.gz" for k in KINDS)

    def corrected(*more):
        assert run(places, *flags, *more) == 0
        return ": corrected in " in capsys.readouterr().err

    assert corrected("--mask", "auto") and not corrected("--mask", "auto")
    brain.unlink()
    assert corrected("--mask", "auto") and brain.is_file()
    brain.write_bytes(b"")
    assert corrected("--mask", "auto") and brain.stat().st_size
    assert corrected("--mask", "head") and head.is_file()
    assert sorted(out.rglob("*_mask.*")) == [head.with_name(head.name[:-7] + ".json"), head]
    assert json.loads(head.with_name(head.name[:-7] + ".json").read_text())["Type"] == "ROI"
    assert run(places, "--mask", "head", "--no-reports") == 0
    assert not list(out.rglob("*_mask.*"))


def test_what_was_saved_serves_a_later_run_as_a_mask(places, tmp_path):
    root, out = places
    assert run(places, "--mask", "auto", "--save-mask", "--no-reports") == 0
    first = sidecar(out)["BiasCorrection"]["NVoxelsMask"]
    again = tmp_path / "again"
    flags = ("--mask", "derivatives", "-d", f"n4={out}", "--no-reports")
    assert run((root, again), *flags) == 0
    assert sidecar(again)["BiasCorrection"]["NVoxelsMask"] == first
    assert sidecar(again)["BiasCorrection"]["Mask"].endswith("_space-T1w_desc-brain_mask.nii.gz")


def test_the_masks_of_two_contrasts_have_two_names():
    names = {mask_name(f"sub-01_{suffix}", "head") for suffix in ("T1w", "T2w")}
    assert names == {f"sub-01_space-{s}_desc-head_mask.nii.gz" for s in ("T1w", "T2w")}
    long = mask_name("sub-01_run-1_part-mag_chunk-2_T1w", "brain")
    assert long == "sub-01_run-1_part-mag_space-T1w_chunk-2_desc-brain_mask.nii.gz"


@pytest.mark.parametrize("mask", ("none", "derivatives"))
def test_only_a_mask_that_is_found_can_be_saved(places, capsys, mask):
    with pytest.raises(SystemExit) as ended:
        run(places, "--mask", mask, "-d", str(places[0]), "--save-mask")
    assert ended.value.code == 2
    assert "--save-mask needs a mask that is found in the image" in capsys.readouterr().err
    assert not places[1].exists()


def test_an_engine_of_nipype_saves_the_mask(places, tmp_path):
    root, out = places
    engine = tmp_path / "engine.json"
    engine.write_text('{"plugin": "Linear"}')
    flags = ("--mask", "auto", "--save-mask", "--no-reports", "--use-plugin", str(engine))
    assert run(places, *flags) == 0
    assert (out / "sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz").is_file()
