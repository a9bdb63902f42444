"""Stacks of planes in the folders micr of a BIDS dataset, by `--method stack`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile

import n4ax_bids
from n4ax_bids import StackOptions
from n4ax_bids.app import cli
from n4ax_bids.app.command import asked
from n4ax_bids.app.images import node
from n4ax_bids.app.job import Job, OutputNames
from n4ax_bids.app.machine.resources import Share
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.stacks.files import load_correction, open_source
from tests.core.stack.stacks import ellipsoid

ZARR = "sub-01/micr/sub-01_sample-A_OCT.ome.zarr"
TIFF = "sub-01/micr/sub-01_sample-A_SPIM.ome.tif"
FAST = ("--mode", "global", "--global-spline-mm", "0.4", "--shrink-factor", "2")
FAST += ("--n-iterations", "5", "--match", "none", "--no-zero-outside")
ZOOMS = (0.1, 0.01, 0.01)


@pytest.fixture
def raw(tmp_path) -> Path:
    """One stack twice: as OME-Zarr with its own voxel size, as TIFF with that of its sidecar."""
    pytest.importorskip("zarr")
    from n4ax_bids.planes.ome_zarr_sink import ZarrSink

    root, image = tmp_path / "raw", ellipsoid((50, 24, 24), seed=1).image
    (root / "sub-01/micr").mkdir(parents=True)
    about = {"Name": "sections", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(about))
    (root / "samples.tsv").write_text(
        "sample_id\tparticipant_id\tsample_type\nsample-A\tsub-01\ttissue\n"
    )
    sink = ZarrSink(root / ZARR, image.shape, ZOOMS)
    sink.write(0, image)
    sink.close()
    tifffile.imwrite(root / TIFF, image, metadata={"axes": "ZYX"})
    for name in (ZARR, TIFF):
        size = {"PixelSize": [10, 10, 100], "PixelSizeUnits": "um"}
        (root / name.replace(".ome.zarr", ".json").replace(".ome.tif", ".json")).write_text(
            json.dumps(size)
        )
    (root / "sub-01/micr/sub-01_sample-A_OCT.nii.gz").write_bytes(b"BIDS has no such file")
    return root


@pytest.fixture
def run(raw, tmp_path, capsys):
    """Run the BIDS-App: (*flags, level) → exit status, what it said."""

    def once(*flags, level="participant"):
        words = [str(raw), str(tmp_path / "out"), level, "--device", "cpu", "--method", "stack"]
        status = cli.main([*words, "--skip-bids-validation", *flags])
        said = capsys.readouterr()
        return status, said.out + said.err

    return once


def line_of_the_page() -> list[str]:
    """Return the flags of the line in docs/serial-sections.md."""
    page = Path(__file__).parents[2] / "docs" / "serial-sections.md"
    (line,) = re.findall(r"^n4ax-bids BIDS OUT participant (.*)$", page.read_text(), re.MULTILINE)
    return shlex.split(line)


def test_a_dataset_of_stacks(run, raw, tmp_path, bids_errors):
    """The page's line, with options that make it fast."""
    status, said = run(*line_of_the_page(), *FAST)
    assert status == 0 and "2 of 2 images corrected" in said, said
    assert ".nii.gz: extension is .nii.gz; taken are images with extension .ome.zarr or" in said
    out, fields = tmp_path / "out", []
    for name in (ZARR, TIFF):
        made = {
            label: out / name.replace("_sample-A", f"_sample-A_desc-{label}")
            for label in ("biascorr", "biasfield")
        }
        corrected, field, source = (open_source(p) for p in (*made.values(), raw / name))
        assert corrected.zooms == pytest.approx(ZOOMS) == field.zooms
        values = [each.read(0, 50) for each in (corrected, field, source)]
        np.testing.assert_allclose(values[0] * values[1], values[2], rtol=1e-5)
        fields.append(values[1])
        sidecar = json.loads(derivatives.sidecar_path(made["biascorr"]).read_text())
        assert sidecar["Sources"] == [f"bids:raw:{name}"] and sidecar["PixelSizeUnits"] == "um"
        assert "FieldScale" not in sidecar["BiasCorrection"]
        assert sidecar["BiasCorrection"]["Details"]["voxel_size_mm"] == pytest.approx(ZOOMS)
        assert sidecar["BiasCorrection"]["FieldMax"] == pytest.approx(
            float(values[1].max()), rel=0.1
        )
        stem = made["biascorr"].name.split(".")[0].replace("biascorr", "biaslattice")
        assert load_correction(made["biascorr"].with_name(f"{stem}.npz")).shape == (50, 24, 24)
    np.testing.assert_allclose(*fields, rtol=1e-6)  # S19 by way of BIDS
    assert bids_errors(out) == []
    page = (out / "sub-01.html").read_text()
    assert "serial sections" in page and "desc-before" in page
    assert "samples in the tissue, of 50 planes" in page
    assert "in the tissue that was found in each stack" in (out / "logs/CITATION.md").read_text()
    assert run(*FAST, level="group")[0] == 0
    assert len((out / "group_bias.tsv").read_text().splitlines()) == 3
    assert "2 of 2 images are finished already" in run("--sections", "50", *FAST)[1]
    # One chunk with another content, of the same size; the sidecar of the other image.
    chunk = max((raw / ZARR / "0").rglob("c/*/*/*"), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    said = run("--sections", "50", *FAST, "--dry-run", "--verify-inputs")[1]
    assert f"correct  {ZARR}" in said and f"keep     {TIFF}" in said


def test_a_damaged_stack_fails_alone_and_leaves_nothing(run, raw, tmp_path):
    chunk = max((raw / ZARR / "0").rglob("c/*/*/*"), key=lambda path: path.stat().st_size)
    chunk.write_bytes(b"no chunk")
    status, said = run(*FAST, "--no-reports", "-m", "OCT")
    assert status == 1
    assert "_OCT.ome.zarr: planes" in said and "a chunk is damaged" in said
    assert not list((tmp_path / "out").rglob("*OCT.ome.zarr"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mask", "brain"), "--mask brain: --method stack finds tissue; expected auto or none"),
        (("--output-dtype", "source"), "--output-dtype source: not for --method stack"),
        (("--save-mask",), "--save-mask: not for --method stack"),
        (("--mask-sigma", "-1"), "mask_sigma is -1"),
        (("--field-scale", "median"), "--field-scale median: not for --method stack"),
        (("--sections", "some"), "some; expected a whole number or planes"),
    ],
)
def test_what_does_not_fit_stacks_is_refused(run, capsys, flags, words):
    with pytest.raises(SystemExit):
        run(*flags)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (("--sections", "4"), "sections", 4),
        (("--sections", "0", "5", "9"), "sections", (0, 5, 9)),
        (("--sections", "planes"), "sections", None),
        (("--mask-sigma", "3"), "mask_sigma", 3.0),
        (("--mask-sigma-z", "0"), "mask_sigma_z", 0.0),
        (("--mask-closing", "2"), "mask_closing", 2),
        (("--mask-closing-z", "1"), "mask_closing_z", 1),
        (("--tissue-threshold", "7"), "tissue_threshold", 7.0),
        (("--profile-sigma", "2"), "profile_sigma", 2.0),
        (("--section-spline-mm", "3"), "section_spline_mm", 3.0),
        (("--sampling", "itk"), "sampling", "itk"),
        (("--scale", "trend"), "scale", "trend"),
        (("--scale-sigma", "4"), "scale_sigma", 4.0),
        (("--strength", "0.5"), "strength", 0.5),
        (("--zero-outside",), "zero_outside", True),
    ],
)
def test_options_of_a_stack_are_flags(flags, name, value):
    arguments = asked.parse(["in", "out", "participant", "--method", "stack", *flags])
    assert getattr(asked.options_of(arguments), name) == value


