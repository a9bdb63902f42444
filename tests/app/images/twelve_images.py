"""Runs over up to twelve small images, and what they leave in the output folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np

from n4ax_bids.app import cli

TWELVE = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 13)]
FAST = ["--device", "cpu", "--n-iterations", "2", "1", "--skip-bids-validation"]
FAST += ["--no-reports", "--mask", "otsu"]  # finding a brain takes longer than the rest


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
