"""Files and folders that are odd enough to break things: one clear line, or the right answer."""

import os
import signal
import subprocess
import sys
import time

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.core.n4.call import n4
from n4ax_bids.correct import correct
from n4ax_bids.io.geometry import read_geometry
from n4ax_bids.io.volume import load
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

SHORT = N4Options(shrink_factor=2, n_iterations=(2, 2))


@pytest.fixture
def head():
    return phantom((24, 26, 22), seed=1).image


def save(path, data, affine=None, **header):
    image = nb.Nifti1Image(np.asarray(data, np.float32), np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nb.save(image, path)
    return path


def refused(tmp_path, words, *arguments, **keywords):
    before = sorted(tmp_path.iterdir())
    with pytest.raises((ValueError, OSError), match=words) as caught:
        correct(*arguments, **{"options": SHORT} | keywords)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    return str(caught.value)


def test_field_that_overflows_is_no_result(head, tmp_path):
    """Values <= 0 inside the mask enter without logarithm, as in ITK."""
    path = save(tmp_path / "deep.nii", -head * 1e9)
    longer = N4Options(shrink_factor=2, n_iterations=(10, 10))
    message = refused(tmp_path, "no usable field", path, tmp_path / "out.nii", options=longer)
    assert str(path) in message


def test_two_spellings_of_one_output(head, tmp_path):
    path = save(tmp_path / "a.nii", head)
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / ".." / "out.nii"
    refused(tmp_path, "two outputs", path, tmp_path / "out.nii", bias_image=other)


def test_mask_is_not_overwritten(head, tmp_path):
    path, mask = save(tmp_path / "a.nii", head), save(tmp_path / "mask.nii", head > 0.2)
    refused(tmp_path, "is the mask itself", path, mask, mask_image=mask)


def test_folder_under_the_name_of_an_output(head, tmp_path):
    path = save(tmp_path / "a.nii", head)
    (tmp_path / "out.nii").mkdir()
    refused(tmp_path, "a folder has this name", path, tmp_path / "out.nii")


def test_negative_voxel_size_is_read_as_itk_reads_it(head, tmp_path):
    path = save(tmp_path / "a.nii", head, np.diag([2.0, 1.2, 1.1, 1]))
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.float32(-2).tobytes()  # pixdim[1]
    path.write_bytes(raw)
    whole = sitk.ReadImage(str(path))
    found = read_geometry(path, 3)
    assert found.spacing == pytest.approx(whole.GetSpacing())
    assert found.direction == pytest.approx(whole.GetDirection())
    correct(path, tmp_path / "out.nii", options=SHORT)


def test_voxels_begin_behind_the_header(head, tmp_path):
    path = save(tmp_path / "a.nii", head)
    raw = bytearray(path.read_bytes())
    raw[108:112] = np.float32(0).tobytes()  # vox_offset
    path.write_bytes(raw)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    np.testing.assert_array_equal(load(path).data, theirs)


def test_intercept_that_is_no_number_is_read_as_itk_reads_it(head, tmp_path):
    path = save(tmp_path / "a.nii", head)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([1, np.nan], np.float32).tobytes()
    path.write_bytes(raw)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    np.testing.assert_array_equal(load(path).data, theirs)
    correct(path, tmp_path / "out.nii", options=N4Options(n_iterations=(2,)))
    assert np.isfinite(load(tmp_path / "out.nii").data).all()


@pytest.mark.parametrize("factor", (1e-42, 1e38))
def test_range_that_float32_cannot_divide(head, tmp_path, factor):
    signed = (head - head.mean()) / np.abs(head - head.mean()).max() * 3
    path = save(tmp_path / "a.nii", np.float64(signed) * factor)
    message = refused(tmp_path, "float32", path, tmp_path / "out.nii", auto_mask="otsu")
    assert str(path) in message


def test_lists_are_arrays_and_complex_ones_are_refused(head):
    expected = n4(head, None, options=SHORT)
    np.testing.assert_array_equal(n4(head.tolist(), None, options=SHORT), expected)
    with pytest.raises(ValueError, match="real numbers"):
        n4(head.astype(complex), None)


@pytest.mark.parametrize("n_devices", (1, 2))
def test_sigterm_leaves_nothing_unfinished(head, tmp_path, n_devices):
    """How a batch system ends a job, in one process or with one for each device."""
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(1, 9):
        folder = raw / f"sub-{number:02}" / "anat"
        folder.mkdir(parents=True)
        save(folder / f"sub-{number:02}_T1w.nii.gz", head)
    (raw / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    words = [sys.executable, "-m", "n4ax_bids", str(raw), str(out), "participant"]
    process = subprocess.Popen(
        [*words, "--nprocs", "4"],
        env={**os.environ, "XLA_FLAGS": flags},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob(".n4ax_bids-*/sub-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert "Traceback" not in text and "failed" not in text
    assert not [path for path in out.rglob(".*") if path.name != ".bidsignore"]
    assert not list(out.glob("logs/crash-*"))
