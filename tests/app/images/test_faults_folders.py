"""Disks that are full or may only be read, and folders of other users and machines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from n4ax_bids.app.status import Status
from tests.app.images.twelve_images import TWELVE, images_of, main, program


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
