"""Brain masks by other programs: how they are found and called, and what is said of failures."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, correct
from n4ax_bids.io import volume
from n4ax_bids.masks import brain_programs, skull_strip
from n4ax_bids.masks.skull_strip import Means
from n4ax_bids.runtime import programs

SHAPE = (22, 24, 20)
SHORT = N4Options(n_iterations=(2,), shrink_factor=1)
AFFINES = {
    "RAS": [[2, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2.5, -30], [0, 0, 0, 1]],
    "PIL": [[0, 0, -2.5, 30], [-2, 0, 0, 20], [0, -2, 0, 10], [0, 0, 0, 1]],
    "LAS, oblique": [[-1.9, 0.3, 0, 10], [0.3, 1.9, 0, -20], [0, 0, 2, -30], [0, 0, 0, 1]],
}


@pytest.fixture
def bin(tmp_path, monkeypatch):
    """A folder that is all of PATH, and no FreeSurfer."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def made(path, affine=AFFINES["RAS"], unit="mm", shape=SHAPE):
    """Write a ball of two intensities that is brighter than 100, with one corner of it cut off."""
    axes = np.ix_(*(np.linspace(-1, 1, n) for n in shape))
    away = np.sqrt(sum(axis**2 for axis in axes))
    image = np.where(away < 0.8, 200.0, 10.0) + np.random.default_rng(0).normal(0, 3, shape)
    image[:9, :9, :] = 20
    image[away < 0.4] += 100
    found = nb.Nifti1Image(image.astype(np.int16), np.array(affine, float))
    found.header.set_xyzt_units(unit)
    found.to_filename(path)
    return path


@pytest.fixture
def image(tmp_path):
    return volume.load(made(tmp_path / "T1w.nii.gz"))


