"""What the verb `realign` writes: series, tables, transforms, figures, a field for all volumes."""

from __future__ import annotations

import json

import nibabel as nb
import nitransforms as nt
import numpy as np
import pytest

import n4ax_bids
from n4ax_bids import Realign, RealignOptions
from n4ax_bids.core.motion import rigid
from n4ax_bids.core.motion.reslice import reslice
from n4ax_bids.io import motion_files
from n4ax_bids.report import motion as figures
from tests.core.motion.small_series import SMALL
from tests.moving_head import motions, moving_head, rms, save


@pytest.fixture(scope="module")
def moved():
    return moving_head(motions(5), noise=0.005, **SMALL)


@pytest.fixture(scope="module")
def folder(moved, tmp_path_factory):
    """One run that writes everything."""
    where = tmp_path_factory.mktemp("realigned")
    save(where / "bold.nii.gz", moved.volumes, moved.affine)
    n4ax_bids.realign(
        where / "bold.nii.gz",
        where / "realigned.nii.gz",
        mean_image=where / "mean.nii.gz",
        sd_image=where / "sd.nii",
        reference_output=where / "boldref.nii.gz",
        motion_table=where / "motion.tsv",
        itk_transforms=where / "hmc_xfm.txt",
        fsl_matrices=where / "bold.mat",
        fsl_parameters=where / "bold.par",
        fsl_absolute_rms=where / "bold_abs.rms",
        fsl_relative_rms=where / "bold_rel.rms",
        spm_parameters=where / "rp_bold.txt",
        afni_matrices=where / "bold.aff12.1D",
        sidecar=where / "bold.json",
        figures=where / "figures",
        output_dtype="source",
    )
    return where


def table_of(path):
    names, *rows = path.read_text().splitlines()
    columns = zip(*(row.split("\t") for row in rows), strict=True)
    return dict(zip(names.split("\t"), columns, strict=True))


def test_the_header_is_kept(folder, moved):
    before, after = (nb.load(folder / name) for name in ("bold.nii.gz", "realigned.nii.gz"))
    assert after.shape == before.shape
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header.get_zooms() == before.header.get_zooms()
    assert after.header.get_xyzt_units() == ("mm", "sec")
    for name in ("qform_code", "sform_code"):
        assert after.header[name] == before.header[name]
    assert after.get_data_dtype() == before.get_data_dtype() == np.int16
    mean = nb.load(folder / "mean.nii.gz")
    assert mean.shape == moved.shape and mean.get_data_dtype() == np.float32
    np.testing.assert_allclose(mean.affine, before.affine)
    # Viewers show grey values from cal_min to cal_max, which is not the range of the deviation.
    shown = ("realigned.nii.gz", "mean.nii.gz", "sd.nii")
    assert [nb.load(folder / name).header["cal_max"] for name in shown] == [900, 900, 0]


def test_the_table_has_a_row_for_each_volume_and_the_true_motion(folder, moved):
    table = table_of(folder / "motion.tsv")
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    q = np.array([[float(v) for v in table[name]] for name in names]).T
    mm, degrees = rms(q, moved.q)
    assert mm <= 0.05 and degrees <= 0.05
    assert table["framewise_displacement"][0] == table["rmsd"][0] == "n/a"
    assert {"scale", "residual"} <= table.keys()


def test_all_files_hold_the_same_transforms(folder, moved):
    reference = nb.load(folder / "mean.nii.gz")
    itk = nt.linear.load(folder / "hmc_xfm.txt", fmt="itk").matrix
    assert len(itk) == 5
    for i, each in enumerate(itk):
        fsl = nt.linear.load(
            folder / f"bold.mat/MAT_{i:04d}", fmt="fsl", reference=reference, moving=reference
        )
        np.testing.assert_allclose(fsl.matrix.squeeze(), each, atol=1e-4)
    rows = motion_files.read_table(folder / "bold.aff12.1D", 12)
    np.testing.assert_allclose(rigid.from_afni_rows(rows), itk, atol=1e-9)
    rows = motion_files.read_table(folder / "rp_bold.txt", 6)
    np.testing.assert_allclose(rigid.from_spm_parameters(rows, itk[0]), itk, atol=1e-8)
    rows = motion_files.read_table(folder / "bold.par", 6)
    target = nb.load(folder / "boldref.nii.gz").get_fdata()
    centre = rigid.fsl_gravity(target, reference.affine)
    matrices = rigid.from_fsl_parameters(rows, centre)
    fsl = rigid.from_fsl_matrices(matrices, reference.affine, moved.shape)
    np.testing.assert_allclose(fsl, itk, atol=1e-6)


def test_displacements_as_of_fsl(folder, moved):
    absolute = motion_files.read_table(folder / "bold_abs.rms", 1)
    relative = motion_files.read_table(folder / "bold_rel.rms", 1)
    assert len(absolute) == 5 and len(relative) == 4
    table = table_of(folder / "motion.tsv")
    np.testing.assert_allclose(relative[:, 0], [float(v) for v in table["rmsd"][1:]], rtol=1e-6)
    centre = rigid.grid_centre(moved.affine, moved.shape)
    true = rigid.mapping(moved.q, moved.affine, moved.shape)
    expected = rigid.rms_displacement(true, centre, to="reference")
    np.testing.assert_allclose(absolute[1:, 0], expected[1:], rtol=0.05)


