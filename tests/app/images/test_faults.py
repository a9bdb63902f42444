"""Images and devices that fail: each image is reported by name, and the others succeed."""

from __future__ import annotations

import jax
import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.select import dataset
from n4ax_bids.app.status import Status
from tests.app.images.twelve_images import TWELVE, images_of, main, program

REASONS = {
    "sub-02": "truncated",
    "sub-04": "1 voxel that is used is NaN or infinite, the first at (3, 4, 5)",
    "sub-06": "constant image, every voxel is 3",
    "sub-08": "Permission denied",
    "sub-10": "2 volumes of shape (9, 9, 9); expected a single one",
    "sub-11": "empty file",
    "sub-12": "link",
}


@pytest.fixture
def twelve(make_dataset):
    """Twelve images, seven of which cannot be corrected."""
    root = make_dataset(*TWELVE)

    def source(number):
        return root / TWELVE[number - 1]

    source(2).write_bytes(source(2).read_bytes()[:9000])
    image = nb.load(source(4))
    voxels = image.get_fdata()
    voxels[3, 4, 5] = np.nan
    nb.Nifti1Image(voxels.astype(np.float32), image.affine).to_filename(source(4))
    nb.Nifti1Image(np.full((9, 9, 9), 3, np.int16), np.eye(4)).to_filename(source(6))
    source(8).chmod(0)
    series = np.random.default_rng(0).uniform(1, 9, (9, 9, 9, 2)).astype(np.float32)
    nb.Nifti1Image(series, np.eye(4)).to_filename(source(10))
    source(11).write_bytes(b"")
    source(12).unlink()
    source(12).symlink_to("../../.git/annex/objects/x")
    return root


@pytest.mark.parametrize("flags", [[], ["--nprocs", "4"]], ids=["default", "nprocs 4"])
def test_seven_of_twelve_fail_with_their_reasons(twelve, bids_errors, tmp_path, flags):
    out = tmp_path / "out"
    status, text = program(twelve, out, *flags)
    assert status == Status.SOME_FAILED
    failed = {
        line.split("]")[1].split("_")[0].strip(): line
        for line in text.splitlines()
        if "failed: " in line
    }
    assert set(failed) == set(REASONS)
    for subject, reason in REASONS.items():
        assert reason in failed[subject] and f"{subject}_T1w.nii.gz" in failed[subject]
        crash = out / "logs" / f"crash-{subject}_T1w.txt"
        assert str(crash) in failed[subject]
        assert "Traceback" in crash.read_text()
    assert "5 of 12 images corrected, 7 failed" in text
    good = {name[:6] for name in TWELVE} - set(REASONS)
    assert images_of(out) == dict.fromkeys(good, 6)
    assert bids_errors(out) == []
    # Once more: the five stay, the seven are tried again.
    status, text = program(twelve, out, *flags)
    assert status == Status.SOME_FAILED
    assert "0 of 12 images corrected, 7 failed, 5 finished before" in text


def test_stop_on_first_crash(twelve, tmp_path, capsys):
    flags = ["--nprocs", "1", "--stop-on-first-crash"]
    assert main(twelve, tmp_path / "out", *flags) == Status.SOME_FAILED
    text = capsys.readouterr().err
    assert "stopped because an image has failed" in text
    assert "1 of 12 images corrected, 1 failed, 10 not begun" in text
    assert images_of(tmp_path / "out") == {"sub-01": 6}


def test_an_input_that_vanishes(make_dataset, tmp_path, capsys, monkeypatch):
    """It disappears after it was indexed and before it is read."""
    root, select = make_dataset(*TWELVE[:3]), dataset.select

    def then_gone(*args, **kwargs):
        found = select(*args, **kwargs)
        (root / TWELVE[1]).unlink()
        return found

    monkeypatch.setattr(dataset, "select", then_gone)
    assert main(root, tmp_path / "out") == Status.SOME_FAILED
    text = capsys.readouterr().err
    assert f"failed: {root / TWELVE[1]}: no such file" in text
    assert images_of(tmp_path / "out") == {"sub-01": 6, "sub-03": 6}


def test_a_gpu_without_memory(make_dataset, write_image, tmp_path, capsys, monkeypatch):
    """One of three images gets JAX's error; the next run corrects only this image."""
    from n4ax_bids.core.n4 import method

    root, estimate = make_dataset(*TWELVE[:3]), method.estimate
    write_image(root / TWELVE[1], shape=(30, 22, 20))

    def too_large(image, *args, **kwargs):
        if image.shape == (30, 22, 20):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes."
            )
        return estimate(image, *args, **kwargs)

    with monkeypatch.context() as short:
        short.setattr(method, "estimate", too_large)
        assert main(root, tmp_path / "out") == Status.TRY_AGAIN
    text = capsys.readouterr().err
    (line,) = [line for line in text.splitlines() if "failed: " in line]
    assert "sub-02_T1w: failed: DeviceError: cpu: out of memory (RESOURCE_EXHAUSTED: " in line
    assert images_of(tmp_path / "out") == {"sub-01": 6, "sub-03": 6}
    assert main(root, tmp_path / "out") == 0
    assert "1 of 3 images corrected, 0 failed, 2 finished before" in capsys.readouterr().err