def calls(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("axes", AFFINES)
def test_the_mask_is_on_the_image_s_grid_whatever_its_axes(bin, tmp_path, axes, install):
    log = install(bin)
    read = volume.load(made(tmp_path / "T1w.nii", AFFINES[axes]))
    found = skull_strip.brain(read, "synthstrip")
    np.testing.assert_array_equal(found.mask, read.data > 100)
    assert found.mask.dtype == bool and found.notes == ()
    (call,) = calls(log)
    assert call["axes"] == ["R", "A", "S"] and call["dtype"] == "float32"
    assert not Path(call["folder"]).exists()


def test_an_image_in_metres_is_shown_to_the_program_in_mm(bin, tmp_path, install):
    install(bin)
    metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINES["PIL"]
    read = volume.load(made(tmp_path / "T1w.nii", metres, "meter"))
    np.testing.assert_array_equal(skull_strip.brain(read, "synthstrip").mask, read.data > 100)


@pytest.mark.parametrize(
    ("command", "flags", "version", "gpu", "words"),
    [
        ("mri_synthstrip", "synthstrip", "", None, "-i image.nii.gz -m mask.nii.gz"),
        ("mri_synthstrip", "synthstrip", "", 0, "-i image.nii.gz -m mask.nii.gz -g"),
        ("synthstrip-docker", "synthstrip", "1.5", 0, "-i image.nii.gz -m mask.nii.gz"),
        ("synthstrip-singularity", "synthstrip", "1.2", 0, "-i image.nii.gz -m mask.nii.gz -g"),
    ],
)
def test_how_synthstrip_is_called(bin, image, command, flags, version, gpu, words, install):
    head = {
        "synthstrip-docker": "version = '1.5'\n",
        "synthstrip-singularity": "image_path = '/images/synthstrip.1.2.sif'\n",
    }
    log = install(bin, command, flags=flags, head=head.get(command, ""))
    found = skull_strip.brain(image, "synthstrip", Means(gpu=gpu, n_threads=3))
    assert (found.program, found.version) == (command, version)
    assert found.mask.sum() == (image.data > 100).sum()
    (call,) = calls(log)
    assert call["words"] == words.split()
    assert call["environment"]["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("version", "major"), [("2.0.1", 2), ("1.0", 1), ("", 2), ("", 1)])
@pytest.mark.parametrize("gpu", [None, 0])
def test_how_hd_bet_is_called(bin, image, monkeypatch, version, major, gpu, install):
    """By the version of its package, or where that is not known by what its help shows."""
    monkeypatch.setattr(brain_programs, "_of_package", lambda name: lambda path: version)
    log = install(bin, "hd-bet", flags=f"hd-bet-{major}")
    found = skull_strip.brain(image, "hd-bet", Means(gpu=gpu))
    assert found.mask.sum() == (image.data > 100).sum()
    assert found.version == version or found.version == str(major)
    (call,) = calls(log)
    start, words = "-i image.nii.gz -o brain.nii.gz -device ", " ".join(call["words"])
    expected = {
        (2, None): "cpu --disable_tta --save_bet_mask --no_bet_image",
        (2, 0): "cuda --disable_tta --save_bet_mask --no_bet_image",
        (1, None): "cpu -mode fast -tta 0 -s 1",
        (1, 0): "0 -mode fast -tta 0 -s 1",
    }
    assert words == start + expected[major, gpu]


@pytest.mark.parametrize(
    ("visible", "gpu", "seen"), [(None, 1, "1"), ("4,GPU-7", 1, "GPU-7"), ("4", 0, "4")]
)
def test_the_gpu_of_the_solve_is_that_of_the_program(
    bin, image, monkeypatch, visible, gpu, seen, install
):
    log = install(bin, "hd-bet", flags="hd-bet-2")
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    skull_strip.brain(image, "hd-bet", Means(gpu=gpu))
    assert calls(log)[0]["environment"]["CUDA_VISIBLE_DEVICES"] == seen


def test_a_program_that_fails_on_the_gpu_is_run_on_the_cpu(bin, image, install):
    log = install(bin, behaviour="fails on the GPU")
    found = skull_strip.brain(image, "synthstrip", Means(gpu=0))
    assert found.notes == (
        "mri_synthstrip failed on the GPU (exit status 3: RuntimeError: no weights); its mask was "
        "computed on the CPU",
    )
    assert ["-g" in call["words"] for call in calls(log)] == [True, False]
    assert found.mask.sum() == (image.data > 100).sum()


def test_the_model_that_nipreps_synthstrip_needs(bin, image, tmp_path, monkeypatch, install):
    log = install(bin, "nipreps-synthstrip")
    with pytest.raises(
        FileNotFoundError, match="nipreps-synthstrip needs its model in the folder"
    ):
        skull_strip.brain(image, "synthstrip")
    model = tmp_path / "fs" / "models" / "synthstrip.1.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path / "fs"))
    assert skull_strip.brain(image, "synthstrip").program == "nipreps-synthstrip"
    assert calls(log)[0]["words"][-2:] == ["--model", str(model)]


def test_the_version_of_freesurfer(tmp_path, monkeypatch, bin, install):
    home = tmp_path / "freesurfer"
    install(home / "bin")
    monkeypatch.setenv("PATH", str(home / "bin"))
    assert brain_programs.installed("synthstrip").label == "mri_synthstrip (version not known)"
    (home / "build-stamp.txt").write_text(
        "freesurfer-linux-ubuntu22_x86_64-7.4.1-20230614-7eb84\n"
    )
    brain_programs._version.cache_clear()
    assert brain_programs.installed("synthstrip").label == "mri_synthstrip 7.4.1"
    (home / "build-stamp.txt").write_text("freesurfer-linux-dev-20230614\n")
    brain_programs._version.cache_clear()
    assert brain_programs.installed("synthstrip").version == "freesurfer-linux-dev-20230614"


def test_the_version_of_a_package_is_that_of_the_script_s_python(bin, install):
    """Asked of the interpreter in its first line, without running the script."""
    log = install(bin, "hd-bet", flags="hd-bet-2")
    version = brain_programs._of_package("nibabel")(bin / "hd-bet")
    assert version == nb.__version__ and not log.exists()
    assert brain_programs._of_package("no-such-package")(bin / "hd-bet") == ""
    (bin / "hd-bet").write_text("#!/bin/sh\nexec true\n")
    assert brain_programs._of_package("nibabel")(bin / "hd-bet") == ""


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        (
            "synthstrip",
            ("SynthStrip is not installed: mri_synthstrip or ", "synthstrip-docker", "FreeSurfer"),
        ),
        ("hd-bet", ("HD-BET is not installed: hd-bet was looked for", "pip install hd-bet")),
    ],
)
def test_one_that_is_not_installed(bin, tmp_path, word, parts):
    path = made(tmp_path / "T1w.nii.gz")
    with pytest.raises(FileNotFoundError) as raised:
        correct(path, tmp_path / "out.nii.gz", auto_mask=word, device="cpu")
    text = str(raised.value)
    assert "\n" not in text and all(part in text for part in parts)
    assert not (tmp_path / "out.nii.gz").exists()


