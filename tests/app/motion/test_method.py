"""`n4ax-bids --method realign`: series of a BIDS dataset, and everything that belongs to them."""

from __future__ import annotations

import csv
import json
import re

import nibabel as nb
import nitransforms as nt
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import validation
from n4ax_bids.app.status import Status
from n4ax_bids.core.motion import rigid
from n4ax_bids.io import gradients
from n4ax_bids.methods import METHODS
from tests.moving_head import motions, moving_head, rms

SMALL = {"shape": (28, 30, 22), "zooms": (6.0, 6.0, 7.0)}
BOLD = "sub-01/func/sub-01_task-rest_bold"
DWI = "sub-01/dwi/sub-01_dwi"
SERIES, SINGLE = "sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_T2w"
OUTPUTS = (
    "func/sub-01_task-rest_desc-hmc_bold.nii.gz",
    "func/sub-01_task-rest_desc-hmc_boldref.nii.gz",
    "func/sub-01_task-rest_from-orig_to-boldref_mode-image_desc-hmc_xfm.txt",
    "func/sub-01_task-rest_desc-confounds_timeseries.tsv",
)


@pytest.fixture(scope="module")
def moved():
    return moving_head(motions(4), noise=0.005, **SMALL)


def save(path, volumes, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(np.moveaxis(volumes, 0, -1).astype(np.float32), affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.0))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)