def job(name="sub-01/micr/sub-01_sample-A_SPIM.ome.tif"):
    return Job(Path("/raw", name), name, OutputNames.of(Path(name), Path("/out")), {}, ())


@pytest.mark.parametrize(
    ("metadata", "zooms"),
    [
        ({}, None),
        ({"PixelSize": [1, 2, 3], "PixelSizeUnits": "mm"}, (3, 2, 1)),
        ({"PixelSize": [1, 2], "PixelSizeUnits": "um"}, (1e-3, 2e-3, 1e-3)),
    ],
)
def test_the_size_of_pixels_comes_from_the_sidecar(metadata, zooms):
    assert node.pixel_size(job(), metadata) == (None if zooms is None else pytest.approx(zooms))


@pytest.mark.parametrize("size", [[1], "1", [0, 1, 1], [True, 1, 1], 5])
def test_a_size_that_cannot_be_understood_is_named(size):
    with pytest.raises(ValueError, match="SPIM.ome.tif: PixelSize is .* expected 2 or 3 positive"):
        node.pixel_size(job(), {"PixelSize": size})


def test_outputs_are_of_the_kind_of_the_source():
    for ending, written in ((".ome.zarr", ".ome.zarr"), (".png", ".tif"), (".ome.btf",) * 2):
        names = job(f"sub-1/micr/sub-1_sample-A_OCT{ending}").outputs
        assert names.corrected.name == f"sub-1_sample-A_desc-biascorr_OCT{written}"
        assert names.lattice.name == "sub-1_sample-A_desc-biaslattice_OCT.npz"
        assert names.named("biasfield") == names.field


def test_the_budget_is_the_share_of_an_image(monkeypatch):
    from n4ax_bids.app.request import Request

    request = Request(Path("/raw"), Path("/out"), method="stack")
    share = Share(n_images=2, n_threads=1, memory=3_000_000_000)
    assert node.budget(request, share) == 1_500_000_000 - node.OVERHEAD
    given = {"input_image": "a", "output_image": "b", "lattice_image": "c"}
    monkeypatch.setattr(node, "inputs", lambda *_: given)
    made = node.node_of(None, request, Path(), {}, share)
    assert made.inputs.memory_gb == pytest.approx(1.1)


def test_a_stack_replaces_one_of_an_earlier_run(tmp_path):
    for name, content in (("new.zarr", "new"), ("out.zarr", "old")):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "0" / content).write_text(content)
    derivatives.publish([(tmp_path / "new.zarr", tmp_path / "out.zarr")])
    assert [path.name for path in (tmp_path / "out.zarr/0").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    (tmp_path / "file.zarr").write_text("no folder")
    with pytest.raises(IsADirectoryError, match="a folder has this name"):
        derivatives.publish([(tmp_path / "file.zarr", tmp_path / "out.zarr")])


def test_functions_for_single_images_name_those_for_stacks(tmp_path):
    with pytest.raises(ValueError, match="for a stack call n4ax_bids.stream or correct_stack"):
        n4ax_bids.correct(tmp_path / "a.nii", tmp_path / "b.nii", options=StackOptions())
    with pytest.raises(ValueError, match="for a stack call"):
        n4ax_bids.correct_array(np.ones((4, 4, 4)), None, options=StackOptions())
