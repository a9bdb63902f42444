"""Small images in files, and their correction by us and by the ANTs program."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.correct import correct
from n4ax_bids.options import N4Options

SHORT = N4Options(n_iterations=(2, 2), shrink_factor=2)
needs_ants = pytest.mark.skipif(
    not importlib.util.find_spec("ants"), reason="antspyx is not installed"
)


def save(path, data, dtype, kind=nb.Nifti1Image, **fields):
    """Write an image of 1.5 x 1.7 x 2 mm with these fields of its header; return its path."""
    image = kind(np.asarray(data, dtype), np.diag([1.5, 1.7, 2, 1]))
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def run(folder, name="image.nii.gz", **kwargs):
    """Correct an image of the folder, on the CPU, into files beside it."""
    outputs = {"output_image": folder / "corrected.nii", "bias_image": folder / "bias.nii"}
    return correct(folder / name, **outputs | {"options": SHORT, "device": "cpu"} | kwargs)


ANTS = """
import json, sys
from ants.internal import get_lib_fn
sys.exit(get_lib_fn("N4BiasFieldCorrection")(json.loads(sys.argv[1])))
"""


def ants(cwd, *words):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash."""
    command = [sys.executable, "-c", ANTS, json.dumps(words)]
    subprocess.run(command, check=True, timeout=300, cwd=cwd)
