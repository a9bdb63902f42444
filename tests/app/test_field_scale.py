"""Corrected images keep the level of their sources unless told otherwise."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli

T1W = "sub-01/anat/sub-01_T1w.nii.gz"


def test_the_mean_of_the_field_is_1(make_dataset, tmp_path):
    root = make_dataset(T1W)
    fast = ["participant", "--skip-bids-validation", "--no-reports", "--n-iterations", "4"]
    bias = {}
    for scale in ("mean", "as-is"):
        out = tmp_path / scale
        flags = [] if scale == "mean" else ["--field-scale", scale]
        assert cli.main([str(root), str(out), *fast, "--save-mask", *flags]) == 0
        (field,) = out.glob("sub-01/anat/*desc-biasfield_T1w.nii.gz")
        (mask,) = out.glob("sub-01/anat/*_mask.nii.gz")
        bias[scale] = nb.load(field).get_fdata()
        inside = nb.load(mask).get_fdata() > 0
        facts = json.loads(field.with_name(field.name.replace(".nii.gz", ".json")).read_text())
        assert facts["BiasCorrection"]["FieldScale"] == scale
        text = (out / "logs" / "CITATION.md").read_text()
        assert ("by its mean inside the mask" in text) == (scale == "mean")
    assert bias["mean"][inside].mean() == pytest.approx(1, abs=1e-5)
    ratio = bias["as-is"] / bias["mean"]
    assert np.ptp(ratio) < 1e-5 * ratio.mean()
