"""Brain masks by other programs: how they are found and called, and what is recorded of them."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import correct
from n4ax_bids.io import volume
from n4ax_bids.masks import brain_programs, skull_strip
from n4ax_bids.masks.skull_strip import Means
from tests.masks.stand_ins import AFFINES, SHORT, calls, made


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
