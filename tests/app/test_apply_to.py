"""`--apply-to`: the field of a session's reference image divides its other images."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.status import Status
from n4ax_bids.io import lattice as lattices

ONE, TWO = "sub-01/ses-1", "sub-01/ses-2"
T1W = f"{ONE}/anat/sub-01_ses-1_T1w"
BOLD = f"{ONE}/func/sub-01_ses-1_task-rest_bold"
DWI = f"{ONE}/dwi/sub-01_ses-1_dwi"


def some(shape):
    return np.random.default_rng(1).uniform(1, 9, shape)


def save(path, data, affine=None, codes=(1, 1)):
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    image = nb.Nifti1Image(data.astype(np.float32), affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture
def raw(make_dataset):
    """Two sessions; only the first one has a T1w image. One FLAIR has been aligned elsewhere."""
    root = make_dataset(f"{T1W}.nii.gz", f"{TWO}/anat/sub-01_ses-2_FLAIR.nii.gz")
    values = np.random.default_rng(0).uniform(1, 9, (6, 5, 4, 3))
    grid = nb.affines.from_matvec(np.diag([-3.0, 4, 5]), [10, -12, 3])
    save(root / f"{BOLD}.nii.gz", values, grid)
    save(root / f"{BOLD.replace('bold', 'part-phase_bold')}.nii.gz", values, grid)
    save(root / f"{DWI}.nii.gz", values, grid, codes=(1, 0))
    (root / "dwi.bval").write_text("0 1000 0\n")
    (root / f"{DWI}.bvec").write_text("0 1 0\n" * 3)
    save(root / f"{ONE}/anat/sub-01_ses-1_FLAIR.nii.gz", values[..., 0], grid, codes=(2, 4))
    (root / "task-rest_bold.json").write_text('{"TaskName": "rest", "RepetitionTime": 1}')
    return root


@pytest.fixture
def steep(monkeypatch, fake_node):
    """Let the fake node's field rise along the lattice, instead of being 1 everywhere."""
    plain = lattices.save_lattice

    def save_steep(path, lattice, **words):
        plain(path, np.arange(lattice.size).reshape(lattice.shape) / 100, **words)

    monkeypatch.setattr(lattices, "save_lattice", save_steep)
    return fake_node


@pytest.fixture
def run(tmp_path, capsys):
    def main(root, *flags):
        try:
            words = [str(root), str(tmp_path / "out"), "participant", "--device", "cpu", *flags]
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        done = capsys.readouterr()
        return status, done.err + done.out

    return main


PAGE = (Path(__file__).parents[2] / "docs" / "apply.md").read_text(encoding="utf-8")
WANTED = re.search(r"^n4ax-bids BIDS_DIR OUT_DIR participant (--apply-to .*)$", PAGE, re.M)[
    1
].split()
"""the command of the page"""


def test_the_images_of_the_session_get_its_field(raw, run, steep, tmp_path):
    from n4ax_bids import apply_field

    out = tmp_path / "out"
    status, said = run(raw, *WANTED)
    assert status == 0 and len(steep) == 1, said
    lattice = out / f"{T1W.replace('_T1w', '_desc-biaslattice_T1w')}.nii.gz"
    for name in (BOLD, DWI):
        entities, _, suffix = name.rpartition("_")
        made = nb.load(out / f"{entities}_desc-biascorr_{suffix}.nii.gz")
        apply_field(raw / f"{name}.nii.gz", lattice, tmp_path / "alone.nii.gz")
        alone = nb.load(tmp_path / "alone.nii.gz")
        assert made.shape == (6, 5, 4, 3)
        np.testing.assert_array_equal(made.get_fdata(), alone.get_fdata())
        source = nb.load(raw / f"{name}.nii.gz").get_fdata()
        assert np.abs(np.log(made.get_fdata() / source)).max() > 0.1
    # The sidecar says so, and keeps what the source's sidecars say.
    sidecar = json.loads(
        (out / ONE / "func/sub-01_ses-1_task-rest_desc-biascorr_bold.json").read_text()
    )
    assert sidecar["TaskName"] == "rest" and sidecar["RepetitionTime"] == 1
    assert sidecar["Sources"] == [
        f"bids:raw:{BOLD}.nii.gz",
        f"bids::{lattice.relative_to(out).as_posix()}",
    ]
    assert sidecar["Description"] == "bold: image divided by the bias field of sub-01_ses-1_T1w"
    facts = sidecar["BiasCorrection"]
    assert (facts["Method"], facts["FieldOf"]) == ("applied", f"bids:raw:{T1W}.nii.gz")
    assert (facts["Voxels"], facts["Volumes"]) == (120, 3)
    assert (out / ONE / "dwi/sub-01_ses-1_desc-biascorr_dwi.bval").read_text() == "0 1000 0\n"
    assert (out / ONE / "dwi/sub-01_ses-1_desc-biascorr_dwi.bvec").is_file()
    # What gets no field is named with the reason.
    for words in (
        "ses-1_FLAIR.nii.gz: its header does not say that it is in the scanner's frame",
        "part-phase_bold.nii.gz: part is phase; only magnitude images get a field",
        "ses-2_FLAIR.nii.gz: no T1w or T2w image of its session is corrected, whose field",
    ):
        assert words in said, words
    assert not list(out.rglob("*FLAIR*.nii.gz"))
    # Page and methods text.
    page = (out / "sub-01.html").read_text()
    assert "Fields of others" in page and f"{BOLD}.nii.gz" in page
    methods = (out / "logs" / "CITATION.md").read_text()
    assert "The T1w images were corrected" in methods
    assert "The bold and dwi images were divided by the field of the first T1w image" in methods


