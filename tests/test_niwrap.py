"""niwrap's call of ANTs' N4, served by our program under ANTs' name on PATH."""

from __future__ import annotations

import os
import sys

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.phantoms import phantom

pytestmark = pytest.mark.clients
ants = pytest.importorskip("niwrap.ants", reason="niwrap-ants is not installed")


def test_its_function_runs_unchanged(tmp_path, monkeypatch):
    from styxdefs import LocalRunner, set_global_runner

    from n4ax_bids import correct, preset

    image = tmp_path / "image.nii.gz"
    made = phantom((24, 22, 20), seed=0)
    nb.Nifti1Image(made.image, np.diag([2.0, 2, 2, 1])).to_filename(image)
    program = tmp_path / "bin" / "N4BiasFieldCorrection"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m n4ax_bids.commands.ants_cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    set_global_runner(LocalRunner(data_dir=tmp_path / "styx"))
    found = ants.n4_bias_field_correction(
        input_image=image,
        image_dimensionality=3,
        shrink_factor=2,
        convergence=ants.n4_bias_field_correction_convergence_params([5, 4], 1e-6),
        bspline_fitting=ants.n4_bias_field_correction_bspline_fitting_params([30.0]),
        output=ants.n4_bias_field_correction_corrected_output_noise_params(
            "corrected.nii.gz", "field.nii.gz"
        ),
    )
    alone = tmp_path / "alone.nii.gz"
    options = preset(
        "ants",
        shrink_factor=2,
        n_iterations=(5, 4),
        convergence_threshold=1e-6,
        bspline_fitting_distance=30.0,
    )
    correct(image, alone, bias_image=tmp_path / "bias.nii.gz", options=options)
    pairs = {found.output_image_outfile: alone, found.output_bias_image: tmp_path / "bias.nii.gz"}
    for theirs, ours in pairs.items():
        np.testing.assert_array_equal(nb.load(theirs).get_fdata(), nb.load(ours).get_fdata())
