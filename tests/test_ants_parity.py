"""Whole files beside the ANTs program, whose fields `python -m benchmarks.parity` stored."""

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import parity_cases as parity
from n4ax_bids.core.field import evaluate
from n4ax_bids.correct import correct
from n4ax_bids.options import preset


@pytest.mark.parametrize("with_mask", (False, True), ids=("all voxels", "Otsu mask"))
@pytest.mark.parametrize("name", parity.ANTS_WORDS)
def test_bias_field_of_a_whole_head(name, with_mask, test_data, tmp_path):
    head = test_data(parity.HEAD)
    mask = None
    if with_mask:
        mask = tmp_path / "mask.nii.gz"
        image = sitk.ReadImage(str(head), sitk.sitkFloat32)
        sitk.WriteImage(sitk.OtsuThreshold(image, 0, 1, 200), str(mask))
    out, bias = tmp_path / "out.nii", tmp_path / "bias.nii"
    correct(head, out, bias_image=bias, mask_image=mask, options=preset(name))
    ours = np.log(np.asarray(nb.load(bias).dataobj))

    with np.load(parity.REFERENCE) as stored:
        key = f"ants/{name}/{'mask' if with_mask else 'none'}"
        lattice, itself = stored[f"{key}/lattice"], parity.Difference(*stored[f"{key}/itk_itself"])
    grid = parity.final_grid(name, ours.shape)._replace(lattice=lattice)
    theirs = np.asarray(evaluate(grid, [(0, n) for n in ours.shape]))
    found = parity.difference(ours, theirs)
    assert parity.within_full_run_bounds(found, itself), found
