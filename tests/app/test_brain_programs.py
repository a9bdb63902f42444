"""`--mask synthstrip` and `hd-bet`: from the command line to mask, record, text and page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from PIL import Image

from n4ax_bids.app import cli
from n4ax_bids.app.status import Status
from n4ax_bids.io import volume

NAMES = [f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in (1, 2)]
MASK = "sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz"
QUICK = ("--device", "cpu", "--n-iterations", "2", "2", "--shrink-factor", "1")
SYNTHSTRIP = ("--mask", "synthstrip")
VERSION = "build-stamp.txt", "freesurfer-linux-ubuntu22_x86_64-7.4.1-20230614-7eb8460"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """FreeSurfer's folder, whose programs are all of PATH."""
    folder = tmp_path / "freesurfer"
    (folder / "bin").mkdir(parents=True)
    (folder / VERSION[0]).write_text(VERSION[1])
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    return folder


@pytest.fixture
def root(make_dataset):
    return make_dataset(*NAMES[:1])


def run(root, out, *flags):
    return cli.main([str(root), str(out), "participant", *QUICK, *flags])


def sidecar(out, name=NAMES[0]):
    return json.loads((out / name.replace("_T1w.nii.gz", "_desc-biascorr_T1w.json")).read_text())


def calls(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_mask_is_written_recorded_and_cited(
    home, root, tmp_path, install, bids_errors, capsys
):
    install(home / "bin")
    out = tmp_path / "out"
    assert run(root, out, *SYNTHSTRIP, "-v") == 0
    image = volume.load(root / NAMES[0])
    inside = image.data > 100
    np.testing.assert_array_equal(np.asarray(nb.load(out / MASK).dataobj), inside)
    about = json.loads((out / MASK.replace(".nii.gz", ".json")).read_text())
    assert about["Type"] == "Brain" and about["BiasCorrection"]["Mask"] == "synthstrip"
    n4 = sidecar(out)["BiasCorrection"]
    found = n4["MaskFound"]
    assert (found["Program"], found["Version"]) == ("mri_synthstrip", "7.4.1")
    assert found["Share"] == pytest.approx(inside.mean())
    assert n4["NVoxelsMask"] == inside.sum()
    record = json.loads((out / "logs/images/sub-01/anat/sub-01_T1w.json").read_text())
    assert (
        record["settings"]["mask_program"] == "mri_synthstrip 7.4.1" and MASK in record["outputs"]
    )
    told = capsys.readouterr().err
    assert " mask: brain, " in told and "by mri_synthstrip 7.4.1; Otsu's" in told
    text = (out / "logs" / "CITATION.md").read_text()
    assert (
        "inside the brain that SynthStrip (Hoopes et al., 2022) (the program mri_synthstrip "
        "7.4.1) found in each image." in text
    )
    assert "10.1016/j.neuroimage.2022.119474" in text
    assert not list(out.glob(".n4ax_bids-*")) and bids_errors(out) == []
    # The image is divided as a whole.
    product = 1.0
    for kind in ("biascorr", "biasfield"):
        product = product * nb.load(out / f"sub-01/anat/sub-01_desc-{kind}_T1w.nii.gz").get_fdata()
    np.testing.assert_allclose(product, image.data, rtol=1e-5)


def test_the_report_reads_the_mask_that_was_written(home, root, tmp_path, install):
    """This works even if the program is no longer installed."""
    log, out = install(home / "bin"), tmp_path / "out"
    path = out / "sub-01" / "figures" / "sub-01_desc-record_T1w.json"
    assert run(root, out, *SYNTHSTRIP) == 0
    first = path.read_text()
    region = json.loads(first)["region"]
    assert region.startswith("voxels of the brain that was found in the image (")
    assert "by mri_synthstrip 7.4.1, Otsu's threshold alone finds" in region
    colours = np.asarray(Image.open(path.with_name("sub-01_desc-before_T1w.webp")).convert("RGB"))
    assert (colours[..., 0].astype(int) - colours[..., 2] > 60).any()  # the outline
    path.unlink()
    (home / "bin" / "mri_synthstrip").unlink()
    assert run(root, out, *SYNTHSTRIP, "--reports-only") == 0
    assert path.read_text() == first and calls(log) == 1


@pytest.mark.parametrize("mask", ("synthstrip", "hd-bet"))
@pytest.mark.parametrize("more", ((), ("--dry-run",)))
def test_without_the_program_nothing_begins(home, root, tmp_path, capsys, mask, more):
    out = tmp_path / "out"
    assert run(root, out, "--mask", mask, *more) == Status.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    name = {"synthstrip": "mri_synthstrip", "hd-bet": "hd-bet"}[mask]
    assert f"ERROR --mask {mask}: " in line and f"is not installed: {name} " in line
    assert "; expected " in line and not out.exists()


def test_a_dry_run_says_which_program(home, root, tmp_path, install, capsys):
    log = install(home / "bin")
    assert run(root, tmp_path / "out", *SYNTHSTRIP, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "mask: synthstrip (mri_synthstrip 7.4.1), weight: none" in told
    assert f"-> {MASK} (and .json)" in told and calls(log) == 0


def test_another_version_or_program_does_the_image_again(home, root, tmp_path, install, capsys):
    from n4ax_bids.masks import brain_programs

    log, out = install(home / "bin"), tmp_path / "out"
    flags = (*SYNTHSTRIP, "--no-reports", "-v")
    assert run(root, out, *flags) == run(root, out, *flags) == 0
    assert calls(log) == 1
    (home / VERSION[0]).write_text("freesurfer-linux-ubuntu22_x86_64-8.0.0-20250101-abc")
    brain_programs._version.cache_clear()
    capsys.readouterr()
    assert run(root, out, *flags) == 0
    assert calls(log) == 2
    told = "mask_program was mri_synthstrip 7.4.1, is mri_synthstrip 8.0.0"
    assert told in capsys.readouterr().err
    assert run(root, out, "--mask", "otsu", "--no-reports") == 0
    assert not (out / MASK).exists()


def test_an_image_for_which_it_fails_fails_alone(home, make_dataset, tmp_path, install):
    """The tail of what the program printed is in the crash record."""
    log, out = install(home / "bin"), tmp_path / "out"
    root = make_dataset(*NAMES)
    good = (home / "bin" / "mri_synthstrip").read_text()
    bad = good.replace("behaviour = 'works'", "behaviour = image.shape[0] == 10 and 'fails'")
    assert bad != good
    (home / "bin" / "mri_synthstrip").write_text(bad)
    image = nb.load(root / NAMES[1])
    image.slicer[:10].to_filename(root / NAMES[1])
    assert run(root, out, *SYNTHSTRIP, "--no-reports") == Status.SOME_FAILED
    assert calls(log) == 2 and (out / MASK).is_file()
    text = (out / "logs" / "crash-sub-02_T1w.txt").read_text()
    assert "mri_synthstrip failed with exit status 3: RuntimeError: no weights" in text
    assert "\n| Configuring model\n| Traceback (most recent call last):\n| RuntimeError" in text
    assert not list((out / "sub-02").rglob("*.nii.gz"))
    assert sidecar(out)["BiasCorrection"]["Mask"] == "synthstrip"


def test_an_engine_of_nipype_calls_it_too(home, root, tmp_path, install):
    log, out = install(home / "bin"), tmp_path / "out"
    engine = tmp_path / "engine.json"
    engine.write_text('{"plugin": "Linear"}')
    flags = (*SYNTHSTRIP, "--no-reports", "--use-plugin", str(engine))
    assert run(root, out, *flags) == 0
    assert (out / MASK).is_file() and calls(log) == 1
    install(home / "bin", behaviour="fails")
    assert run(root, out, *flags, "--overwrite") == Status.SOME_FAILED
    text = (out / "logs" / "crash-sub-01_T1w.txt").read_text()
    assert "| RuntimeError: no weights" in text
    table = max(out.glob("logs/*/images.tsv"), key=os.path.getmtime).read_text()
    assert "mri_synthstrip failed with exit status 3" in table


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
def test_a_signal_to_the_run_ends_the_program(
    home, make_dataset, tmp_path, install, wait_for, gone, number
):
    log, out = install(home / "bin", behaviour="hangs"), tmp_path / "out"
    root = make_dataset(*NAMES)
    words = [str(root), str(out), "participant", *QUICK, *SYNTHSTRIP, "--skip-bids-validation"]
    # A pipeline's processes may share a group: only ours gets the signal here.
    process = subprocess.Popen(
        [sys.executable, "-m", "n4ax_bids", *words, "--nprocs", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = wait_for(Path(f"{log}.child"))
    time.sleep(0.2)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert len(pids) == 2 and all(map(gone, pids))
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == (143 if number == signal.SIGTERM else 130)
    assert "Traceback" not in told and "failed" not in told
    assert calls(log) == 1  # the other image was waiting for its turn
    assert not list(out.glob(".n4ax_bids-*")) and not list(out.rglob("*.nii.gz"))
    assert not list(out.rglob("crash-*"))


def test_hd_bet_is_cited_and_recorded(home, root, tmp_path, install):
    install(home / "bin", "hd-bet", flags="hd-bet-2")
    out = tmp_path / "out"
    assert run(root, out, "--mask", "hd-bet", "--save-mask", "--no-reports") == 0
    assert (out / MASK).is_file() and sidecar(out)["BiasCorrection"]["MaskFound"][
        "Program"
    ] == "hd-bet"
    text = (out / "logs" / "CITATION.md").read_text()
    assert re.search(r"HD-BET \(Isensee et al., 2019\).* without test-time augmentation", text)
    assert "10.1002/hbm.24750" in (out / "logs" / "CITATION.bib").read_text()


def test_other_records_have_no_word_of_a_program(root, tmp_path):
    """So the images of a run without a program stay finished."""
    out = tmp_path / "out"
    assert run(root, out, "--no-reports") == 0
    record = json.loads((out / "logs/images/sub-01/anat/sub-01_T1w.json").read_text())
    assert "mask_program" not in record["settings"]
