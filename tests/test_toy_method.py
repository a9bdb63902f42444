"""A method in one file of its own goes through every door; no file of the package knows it."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nb
import numpy as np
import pytest

import n4ax_bids
from n4ax_bids import methods
from n4ax_bids.app import cli
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import validation
from n4ax_bids.app.status import Status
from n4ax_bids.interfaces import BiasFieldCorrection
from n4ax_bids.methods import Query
from tests.toy_method import METHOD, ToyDetails, ToyOptions

SHAPE = (24, 20, 16)
NAMES = ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")


def log_field(shape=SHAPE):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (0.3 * x - 0.2 * x**2 + 0.1 * y + 0.15 * z**2).astype(np.float32)


@pytest.fixture(autouse=True)
def toy():
    """The toy is known for as long as a test runs."""
    yield methods.register(METHOD)
    methods.unregister("toy")


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "image.nii.gz"
    values = 100 * np.exp(log_field())
    values[:2] = 1  # dark, outside Otsu's mask
    nb.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(path)
    return path


@pytest.fixture
def dataset(tmp_path, image) -> Path:
    root = tmp_path / "raw"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(image.read_bytes())
    text = json.dumps({"Name": "toys", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    return root


@pytest.fixture
def run(dataset, tmp_path, capsys):
    """Run the BIDS-App with the toy: (*flags) → exit status, output folder, what it said."""

    def once(*flags, level="participant"):
        words = [str(dataset), str(tmp_path / "out"), level, "--device", "cpu"]
        more = ["--skip-bids-validation", "--method", "toy", *flags]
        status = cli.main([*words, *more])
        said = capsys.readouterr()
        return status, tmp_path / "out", said.out + said.err

    return once


def flat(values, *, within=0.02):
    inside = np.asarray(values)[3:]
    return inside.std() / inside.mean() < within


def test_arrays():
    image = 100 * np.exp(log_field())
    corrected, found = n4ax_bids.correct_array(image, None, options=ToyOptions(), return_bias=True)
    assert flat(corrected, within=1e-3)
    np.testing.assert_allclose(found - found.mean(), log_field() - log_field().mean(), atol=1e-3)
    with pytest.warns(n4ax_bids.N4Warning, match="the toy is a toy"):
        n4ax_bids.correct_array(image, None, options=ToyOptions(strength=0.5))


def test_arrays_on_a_device_are_looked_at_there():
    image = jnp.asarray(100 * np.exp(log_field())).at[:2].set(0)
    mask = jnp.ones(SHAPE, bool)
    with pytest.warns(n4ax_bids.N4Warning, match="640 of 7680 voxels inside the mask are 0"):
        corrected = n4ax_bids.correct_array(image, mask, options=ToyOptions())
    assert isinstance(corrected, jax.Array)


def test_one_file(image, tmp_path):
    out = {name: tmp_path / f"{name}.nii.gz" for name in ("corrected", "field", "left")}
    done = n4ax_bids.correct(
        image,
        out["corrected"],
        bias_image=out["field"],
        lattice_image=tmp_path / "lattice.nii.gz",
        auto_mask="otsu",
        options=ToyOptions(),
        method_images={"toyresidual": out["left"]},
    )
    assert done.method == "toy" and isinstance(done.details, ToyDetails)
    corrected, field = (nb.load(out[name]).get_fdata() for name in ("corrected", "field"))
    assert flat(corrected)
    np.testing.assert_allclose(corrected * field, nb.load(image).get_fdata(), rtol=1e-5)
    assert np.abs(nb.load(out["left"]).get_fdata()).max() < 0.02
    assert done.method_images == {"toyresidual": out["left"]}


def test_an_output_that_the_method_does_not_have_is_refused(image, tmp_path):
    images = {"other": tmp_path / "other.nii.gz"}
    with pytest.raises(ValueError, match="'other'; expected outputs of toy: toyresidual"):
        n4ax_bids.correct(image, None, options=ToyOptions(), method_images=images)
    with pytest.raises(ValueError, match="expected outputs of n4: none"):
        n4ax_bids.correct(image, None, method_images=images)


def test_node(image, tmp_path):
    node = BiasFieldCorrection(
        input_image=str(image),
        options=ToyOptions(),
        auto_mask="otsu",
        method_images={"toyresidual": "left.nii.gz"},
    )
    outputs = node.run(cwd=str(tmp_path)).outputs
    assert outputs.correction["method"] == "toy"
    assert outputs.correction["details"]["n_voxels"] > 0
    assert flat(nb.load(outputs.output_image).get_fdata())
    assert Path(outputs.method_images["toyresidual"]).is_file()


def test_a_process_that_has_not_registered_it_finds_it_by_its_options():
    methods.unregister("toy")
    assert methods.of_options(ToyOptions()).name == "toy"


def test_the_app(run):
    status, out, said = run()
    assert status == 0, said
    anat = out / "sub-01/anat"
    corrected = nb.load(anat / "sub-01_desc-biascorr_T1w.nii.gz").get_fdata()
    assert flat(corrected)
    assert (anat / "sub-01_desc-toyresidual_T1w.nii.gz").is_file()
    sidecar = json.loads((anat / "sub-01_desc-biascorr_T1w.json").read_text())
    facts = sidecar["BiasCorrection"]
    assert facts["Method"] == "toy" and facts["Options"] == asdict(ToyOptions())
    assert facts["Details"]["n_voxels"] > 0
    residual = json.loads((anat / "sub-01_desc-toyresidual_T1w.json").read_text())
    assert "polynomial leaves" in residual["Description"]
    assert "toyresidual\t" in (out / "descriptions.tsv").read_text()
    record = json.loads((out / "logs/images/sub-01/anat/sub-01_T1w.json").read_text())
    assert record["settings"]["method"] == "toy"
    assert record["settings"]["options"] == asdict(ToyOptions())


def test_the_report(run):
    status, out, said = run()
    assert status == 0, said
    page = (out / "sub-01.html").read_text()
    assert "The bar is the residual." in page and "voxels of the toy" in page
    assert "At each level" not in page and "strength" in page
    curves = (out / "sub-01/figures/sub-01_desc-curves_T1w.svg").read_text()
    assert "Residual of the toy" in curves and "Convergence" not in curves
    assert run(level="group")[0] == 0
    with (out / "group_bias.tsv").open(newline="") as stream:
        first = next(csv.DictReader(stream, delimiter="\t"))
    assert 0 <= float(first["residual"]) < 0.02


def test_the_methods_text(run):
    assert run("--no-reports", "--preset", "straight")[0] == 0
    text = (run("--no-reports")[1] / "logs/CITATION.md").read_text()
    assert "a toy (Nobody, 2026)" in text and "degree 2" in text and "Nobody. A toy." in text
    assert "non-uniformity with N4" not in text


def test_restart(run):
    assert run("--no-reports")[0] == 0
    status, _, said = run("--no-reports")
    assert status == 0 and "2 of 2 images are finished already" in said
    status, out, said = run("--no-reports", "--degree", "1")
    assert status == 0 and "2 of 2 images corrected" in said
    # Another method's outputs do not stay beside those of this one.
    assert run("--no-reports", "--method", "n4")[0] == 0
    assert not list(out.rglob("*toyresidual*"))


def test_the_command_line(run, tmp_path, capsys):
    status, _, said = run("--dry-run", "--strength", "0.5")
    assert status == 0 and "method   toy, preset plain" in said and "strength = 0.5" in said
    assert "desc-toyresidual_T1w.nii.gz" in said
    status, _, said = run("--dry-run", "--sloppy")
    assert "degree = 1" in said
    config = tmp_path / "options.toml"
    config.write_text('method = "toy"\ndegree = 1\n')
    words = [str(tmp_path / "raw"), str(tmp_path / "out"), "participant", "--dry-run"]
    assert cli.main([*words, "--skip-bids-validation", "--config-file", str(config)]) == 0
    assert "degree = 1" in capsys.readouterr().out
    for wrong, message in (
        (["--degree", "3"], "degree is 3; expected 1 or 2"),
        (["--preset", "ants"], "choose from"),
        (["-m", "FLAIR"], "--modalities FLAIR: --method toy takes T1w, T2w"),
        (["--shrink-factor", "2"], "--shrink-factor is an option of --method n4"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("--dry-run", *wrong)
        assert ended.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["--method", "toy", "--help"])  # --degree is an option of realignment as well
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "options of a toy (--method toy)" in text and "highest power" in text
    assert "presets of a toy: plain" in text


def test_the_images_that_it_takes_by_default(run, dataset):
    other = dataset / "sub-01/anat/sub-01_T2w.nii.gz"
    other.write_bytes((dataset / NAMES[0]).read_bytes())
    assert "correct  sub-01/anat/sub-01_T2w" not in run("--dry-run")[2]
    assert "correct  sub-01/anat/sub-01_T2w" in run("--dry-run", "-m", "T1w", "T2w")[2]


@pytest.fixture
def elsewhere(dataset, request):
    """The toy works on another datatype, and the dataset has images of it."""
    folder, name = request.param
    suffix = name.rpartition("_")[2]
    query = Query(suffixes=(suffix,), default=(suffix,), datatypes=(folder,))
    methods.unregister("toy")
    methods.register(replace(METHOD, query=query))
    place = dataset / "sub-01" / folder
    (place / "deeper").mkdir(parents=True)
    for path in (place / f"sub-01_{name}", place.parent / f"sub-01_{name}", place / "deeper/x"):
        path.with_name(f"{path.name}.nii.gz").write_bytes((dataset / NAMES[0]).read_bytes())
    return f"sub-01/{folder}/sub-01_{name}.nii.gz"


OTHER_DATATYPES = pytest.mark.parametrize(
    "elsewhere", [("func", "task-rest_bold"), ("micr", "sample-A_SEM")], indirect=True
)


@OTHER_DATATYPES
def test_a_method_for_another_datatype_is_offered_its_files(run, elsewhere, dataset, tmp_path):
    folder = elsewhere.split("/")[1]
    filters = tmp_path / "filters.json"
    filters.write_text('{"t1w": {"run": 1}}')
    more = ["--bids-filter-file", str(filters), "--bids-database-dir", str(tmp_path / "kept")]
    status, _, said = run("--dry-run", *more)
    assert status == 0, said
    assert re.findall(r"^correct  (.*)", said, re.M) == [elsewhere]
    assert f"not in a folder {folder}" in said and f"not directly in {folder}" in said
    assert "t1w is not for images that the method takes, ignored" in said
    with pytest.raises(SystemExit):
        run("--dry-run", "-m", "T1w")
    (dataset / elsewhere).unlink()
    status, _, said = run("--dry-run")
    assert status == Status.NO_IMAGES and f"not in a folder {folder}" in said


@OTHER_DATATYPES
def test_the_validator_sees_the_folders_of_the_method_s_datatype(elsewhere, dataset, tmp_path):
    query = methods.METHODS["toy"].query
    request = Request(dataset, tmp_path / "out", method="toy", modalities=query.default)
    validation._link(request, tmp_path / "view")
    seen = {path.relative_to(tmp_path / "view").as_posix() for path in tmp_path.rglob("view/**/*")}
    assert elsewhere in seen and NAMES[0] not in seen


@pytest.mark.parametrize("elsewhere", [("func", "task-rest_bold")], indirect=True)
def test_the_app_corrects_another_datatype(run, elsewhere):
    status, out, said = run("--no-reports")
    assert status == 0, said
    assert "1 of 1 images corrected" in said
    done = out / "sub-01/func/sub-01_task-rest_desc-biascorr_bold.nii.gz"
    assert flat(nb.load(done).get_fdata())
    assert "1 of 1 images are finished already" in run("--no-reports")[2]


def test_under_an_engine_of_nipype_s(run, tmp_path):
    plugin = tmp_path / "plugin.yml"
    plugin.write_text("plugin: MultiProc\nplugin_args: {n_procs: 2}\n")
    status, out, said = run("--no-reports", "--use-plugin", str(plugin))
    assert status == 0, said
    assert len(list(out.rglob("*_desc-toyresidual_T1w.nii.gz"))) == 2