@pytest.fixture(scope="module")
def dataset(moved, tmp_path_factory):
    """A series of each kind. The DWI series has two volumes with b = 0, the first and the last."""
    root = tmp_path_factory.mktemp("raw")
    text = json.dumps({"Name": "moving", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    save(root / f"{BOLD}.nii.gz", moved.volumes, moved.affine)
    about = {"TaskName": "rest", "RepetitionTime": 2.0, "ImageType": ["ORIGINAL", "NORM"]}
    (root / f"{BOLD}.json").write_text(json.dumps(about))
    save(root / "sub-01/perf/sub-01_asl.nii.gz", moved.volumes, moved.affine)
    weighted = moved.volumes.copy()
    weighted[1:3] = weighted[1:3].max() - weighted[1:3]
    save(root / f"{DWI}.nii.gz", weighted, moved.affine)
    (root / "dwi.bval").write_text("0 1000 1000 5\n")
    (root / f"{DWI}.bvec").write_text("0 1 0 0.6\n0 0 1 0\n0 0 0 -0.8\n")
    save(root / f"{SERIES}.nii.gz", moved.volumes, moved.affine)
    nb.Nifti1Image(moved.volumes[0], moved.affine).to_filename(root / f"{SINGLE}.nii.gz")
    return root


def run(dataset, out, *flags, level="participant", method="realign"):
    words = [str(dataset), str(out), level, "--device", "cpu", "--skip-bids-validation"]
    return cli.main([*words, "--method", method, *flags])


@pytest.fixture(scope="module")
def done(dataset, tmp_path_factory):
    """One run over everything, with the anatomical series and a bias field."""
    out = tmp_path_factory.mktemp("derivatives")
    flags = ("--realign-4d", "--bias", "mean", "--bias-mask", "otsu")
    assert run(dataset, out, *flags) == Status.OK
    return out


def table_of(path):
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {name: [row[name] for row in rows] for name in rows[0]}


def motion_of(path):
    table = table_of(path)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    return np.array([[float(v) for v in table[name]] for name in names]).T


def test_the_files_of_a_bold_series(done, moved):
    for name in OUTPUTS:
        path = done / "sub-01" / name
        assert path.is_file(), name
        about = path.with_name(re.sub(r"\.(nii\.gz|txt|tsv)$", ".json", path.name))
        facts = json.loads(about.read_text())
        assert facts["Sources"] == [f"bids:raw:{BOLD}.nii.gz"]
        assert facts["MotionCorrection"]["Options"]["bias"] == "mean"
    series, reference, transforms, confounds = (done / "sub-01" / name for name in OUTPUTS)
    assert nb.load(series).shape == (*moved.shape, 4)
    assert nb.load(reference).shape == moved.shape
    q = motion_of(confounds)
    mm, degrees = rms(q - q[0], moved.q - moved.q[0])
    assert mm <= 0.05 and degrees <= 0.05
    read = nt.linear.load(transforms, fmt="itk").matrix
    np.testing.assert_allclose(read, rigid.mapping(q, moved.affine, moved.shape), atol=1e-4)
    about = json.loads(series.with_name("sub-01_task-rest_desc-hmc_bold.json").read_text())
    assert about["RepetitionTime"] == 2.0 and about["TaskName"] == "rest"
    field = nb.load(done / "sub-01/func/sub-01_task-rest_desc-biasfield_boldref.nii.gz")
    assert field.shape == moved.shape
    assert about["MotionCorrection"]["BiasField"]["Image"] == "mean"


def test_the_other_kinds_of_series(done, moved):
    names = {path.name for path in done.rglob("*.nii.gz")}
    assert {"sub-01_desc-hmc_asl.nii.gz", "sub-01_desc-hmc_aslref.nii.gz"} <= names
    assert {"sub-01_desc-hmc_T1w.nii.gz", "sub-01_desc-hmcref_T1w.nii.gz"} <= names
    assert not [name for name in names if "T2w" in name]
    skipped = (done / "logs/skipped/sub-01.tsv").read_text()
    assert f"{SINGLE}.nii.gz\tit has a single volume" in skipped


def test_of_a_dwi_series_b0_alone(done, moved):
    series = nb.load(done / "sub-01/dwi/sub-01_desc-hmc_dwi.nii.gz")
    assert series.shape == (*moved.shape, 2)
    q = motion_of(done / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv")
    mm, degrees = rms(q[1:] - q[0], moved.q[3:] - moved.q[0])
    assert mm <= 0.05 and degrees <= 0.05
    about = json.loads((done / "sub-01/dwi/sub-01_desc-hmc_dwi.json").read_text())
    assert about["MotionCorrection"]["Volumes"] == [0, 3]
    stem = done / "sub-01/dwi/sub-01_desc-hmc_dwi"
    assert stem.with_suffix(".bval").read_text() == "0 5\n"
    assert stem.with_suffix(".bvec").read_text() == "0 0.6\n0 0\n0 -0.8\n"
    assert "with b = 0" in about["MotionCorrection"]["VolumesAre"]
    assert "only the volumes with b = 0" in (done / "logs/CITATION.md").read_text()


def test_the_report(done, dataset):
    page = (done / "sub-01.html").read_text()
    assert page.count('alt="motion of each volume"') == 4
    assert "mean FD (mm)" in page and "field CV" not in page
    assert "numbers of the volumes with b = 0 in the source; no other was taken: 0, 3" in page
    curves = (done / "sub-01/figures/sub-01_task-rest_desc-curves_bold.svg").read_text()
    assert "rotation (degrees)" in curves
    assert run(dataset, done, level="group") == Status.OK
    table = table_of(done / "group_bias.tsv")
    assert all(float(value) > 0 for value in table["fd_mean"])
    assert "Methods: motion correction" in (done / "logs/CITATION.md").read_text()
    assert "Friston et al., 1995" in page
    meanings = (done / "descriptions.tsv").read_text()
    assert "desc-hmc\tseries realigned" in meanings and "desc-biasfield\t" in meanings


def test_the_validator_finds_no_error(done, bids_errors):
    assert bids_errors(done) == []


def test_the_validator_sees_what_belongs_to_a_series(dataset, tmp_path):
    query = METHODS["realign"].query
    request = Request(dataset, tmp_path / "out", method="realign", modalities=query.default)
    validation._link(request, tmp_path / "view")
    names = {
        path.relative_to(tmp_path / "view").as_posix() for path in tmp_path.rglob("view/**/*")
    }
    assert {
        "dwi.bval",
        f"{DWI}.nii.gz",
        f"{BOLD}.json",
    } <= names and f"{SERIES}.nii.gz" not in names


def test_restart(done, dataset, capsys):
    flags = ("--realign-4d", "--bias", "mean", "--bias-mask", "otsu", "--no-reports")
    assert run(dataset, done, *flags) == Status.OK
    assert "4 of 4 images are finished already" in capsys.readouterr().err
    # Without a field: the series is made again, and the field of the earlier run goes.
    flags = ("--participant-label", "01", "-m", "bold", "--no-reports")
    assert run(dataset, done, *flags) == Status.OK
    assert "1 of 1 images corrected" in capsys.readouterr().err
    assert not list(done.glob("sub-01/func/*biasfield*"))
    assert list(done.glob("sub-01/dwi/*biasfield*"))


def test_a_dry_run(dataset, tmp_path, capsys):
    assert run(dataset, tmp_path / "out", "--dry-run", "--sloppy") == Status.OK
    said = capsys.readouterr().out
    taken = re.findall(r"^correct  (.*)", said, re.M)
    assert taken == [f"{DWI}.nii.gz", f"{BOLD}.nii.gz", "sub-01/perf/sub-01_asl.nii.gz"]
    assert "volumes: 2 with b = 0: 0 3" in said and "mask:" not in said
    assert "-> sub-01/dwi/sub-01_desc-hmc_dwi.bval\n" in said
    assert "NORM" not in said  # what the scanner did to intensities is no matter without a field
    assert "-> sub-01/func/sub-01_task-rest_desc-confounds_timeseries.tsv (and .json)" in said
    assert "register_to_mean = False" in said  # --sloppy
    assert run(dataset, tmp_path / "out", "--dry-run", "--reference", "middle") == Status.OK
    assert "reference = middle" in capsys.readouterr().out
    assert run(dataset, tmp_path / "out", "--dry-run", "--bias", "mean") == Status.OK
    assert "note: ImageType has NORM" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "it has no b-values"),
        ("0 1000 1000 1000", "1 of 4 volumes with b ≤ 50 s/mm²"),
        ("0 1000 x 0", "cannot be"),
    ],
)
def test_a_dwi_series_that_cannot_be_realigned(moved, tmp_path, capsys, values, reason):
    (tmp_path / "raw").mkdir()
    text = json.dumps({"Name": "moving", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (tmp_path / "raw/dataset_description.json").write_text(text)
    for name in (DWI, BOLD):
        save(tmp_path / f"raw/{name}.nii.gz", moved.volumes, moved.affine)
    if values:
        (tmp_path / f"raw/{DWI}.bval").write_text(values)
    assert run(tmp_path / "raw", tmp_path / "out", "--dry-run") == Status.OK
    said = capsys.readouterr().out
    assert f"correct  {BOLD}" in said and f"correct  {DWI}" not in said
    assert reason in said


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("0 1\n0 0\n0 0\n", 3, "3 rows of 2 values; expected 3 of one length"),
        ("0 1 0 0\n0 0 1 0\n", 3, "2 rows of 4 values"),
        ("0 1 0 0\n0 0 1\n0 0 0 1\n", 3, "3 rows of 3, 4 values"),
    ],
)
def test_directions_that_do_not_fit(tmp_path, text, rows, message):
    path = tmp_path / "a.bvec"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"a.bvec: {message}"):
        gradients.of_volumes(path, [0, 3], rows)
    (tmp_path / "a.bval").write_text("0\n1000\n1000\n5\n")  # a value on each line
    assert gradients.of_volumes(tmp_path / "a.bval", [0, 3], 1) == "0 5\n"