def test_restart_dry_run_and_a_changed_reference(raw, run, steep, tmp_path, write_image):
    status, said = run(raw, *WANTED, "--dry-run")
    assert status == 0 and f"divide   {BOLD}.nii.gz" in said
    assert f"field of {T1W}.nii.gz" in said and "3 images to correct" in said
    assert run(raw)[0] == 0
    _, said = run(raw, *WANTED)  # the T1w image is finished, its field is there
    assert len(steep) == 1 and "2 of 3 images corrected, 0 failed, 1 finished before" in said
    assert "3 of 3 images are finished already" in run(raw, *WANTED)[1]
    assert "0 images to correct" in run(raw, *WANTED, "--dry-run")[1]
    bold = tmp_path / "out" / ONE / "func/sub-01_ses-1_task-rest_desc-biascorr_bold.nii.gz"
    bold.unlink()
    assert "1 of 3 images corrected" in run(raw, *WANTED)[1] and bold.is_file()
    write_image(raw / f"{T1W}.nii.gz", shape=(20, 22, 24), seed=5)  # another field
    _, said = run(raw, *WANTED)
    assert "3 of 3 images corrected" in said and len(steep) == 2


def test_an_image_of_its_own_becomes_one_with_the_field_of_another(raw, run, steep, tmp_path):
    save(raw / f"{ONE}/anat/sub-01_ses-1_T2w.nii.gz", some((8, 7, 6)))
    out = tmp_path / "out" / ONE / "anat"
    assert run(raw)[0] == 0
    assert (out / "sub-01_ses-1_desc-biaslattice_T2w.nii.gz").is_file()
    status, said = run(raw, "--apply-to", "T2w")  # no longer one of the default -m
    assert status == 0 and "2 of 2" not in said
    left = sorted(path.name for path in out.glob("*T2w*"))
    assert left == [f"sub-01_ses-1_desc-biascorr_T2w.{end}" for end in ("json", "nii.gz")]
    assert run(raw)[0] == 0  # and back
    assert (out / "sub-01_ses-1_desc-biaslattice_T2w.nii.gz").is_file()


def test_a_suffix_without_images_is_told(raw, run, steep):
    status, said = run(raw, "--apply-to", "bold", "PDw")
    assert status == 0 and "--apply-to PDw: no such image" in said
    assert "--apply-to bold: no such" not in said


def test_without_its_field_an_image_fails_alone(raw, run, steep):
    (raw / f"{T1W}.nii.gz").write_bytes(b"")
    save(raw / "sub-02/anat/sub-02_T1w.nii.gz", some((8, 7, 6)))
    save(raw / "sub-02/func/sub-02_task-rest_bold.nii.gz", some((6, 5, 4, 2)))
    status, said = run(raw, *WANTED)
    assert status == Status.SOME_FAILED
    assert f"{BOLD}.nii.gz: gets no field, because {T1W}.nii.gz has none" in said
    assert "2 of 5 images corrected, 3 failed" in said


def test_a_reference_outside_the_scanners_frame(raw, run, steep):
    save(raw / f"{T1W}.nii.gz", some((8, 7, 6)), codes=(0, 2))
    status, said = run(raw, *WANTED)
    assert status == 0 and f"the reference {T1W}.nii.gz: its header does not say" in said
    assert "1 of 1 images corrected" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--apply-to", "bolt"), "--apply-to bolt: no such suffix (did you mean bold?)"),
        (("--apply-to", "T1map"), "--apply-to T1map: no such suffix"),
        (("-m", "T1w", "--apply-to", "T1w"), "no other image is corrected, whose field"),
        (("--apply-to", "bold", "--method", "realign"), "--apply-to needs the fields of single"),
        (("--apply-to", "bold", "--use-plugin", "x"), "expected only one of them"),
    ],
)
def test_flags_that_do_not_fit(raw, run, fake_node, flags, message):
    status, said = run(raw, *flags)
    assert (status, message in said) == (Status.USAGE, True), said
    assert not fake_node


def test_codes_of_the_frame():
    from n4ax_bids.io.placement import in_scanner_frame

    header, moved = nb.Nifti1Header(), np.diag([1.0, 1, 1, 1])
    moved[0, 3] = 1
    found = {}
    for codes in ((1, 1), (1, 0), (0, 1), (0, 0), (2, 0), (1, 2), (2, 1), (1, 4)):
        header.set_qform(np.eye(4), codes[0])
        header.set_sform(np.eye(4), codes[1])
        found[codes] = in_scanner_frame(header)
    assert [codes for codes, yes in found.items() if not yes] == [(0, 0), (2, 0)]
    header.set_sform(moved, 2)  # the place that counts is another one than the scanner's
    assert not in_scanner_frame(header)


def test_the_outputs_are_valid(raw, run, steep, validator, tmp_path):
    assert run(raw, *WANTED, "--skip-bids-validation", "--no-reports")[0] == 0
    words = [validator, tmp_path / "out", "--format", "json", "--ignoreWarnings"]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    issues = json.loads(told)["issues"]["issues"]
    errors = [each for each in issues if each.get("severity") == "error"]
    assert [(each["code"], each.get("location"), each.get("rule")) for each in errors] == []