FAILURES = {
    "fails": "mri_synthstrip failed with exit status 3: RuntimeError: no weights",
    "is killed": "mri_synthstrip failed with signal 9; out of memory?: Configuring model",
    "writes nothing": "mri_synthstrip succeeded but wrote no mask",
    "writes rubbish": "mri_synthstrip wrote a mask that does not fit: ",
    "takes another grid": "mri_synthstrip wrote a mask that does not fit: shape (21, 24, 20); "
    "expected (22, 24, 20)",
    "moves the mask": "mri_synthstrip wrote a mask that does not fit: lies elsewhere than ",
    "finds nothing": "mri_synthstrip found no brain: every voxel of its mask is 0",
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_failure_is_one_line_with_a_note_of_what_was_printed(bin, tmp_path, behaviour, install):
    install(bin, behaviour=behaviour)
    path, work = made(tmp_path / "T1w.nii.gz"), tmp_path / "work"
    work.mkdir()
    with pytest.raises(ChildProcessError) as raised:
        correct(path, work / "out.nii.gz", auto_mask="synthstrip", options=SHORT, device="cpu")
    text = str(raised.value)
    assert text.startswith(f"{path}: {FAILURES[behaviour]}") and "\n" not in text
    assert list(work.iterdir()) == []
    whole = "".join(traceback.format_exception(raised.value))
    assert f"{bin / 'mri_synthstrip'} (mri_synthstrip (version not known)) printed, last:" in whole
    assert "\n| Configuring model" in whole
    assert ("\n| RuntimeError: no weights" in whole) == (behaviour == "fails")


def test_an_image_of_two_axes(bin, tmp_path, install):
    install(bin)
    path = made(tmp_path / "slice.nii.gz", shape=(30, 30, 1))
    with pytest.raises(ValueError, match=r"shape \(30, 30\); SynthStrip expects three axes"):
        correct(path, tmp_path / "out.nii.gz", auto_mask="synthstrip", device="cpu")


def test_a_hanging_program_ends_with_the_run(
    bin, image, monkeypatch, tmp_path, install, gone, wait_for
):
    monkeypatch.setattr(programs, "KEEPER", programs.KEEPER.replace("wait(5.0)", "wait(0.3)"))
    log = install(bin, behaviour="hangs")
    child = Path(f"{log}.child")
    with pytest.raises(KeyboardInterrupt):
        skull_strip.brain(image, "synthstrip", Means(folder=tmp_path, stopped=child.is_file))
    assert all(map(gone, wait_for(child)))
    assert not list(tmp_path.glob("skull_strip-*"))


def test_one_program_at_a_time_and_who_waits_can_be_ended(bin, image, install, wait_for):
    log = install(bin, behaviour="hangs")
    child, stop, ended = Path(f"{log}.child"), threading.Event(), []

    def work():
        try:
            skull_strip.brain(image, "synthstrip", Means(stopped=stop.is_set))
        except KeyboardInterrupt:
            ended.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(child)
        time.sleep(0.5)
        assert len(calls(log)) == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert len(ended) == 3 and len(calls(log)) == 1 and not skull_strip._turn.locked()


def test_a_path_that_a_shell_would_read_otherwise(bin, image, tmp_path, monkeypatch, install):
    """The containers' scripts put their paths into a line for a shell."""
    log = install(bin, "synthstrip-docker")
    odd = tmp_path / "a; touch b"
    odd.mkdir()
    skull_strip.brain(image, "synthstrip", Means(folder=odd))
    assert Path(calls(log)[0]["folder"]).parent != odd
    monkeypatch.setattr(skull_strip.tempfile, "tempdir", str(odd))
    with pytest.raises(OSError, match="hands this path to a shell; expected letters, digits"):
        skull_strip.brain(image, "synthstrip", Means(folder=odd))
    (bin / "synthstrip-docker").unlink()
    log = install(bin, "mri_synthstrip")
    skull_strip.brain(image, "synthstrip", Means(folder=odd))
    assert Path(calls(log)[0]["folder"]).parent == Path(os.path.realpath(odd))


def test_what_is_recorded_of_a_correction(bin, tmp_path, install):
    install(bin, "hd-bet", flags="hd-bet-2", level=250)
    path, out = made(tmp_path / "T1w.nii.gz"), tmp_path / "out.nii.gz"
    mask = tmp_path / "mask.nii.gz"
    given = {"options": SHORT, "device": "cpu", "found_mask_image": mask}
    done = correct(path, out, auto_mask="hd-bet", **given)
    inside = volume.load(path).data > 250
    np.testing.assert_array_equal(volume.load(mask).data, inside)
    assert done.mask == "hd-bet" and done.n_voxels_mask == inside.sum()
    assert done.mask_found == {
        "kind": "brain",
        "share": pytest.approx(inside.mean()),
        "program": "hd-bet",
        "version": "2",
        "otsu_covers": 1.0,
    }
    # The same mask as a file, where the image is corrected outside it too, gives the same.
    other = tmp_path / "other.nii.gz"
    given = {"options": SHORT, "device": "cpu", "rescale_intensities": False}
    correct(path, other, mask_image=mask, correct_outside=True, **given)
    np.testing.assert_array_equal(volume.load(out).data, volume.load(other).data)


def test_a_mask_that_cannot_carry_a_solve_is_told(bin, tmp_path, install):
    """It is checked as every mask that nobody has looked at."""
    path = made(tmp_path / "T1w.nii.gz")
    given = {"auto_mask": "synthstrip", "options": SHORT, "device": "cpu"}
    values = np.sort(volume.load(path).data.ravel())
    install(bin, level=float(values[-30]))
    n = np.count_nonzero(values > values[-30])
    with pytest.raises(ValueError) as raised:
        correct(path, tmp_path / "out.nii.gz", **given)
    assert str(raised.value) == (
        f"{path}: SynthStrip's mask holds {n} of 10560 samples, fewer than the 64 control points "
        "of the first level; expected another mask or a smaller shrink factor"
    )
