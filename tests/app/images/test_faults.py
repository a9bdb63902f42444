"""Images, disks and devices that fail: each is reported by name, and the others succeed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.select import dataset
from n4ax_bids.app.status import Status

TWELVE = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 13)]
FAST = ["--device", "cpu", "--n-iterations", "2", "1", "--skip-bids-validation"]
FAST += ["--no-reports", "--mask", "otsu"]  # finding a brain takes longer than the rest
REASONS = {
    "sub-02": "truncated",
    "sub-04": "1 voxel that is used is NaN or infinite, the first at (3, 4, 5)",
    "sub-06": "constant image, every voxel is 3",
    "sub-08": "Permission denied",
    "sub-10": "2 volumes of shape (9, 9, 9); expected a single one",
    "sub-11": "empty file",
    "sub-12": "link",
}


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", *FAST, *flags])


# Permissions bind root as well once CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH have gone.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
        sys.exit("cannot drop privileges")
os.execv(sys.executable, [sys.executable, "-m", "n4ax_bids", *sys.argv[1:]])
"""


def program(root, out, *flags):
    """Run in a process without privileges; return status and log."""
    words = [str(root), str(out), "participant", *FAST, *flags]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGES, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr


def images_of(out: Path) -> dict[str, int]:
    """Return how many files each subject has; all images among them must be readable."""
    found: dict[str, int] = {}
    for path in out.glob("sub-*/**/*.*"):
        assert not path.name.startswith("."), path
        found[path.name[:6]] = found.get(path.name[:6], 0) + 1
        if path.name.endswith(".nii.gz"):
            assert np.isfinite(nb.load(path).get_fdata()).all()
        else:
            json.loads(path.read_text())
    return found


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


@pytest.fixture
def disk(tmp_path):
    """A disk of its own: disk(options) mounts it or changes how it is mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        again = "remount," if folder.is_mount() else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", again + options, "n4ax", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_gets_full(make_dataset, tmp_path, disk, capsys):
    """Some images fit, and the others leave no files; with free space they succeed too."""
    root, out = make_dataset(*TWELVE), disk("size=600k")
    assert main(root, out, "--nprocs", "2") == Status.CANNOT_WRITE
    text = capsys.readouterr().err
    assert "Traceback" not in text
    failed = [line for line in text.splitlines() if "failed: " in line]
    assert 0 < len(failed) < 12
    assert all("No space left on device" in line for line in failed)
    made = images_of(out)
    assert len(made) == 12 - len(failed) and set(made.values()) == {6}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".bidsignore"]
    disk("size=20m")
    assert main(root, out) == 0
    assert f"{len(failed)} of 12 images corrected, 0 failed, {len(made)} finished before" in (
        capsys.readouterr().err
    )
    assert images_of(out) == {name[:6]: 6 for name in TWELVE}


def test_a_full_disk_from_the_start(make_dataset, disk, capsys):
    out = disk("size=64k")
    (out / "other").write_bytes(bytes(60_000))
    assert main(make_dataset(TWELVE[0]), out) == Status.CANNOT_WRITE
    text = capsys.readouterr().err
    assert "No space left on device" in text and "Traceback" not in text
    assert images_of(out) == {}


def test_an_output_folder_that_may_only_be_read(make_dataset, disk, capsys):
    root, out = make_dataset(*TWELVE[:2]), disk("size=20m")
    assert main(root, out, "--participant-label", "01") == 0
    disk("ro")
    assert main(root, out) == Status.CANNOT_WRITE
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(out) in line and "Read-only file system" in line
    assert images_of(out) == {"sub-01": 6}


def test_an_output_folder_of_somebody_else(make_dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    status, text = program(make_dataset(TWELVE[0]), out)
    assert status == Status.CANNOT_WRITE
    assert str(out) in text and "Permission denied" in text
    assert list(out.iterdir()) == []


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


def test_a_run_that_was_taken_for_dead_gives_up_its_image(
    fake_node, make_dataset, tmp_path, capsys, monkeypatch
):
    """Another run takes over the image while this run sleeps during its processing."""
    from n4ax_bids import interfaces
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims, presence

    root, out = make_dataset(TWELVE[0]), tmp_path / "out"
    run = interfaces.BiasFieldCorrection.run
    with presence.at_work(out) as (other, _):
        taken = []

        def asleep(node, cwd):
            with monkeypatch.context() as dead:
                dead.setattr(presence.Presence, "lives", lambda *_: False)
                claim = claims.claimed(out / attempt.CLAIMS, TWELVE[0], other)
                taken.append((claim, claim.__enter__()))
            return run(node, cwd)

        monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", asleep)
        assert main(root, out) == 0
        assert "0 of 1 images corrected, 0 failed, 1 left to other runs" in capsys.readouterr().err
        assert images_of(out) == {}
        ((claim, held),) = taken
        assert held.holds()
        claim.__exit__(None, None, None)
    monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", run)
    assert main(root, out) == 0
    assert images_of(out) == {"sub-01": 6}


def test_what_another_run_has_is_looked_at_again_at_the_end(
    fake_node, make_dataset, tmp_path, capsys, monkeypatch
):
    """The other run holds the first image and ends without correcting it."""
    from n4ax_bids import interfaces
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims, presence

    root, out = make_dataset(*TWELVE[:2]), tmp_path / "out"
    run, there = interfaces.BiasFieldCorrection.run, presence.at_work(out)
    other, _ = there.__enter__()
    claim = claims.claimed(out / attempt.CLAIMS, TWELVE[0], other)
    claim.__enter__()

    def meanwhile(node, cwd):
        there.__exit__(None, None, None)  # its folder goes, its claim stays: it was killed
        monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", run)
        return run(node, cwd)

    monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", meanwhile)
    assert main(root, out, "--nprocs", "1") == 0
    text = capsys.readouterr().err
    assert text.index("sub-02_T1w: corrected") < text.index("sub-01_T1w: corrected")
    assert images_of(out) == {"sub-01": 6, "sub-02": 6}
    assert list((out / attempt.CLAIMS).iterdir()) == []


def test_a_clean_work_folder(fake_node, make_dataset, tmp_path):
    """Files that seem to belong to another machine are removed only on request."""
    root, work = make_dataset(TWELVE[0]), tmp_path / "work"
    left = work / ".n4ax_bids-00000000-1-1-00000000"
    left.mkdir(parents=True)
    mine = work / "mine"
    mine.touch()
    assert main(root, tmp_path / "out", "-w", str(work)) == 0
    assert left.exists()
    assert main(root, tmp_path / "out", "-w", str(work), "--clean-workdir", "--overwrite") == 0
    assert sorted(work.iterdir()) == [mine]