def test_the_series_is_steadier(folder):
    before, after = (
        nb.load(folder / name).get_fdata() for name in ("bold.nii.gz", "realigned.nii.gz")
    )
    inside = after.mean(axis=-1) > 150
    assert after.std(axis=-1)[inside].mean() < 0.4 * before.std(axis=-1)[inside].mean()
    sd = nb.load(folder / "sd.nii").get_fdata()
    away = np.zeros_like(inside)
    away[4:-4, 4:-4, 4:-4] = True  # from what leaves the grid in some volume
    away &= inside
    np.testing.assert_allclose(sd[away], after.std(axis=-1)[away], atol=0.5)


def test_the_sidecar_has_every_option(folder):
    record = json.loads((folder / "bold.json").read_text())
    assert record["Options"].keys() == RealignOptions.__dataclass_fields__.keys()
    assert record["NumberOfVolumes"] == 5 and record["Flagged"] == {}
    assert all(record["Converged"])


def test_three_figures(folder):
    names = {"motion.svg", "slices.png", "mosaic.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == names
    svg = (folder / "figures" / "motion.svg").read_text()
    assert "<svg" in svg
    figure = figures.motion_figure(
        {f"{kind}_{axis}": np.full(3, 0.1) for kind in ("trans", "rot") for axis in "xyz"}
        | {"residual": np.ones(3)}
    )
    top, middle, _ = figure.axes
    assert "mm" in top.get_ylabel() and "degrees" in middle.get_ylabel()
    np.testing.assert_allclose(middle.lines[0].get_ydata(), np.degrees(0.1))


def test_a_mosaic_shows_every_plane(rng):
    volume = rng.uniform(size=(4, 3, 5))
    found = figures.mosaic(volume, border=-1)
    assert found.shape == (2 * 3 + 1, 3 * 4 + 2)
    np.testing.assert_allclose(found[4:, 5:9], volume[:, ::-1, 4].T, rtol=1e-6)
    assert (found[3] == -1).all() and (found[:, 4] == -1).all()


def test_nothing_is_left_unfinished(folder):
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.fixture(scope="module")
def shaded(moved, folder, tmp_path_factory):
    """The head in a coil whose field does not move with it; realigned and corrected."""
    where = tmp_path_factory.mktemp("shaded")
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in moved.shape), indexing="ij")
    true = np.exp(0.35 * x - 0.25 * y * y + 0.2 * z).astype(np.float32)
    save(where / "bold.nii", moved.volumes * true, moved.affine, np.float32)
    done = n4ax_bids.realign(
        where / "bold.nii",
        where / "out.nii",
        bias_image=where / "field.nii",
        mean_image=where / "mean.nii",
        sidecar=where / "out.json",
        options=RealignOptions(bias="mean", bias_mask="otsu"),
    )
    return where, true, done


def test_one_field_for_the_series_and_one_resampling(shaded, folder, moved):
    where, true, done = shaded
    mean = nb.load(folder / "mean.nii.gz").get_fdata(dtype=np.float32)
    field = nb.load(where / "field.nii").get_fdata()
    # N4 takes some of the phantom's contrast for a field, with and without a coil.
    options = n4ax_bids.preset("standard")
    _, own = n4ax_bids.correct_array(
        mean, "otsu", zooms=SMALL["zooms"], options=options, return_bias=True
    )
    left = (np.log(field / true) - own)[mean > 250]
    assert left.std() < 0.3 * np.log(true)[mean > 250].std()
    # The motion is that of the uncorrected series, and each volume was divided where it was
    # measured: the field stays while the head moves, so the volumes agree after both.
    plain = Realign(where / "bold.nii").estimate_all()
    np.testing.assert_array_equal(plain.motion.q, done.motion.q)
    made = nb.load(where / "out.nii").get_fdata()
    volume = moved.volumes[2] * true / field
    (_, expected, valid), *_ = reslice(
        lambda _: volume, [2], done.motion.q[2:3], Realign(where / "bold.nii").grid
    )
    np.testing.assert_allclose(made[..., 2][valid], expected[valid], rtol=1e-4, atol=0.05)
    record = json.loads((where / "out.json").read_text())["BiasField"]
    assert record["Image"] == "mean" and record["Preset"] == "standard"
    assert record["FieldMin"] == pytest.approx(field.min())


def test_a_field_that_is_not_wanted_cannot_be_written(folder, tmp_path):
    with pytest.raises(ValueError, match="field.nii: the option bias is none"):
        n4ax_bids.realign(folder / "bold.nii.gz", bias_image=tmp_path / "field.nii")


def test_its_options_describe_no_bias_field(folder, tmp_path):
    image = nb.load(folder / "mean.nii.gz").get_fdata(dtype=np.float32)
    with pytest.raises(
        ValueError, match="RealignOptions, which describe motion and no bias field"
    ):
        n4ax_bids.correct_array(image, None, options=RealignOptions())
    with pytest.raises(ValueError, match=r"mean.nii.gz.*describe motion and no bias field"):
        n4ax_bids.correct(folder / "mean.nii.gz", tmp_path / "o.nii", options=RealignOptions())


def test_show_draws_a_plane_with_its_voxels_or_all_planes(moved):
    volume = moved.volumes[0]
    (axes,) = figures.show(volume, plane=3, grid=True).axes
    assert axes.images[0].get_array().shape == (30, 28)
    assert [len(lines.get_segments()) for lines in axes.collections] == [31, 29]
    (axes,) = n4ax_bids.show(volume, zooms=(6, 6, 7)).axes
    assert axes.images[0].get_array().shape == figures.mosaic(volume).shape
    for wrong, message in ((volume[0], "three axes"), (volume, "plane is 22; expected 0 to 21")):
        with pytest.raises(ValueError, match=message):
            figures.show(wrong, plane=22)
