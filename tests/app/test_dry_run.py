"""What a dry run shows."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app import cli

T1W, T2W = "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_run-1_T2w.nii"


@pytest.fixture
def planned(make_dataset, tmp_path, capsys):
    """Run a dry run over the named images; return its lines."""

    def run(*flags, names=(T1W, T2W), prepare=lambda root: None):
        root, out = make_dataset(*names), tmp_path / "out"
        prepare(root)
        before = sorted(root.rglob("*"))
        assert cli.main([str(root), str(out), "participant", "--dry-run", *flags]) == 0
        assert not out.exists() and sorted(root.rglob("*")) == before
        return capsys.readouterr().out.splitlines()

    return run


def test_each_image_its_reason_its_options_and_its_outputs(planned):
    lines = planned("--preset", "robust", "--shrink-factor", "2", "--desc", "preproc")
    assert "method   n4, preset robust" in lines
    for line in ("shrink_factor = 2", "n_iterations = 50 50 30 20", "precision = float32"):
        assert f"         {line}" in lines
    start = lines.index(f"correct  {T2W}")
    stem = "sub-02/ses-1/anat/sub-02_ses-1_run-1_desc"
    assert lines[start + 1 : start + 6] == [
        "         taken: run 1, session 1, subject 02, suffix T2w",
        "         mask: auto, weight: none",
        f"         -> {stem}-preproc_T2w.nii.gz (and .json)",
        f"         -> {stem}-biasfield_T2w.nii.gz (and .json)",
        f"         -> {stem}-biaslattice_T2w.nii.gz (and .json)",
    ]
    assert lines[-1] == (
        "2 images to correct, 0 that cannot be, 0 finished already, 0 skipped; nothing was written"
    )


def test_what_is_left_out_has_its_reason(planned):
    names = (T1W, "sub-01/anat/sub-01_part-phase_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    lines = planned(names=names)
    for name, reason in (
        (names[1], "part is phase; only magnitude images are corrected"),
        (names[2], "FLAIR was not asked for; -m FLAIR takes it"),
    ):
        assert lines[lines.index(f"skip     {name}") + 1] == f"         {reason}"
    assert lines[-1].startswith(
        "1 image to correct, 0 that cannot be, 0 finished already, 2 skipped"
    )


def test_what_cannot_be_corrected_is_seen_without_reading(planned):
    def spoil(root):
        (root / T1W).unlink()
        os.symlink("../../.git/annex/objects/x", root / T1W)
        (root / T2W).write_bytes(b"")

    lines = planned(prepare=spoil)
    assert "broken link" in lines[lines.index(f"fail     {T1W}") + 1]
    assert "git-annex" in lines[lines.index(f"fail     {T1W}") + 1]
    assert "empty file (0 bytes)" in lines[lines.index(f"fail     {T2W}") + 1]
    assert lines[-1].startswith("0 images to correct, 2 that cannot be")


def test_mask_and_weight_of_each_image(planned, tmp_path):
    brain = tmp_path / "prep/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    brain.parent.mkdir(parents=True)
    brain.touch()
    flags = ["-d", str(tmp_path / "prep"), "--mask", "derivatives", "--rescale"]
    lines = planned(*flags, "--no-bias-field")
    start = lines.index(f"correct  {T1W}")
    assert lines[start + 2] == f"         mask: {brain}, weight: none, rescaled inside the mask"
    assert not [line for line in lines if "biasfield" in line]
    assert "no desc-brain_mask" in lines[lines.index(f"fail     {T2W}") + 1]


def test_what_the_scanner_has_corrected_is_told(planned):
    def describe(root):
        (root / T1W).with_name("sub-01_T1w.json").write_text('{"ImageType": ["ORIGINAL", "NORM"]}')

    lines = planned(prepare=describe)
    start = lines.index(f"correct  {T1W}")
    assert lines[start + 2].startswith("         note: ImageType has NORM")
    assert "note" not in "".join(planned("--skip-normalized", "no", prepare=describe))


def test_a_sidecar_that_cannot_be_read_is_told(planned):
    def damage(root):
        (root / T1W).with_name("sub-01_T1w.json").write_text("{")

    lines = planned(prepare=damage)
    assert "sub-01_T1w.json" in lines[lines.index(f"fail     {T1W}") + 1]
