"""Figures and numbers of an image, from its files."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from PIL import Image

from n4ax_bids.app.reports import contents, image_report, image_shown
from n4ax_bids.app.reports import grid as grid_module
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.core.metrics import coefficient_of_variation, joint_variation
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.image import in_memory
from n4ax_bids.io import volume

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
MOST = 400_000
"""bytes that the files of an image may take"""


@pytest.fixture
def corrected(forgetful_node, make_dataset, tmp_path):
    """Return a job whose outputs are in place, made by the node that halves images."""
    from n4ax_bids.app import cli

    root, out = make_dataset(NAME), tmp_path / "out"
    assert cli.main([str(root), str(out), "participant", "--no-reports"]) == 0
    (job,) = dataset.select(Request(root, out)).jobs
    return job


def drawn(job, folder: Path, derivatives=None) -> dict:
    folder.mkdir(exist_ok=True)
    names = contents.names(job.name, folder)
    root = job.source.parents[2].with_name("out")
    image_report.write(job, root, names, derivatives or {})
    assert all(path.stat().st_size > 300 for path in names.values())
    return json.loads(names["record"].read_text()) | {"names": names}


def test_numbers_are_those_of_the_files(corrected, tmp_path):
    image = nb.load(corrected.source).get_fdata(dtype=np.float32)
    half = nb.load(corrected.outputs.corrected).get_fdata(dtype=np.float32)
    inside = otsu_mask(image)
    segmentation = tmp_path / "seg" / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    segmentation.parent.mkdir(parents=True)
    dseg = np.digitize(image, [150, 330]).astype(np.uint8)
    nb.Nifti1Image(dseg, nb.load(corrected.source).affine).to_filename(segmentation)

    found = drawn(corrected, tmp_path / "sub-01", {"seg": tmp_path / "seg"})
    measures = found["measures"]
    assert measures["cv_before"] == pytest.approx(coefficient_of_variation(image, inside))
    assert measures["cv_after"] == pytest.approx(coefficient_of_variation(half, inside))
    for when, data in (("before", image), ("after", half)):
        white, grey = dseg == 2, dseg == 1
        assert measures[f"cjv_{when}"] == pytest.approx(joint_variation(data, white, grey))
        for name, tissue in (("white", white), ("grey", grey)):
            expected = coefficient_of_variation(data, tissue)
            assert measures[f"{name}_cv_{when}"] == pytest.approx(expected)
    voxel = abs(np.linalg.det(nb.load(corrected.source).affine[:3, :3]))
    assert measures["mask_ml"] == pytest.approx(inside.sum() * voxel / 1000, rel=1e-5)
    assert (measures["field_min"], measures["field_max"]) == (1.9, 2.1)
    assert measures["field_ratio"] == pytest.approx(2.1 / 1.9)
    assert found["gain"] == pytest.approx(2, rel=1e-5)
    assert found["tissues"] == ["seg:sub-01/anat/sub-01_dseg.nii.gz"]
    assert found["warnings"] == []


def test_without_a_segmentation_there_are_no_tissues(corrected, tmp_path):
    found = drawn(corrected, tmp_path / "sub-01")
    assert found["tissues"] == [] and "cjv_after" not in found["measures"]


def test_half_the_image_is_drawn_as_bright_as_the_whole(corrected, tmp_path):
    names = drawn(corrected, tmp_path / "sub-01")["names"]
    before, after = (
        np.asarray(Image.open(names[k]).convert("L"), float) for k in ("before", "after")
    )
    assert before.shape == after.shape
    tissue = (before > 60) & (before < 250)
    assert tissue.any()
    assert np.median(after[tissue] / before[tissue]) == pytest.approx(1, abs=0.03)


def test_the_window_is_that_of_the_tissue_not_of_fat_around_it():
    """A sphere of tissue under a bright skin, which is as large as a tenth of it."""
    from n4ax_bids.app.reports.stack_shown import Shown
    from n4ax_bids.app.reports.windows import levels

    away = np.sqrt(sum(x**2 for x in np.ogrid[-1:1:60j, -1:1:60j, -1:1:60j]))
    data = np.where(away < 0.85, 100.0, np.where(away < 0.95, 900.0, 0.0)).astype(np.float32)
    image = image_report.Volume(
        np.asfortranarray(data), np.eye(4), nb.Nifti1Header(), Path("x"), np.dtype(np.float32)
    )
    half = dataclasses.replace(image, data=image.data / 2)
    shown = Shown(image, half, image.data > 50, "", lambda at: np.zeros([len(i) for i in at]))
    for tissue in (None, np.asfortranarray(away < 0.85)):
        found = levels(shown, tissue)
        assert found.window == pytest.approx((0, 115)) and found.gain == pytest.approx(2)
        assert found.spread == pytest.approx((100, 900)) and found.field_median == 1


def test_a_mask_file_is_where_the_numbers_are_from(corrected, tmp_path):
    from dataclasses import replace

    image = nb.load(corrected.source)
    mask = np.zeros(image.shape, np.uint8)
    mask[8:14, 8:14, 8:14] = 1
    nb.Nifti1Image(mask, image.affine).to_filename(tmp_path / "m.nii.gz")
    found = drawn(replace(corrected, mask=tmp_path / "m.nii.gz"), tmp_path / "sub-01")
    expected = coefficient_of_variation(image.get_fdata(dtype=np.float32), mask > 0)
    assert found["measures"]["cv_before"] == pytest.approx(expected)
    assert found["region"] == "voxels of m.nii.gz"


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("meter", 1e3)])
def test_the_volume_of_the_mask_is_in_ml_whatever_the_unit(corrected, tmp_path, unit, mm):
    expected = drawn(corrected, tmp_path / "before")["measures"]["mask_ml"]
    for path in (corrected.source, corrected.outputs.corrected):
        image = nb.load(path)
        affine = image.affine.copy()
        affine[:3] /= mm
        image = nb.Nifti1Image(image.get_fdata(dtype=np.float32), affine)
        image.header.set_xyzt_units(unit)
        image.to_filename(path)
    found = drawn(corrected, tmp_path / "after")
    assert found["measures"]["mask_ml"] == pytest.approx(expected, rel=1e-5)


def test_voxels_outside_the_mask_may_be_nan(corrected, tmp_path):
    """Figures and numbers are those of an image with the same voxels left out."""
    from dataclasses import replace

    image = nb.load(corrected.source)
    mask = np.zeros(image.shape, np.uint8)
    mask[4:14, 4:14, 4:14] = 1
    nb.Nifti1Image(mask, image.affine).to_filename(tmp_path / "m.nii.gz")
    segmentation = tmp_path / "seg" / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    segmentation.parent.mkdir(parents=True)
    tissue = np.digitize(image.get_fdata(), [150, 330]).astype(np.uint8)
    nb.Nifti1Image(tissue, image.affine).to_filename(segmentation)
    for path in (corrected.source, corrected.outputs.corrected):
        data = nb.load(path).get_fdata(dtype=np.float32)
        data[mask == 0] = np.nan
        data[-1, -1, -1] = np.inf
        nb.Nifti1Image(data, image.affine).to_filename(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = replace(corrected, mask=tmp_path / "m.nii.gz")
        found = drawn(job, tmp_path / "sub-01", {"seg": tmp_path / "seg"})
    data = nb.load(corrected.source).get_fdata(dtype=np.float32)
    inside = mask > 0
    assert found["measures"]["cv_before"] == pytest.approx(coefficient_of_variation(data, inside))
    white = (tissue == 2) & inside
    expected = coefficient_of_variation(data, white)
    assert found["measures"]["white_cv_before"] == pytest.approx(expected)
    assert np.isfinite(found["window"]).all()


def test_warnings(corrected, tmp_path):
    sidecar = corrected.outputs.corrected.with_name("sub-01_desc-biascorr_T1w.json")
    content = json.loads(sidecar.read_text())
    content["BiasCorrection"] |= {"Notes": ["taken as equal"]}
    sidecar.write_text(json.dumps(content))
    image = nb.load(corrected.outputs.corrected)
    uneven = image.get_fdata(dtype=np.float32) * np.linspace(0.2, 3, image.shape[0])[:, None, None]
    nb.Nifti1Image(uneven, image.affine).to_filename(corrected.outputs.corrected)
    note, worse = drawn(corrected, tmp_path / "sub-01")["warnings"]
    assert note == "taken as equal"
    assert worse.startswith("the image is less even")


def test_an_output_that_does_not_fit_is_an_error_that_names_it(corrected, tmp_path):
    image = nb.load(corrected.outputs.corrected)
    nb.Nifti1Image(image.get_fdata()[:-1], image.affine).to_filename(corrected.outputs.corrected)
    with pytest.raises(ValueError, match="biascorr_T1w.nii.gz: shape"):
        drawn(corrected, tmp_path / "sub-01")
    assert not any((tmp_path / "sub-01").rglob("*.*"))


def test_turned_axes_show_the_same_head(tmp_path):
    """A volume stored along other axes, some backwards, gives the same voxels at the same cuts."""
    data = np.arange(4 * 5 * 6.0).reshape(4, 5, 6)
    turned = grid_module.Grid((0, 1, 2), (False, False, False), data.shape)
    other = np.asfortranarray(data.transpose(2, 0, 1)[::-1, :, ::-1])
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -1, 1, -1, 1
    from n4ax_bids.io.geometry import closest_axes

    grid = grid_module.Grid(*closest_axes(affine), other.shape)
    np.testing.assert_array_equal(grid.turned(other), turned.turned(np.asfortranarray(data)))
    cuts = (np.array([1, 3]), np.array([0, 2, 4]), np.array([5]))
    np.testing.assert_array_equal(grid.values(other)(cuts), data[np.ix_(*cuts)])


def test_the_field_of_the_lattice_is_that_of_the_file(make_dataset, tmp_path, monkeypatch):
    """At the cuts of an oblique image whose axes are turned; and figures from memory are those
    from files."""
    from n4ax_bids.app import cli

    root, out = make_dataset(NAME), tmp_path / "out"
    image = nb.load(root / NAME)
    turned = image.as_reoriented(nb.orientations.axcodes2ornt("PSR"))
    turned.to_filename(root / NAME)
    flags = ["--device", "cpu", "--n-iterations", "4", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(image_shown, "load", None)  # no file of voxels is needed
        patch.setattr(image_shown, "region", None)
        assert cli.main([str(root), str(out), "participant", *flags]) == 0
    (job,) = dataset.select(Request(root, out)).jobs
    at_once = contents.names(job.name, out / "sub-01" / contents.FOLDER)
    again = drawn(job, tmp_path / "again")["names"]
    assert in_memory.last() is None
    for label, path in again.items():
        assert path.read_bytes() == at_once[label].read_bytes(), label
    source = volume.load(job.source)
    grid = grid_module.grid_of(source)
    field = volume.load(job.outputs.field).data
    cuts = tuple(np.array([0, n // 3, n - 1]) for n in grid.turned(field).shape)
    expected = grid.values(field)(cuts)
    found = np.exp(grid.field(image_shown._log_field(job.outputs.lattice))(cuts))
    np.testing.assert_allclose(found, expected, rtol=2e-6)  # float32, sums in another order


@pytest.mark.parametrize("name", ["head-philips3t_T1w.nii.gz", "kidney-ge3t_GRE.nii.gz"])
def test_real_images_take_little_room(test_data, make_dataset, fake_node, tmp_path, name):
    from n4ax_bids.app import cli

    root, out = make_dataset(NAME), tmp_path / "out"
    (root / NAME).write_bytes(test_data(name).read_bytes())
    assert cli.main([str(root), str(out), "participant"]) == 0
    files = list((out / "sub-01" / "figures").iterdir())
    assert len(files) == 5
    assert sum(path.stat().st_size for path in [*files, out / "sub-01.html"]) <= MOST
