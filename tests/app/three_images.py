"""Runs over three small images, and the files that they leave."""

from __future__ import annotations

from pathlib import Path

from n4ax_bids.app import cli

THREE = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii.gz",
    "sub-03/ses-1/anat/sub-03_ses-1_run-1_T2w.nii",
]


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", "--no-reports", *flags])


def files(folder: Path) -> list[str]:
    """Return the files by their paths, without the logs, which contain times."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != "logs")