def test_without_the_method_the_reason_names_it(dataset, tmp_path, capsys):
    flags = ("-m", "T1w", "--mask", "none", "--no-reports")
    assert run(dataset, tmp_path / "out", *flags, method="n4") == Status.SOME_FAILED
    said = capsys.readouterr().err
    assert "4 volumes of shape (28, 30, 22)" in said
    assert "n4ax-bids --method realign --realign-4d, takes a series" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mask", "otsu"], "--mask has no meaning for --method realign; expected --bias"),
        (["--save-mask"], "--save-mask has no meaning"),
        (["-m", "T1w"], "--modalities T1w: --method realign takes bold, cbv, asl"),
        (["--separation", "0"], "separation is 0"),
        (["--method", "n4", "--realign-4d"], "--realign-4d needs --method realign"),
        (["--method", "n4", "--quality", "1"], "--quality is an option of --method realign"),
    ],
)
def test_flags_that_do_not_fit(dataset, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        run(dataset, tmp_path / "out", *flags)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_every_option_reaches_the_run(dataset, tmp_path, capsys):
    """Each flag of an option, with a value that is not its default."""
    given = {
        "--reference": "2",
        "--form": "forward",
        "--separation": "5",
        "--fwhm": "7",
        "--degree": "2",
        "--quality": "0.8",
        "--max-iterations": "9",
        "--tolerance": "0.001",
        "--damping": "0.5",
        "--start-shrink": "1.5",
        "--boundary": "wrap",
        "--write-degree": "3",
        "--bias": "reference",
        "--bias-mask": "head",
    }
    words = [word for pair in given.items() for word in pair]
    on = ["--no-register-to-mean", "--no-jitter", "--sequential", "--write-mask"]
    assert run(dataset, tmp_path / "out", "--dry-run", *words, *on) == Status.OK
    said = capsys.readouterr().out
    for flag, value in given.items():
        name, shown = flag[2:].replace("-", "_"), re.escape(value)
        assert re.search(rf"{name} = {shown}(\.0)?$", said, re.M), flag
    for name, value in (
        ("register_to_mean", False),
        ("jitter", False),
        ("sequential", True),
        ("write_mask", True),
    ):
        assert f"{name} = {value}" in said
