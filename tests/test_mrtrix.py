"""MRtrix's `dwibiascorrect ants`, with our program and with ANTs' own under ANTs' name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.phantoms import phantom

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        shutil.which("dwibiascorrect") is None,
        reason="MRtrix is not installed (Debian: apt-get install mrtrix3)",
    ),
]
ROUNDING = 2e-6
"""17 float32 roundings"""
ANTS = """#!{python}
import sys
from ants.internal import get_lib_fn
sys.exit(get_lib_fn("N4BiasFieldCorrection")(sys.argv[1:]))
"""


@pytest.fixture
def series(tmp_path):
    """A series of one volume without and two with diffusion weighting, in a folder."""
    made = phantom((32, 30, 28), seed=0, noise=0.02)
    data = np.stack([made.image, 0.5 * made.image, 0.4 * made.image], axis=-1)
    affine = np.diag([2.0, 2.0, 2.2, 1.0])
    nb.Nifti1Image(data.astype(np.float32), affine).to_filename(tmp_path / "dwi.nii.gz")
    nb.Nifti1Image(made.mask.astype(np.uint8), affine).to_filename(tmp_path / "mask.nii.gz")
    (tmp_path / "bvals").write_text("0 1000 1000\n")
    (tmp_path / "bvecs").write_text("0 1 0\n0 0 1\n0 0 0\n")
    return tmp_path


def corrected(folder: Path, name: str, program: Path) -> list[np.ndarray]:
    """Run MRtrix with a program under ANTs' name; return the series and the field."""
    own = folder / name
    own.mkdir()
    (own / "bin").mkdir()
    shutil.copy2(program, own / "bin" / "N4BiasFieldCorrection", follow_symlinks=False)
    words = "-fslgrad bvecs bvals -mask mask.nii.gz -ants.s 2 -ants.c [4,0.0] -ants.b [60,3]"
    outputs = [own / "corrected.nii.gz", own / "field.nii.gz"]
    subprocess.run(
        ["dwibiascorrect", "ants", "dwi.nii.gz", outputs[0], "-bias", outputs[1], *words.split()],
        cwd=folder,
        env=os.environ | {"PATH": f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return [np.asarray(nb.load(path).dataobj, np.float64) for path in outputs]


def test_the_series_and_the_field_are_those_with_ants(series):
    pytest.importorskip("ants", reason="antspyx is not installed")
    shim, link = series / "ants.py", series / "link"
    shim.write_text(ANTS.format(python=sys.executable))
    shim.chmod(0o755)
    link.symlink_to(Path(sys.executable).with_name("n4ax-n4"))
    theirs, ours = corrected(series, "theirs", shim), corrected(series, "ours", link)
    raw = np.asarray(nb.load(series / "dwi.nii.gz").dataobj)
    assert theirs[0].shape == raw.shape and np.ptp(theirs[1]) > 0.01
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=ROUNDING)
