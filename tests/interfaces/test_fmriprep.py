"""fMRIPrep's own workflow for head motion with our node, on a real series."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import nibabel as nb
import nitransforms as nt
import numpy as np
import pytest

from n4ax_bids import Realign, RealignOptions
from n4ax_bids.core.motion import rigid
from n4ax_bids.interfaces import MCFLIRT, patch

pytestmark = pytest.mark.fmriprep

BOLD = "bids-small/sub-001/func/sub-001_task-rest_bold.nii.gz"
N_VOLUMES = 20


@pytest.fixture(scope="module")
def fmriprep(request, tmp_path_factory):
    """Let fMRIPrep be imported without a network; fail where it was asked for and is not there."""
    if not importlib.util.find_spec("fmriprep"):
        reason = "fmriprep is not installed: pip install 'n4ax_bids[fmriprep]'"
        asked_for = request.config.getoption("markexpr") == "fmriprep"
        pytest.fail(reason) if asked_for else pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        yield


@pytest.fixture(scope="module")
def series(test_data, tmp_path_factory):
    """Twenty real volumes, with their fifth one as the reference."""
    folder = tmp_path_factory.mktemp("bold")
    image = nb.load(test_data(BOLD))
    data = np.asarray(image.dataobj[..., :N_VOLUMES], np.float32)
    nb.Nifti1Image(data, image.affine).to_filename(folder / "bold.nii.gz")
    nb.Nifti1Image(data[..., 4], image.affine).to_filename(folder / "ref.nii.gz")
    return folder / "bold.nii.gz", folder / "ref.nii.gz"


def test_the_head_motion_workflow(fmriprep, series, tmp_path):
    bold, reference = series
    with patch():
        from fmriprep.workflows.bold.hmc import init_bold_hmc_wf

        workflow = init_bold_hmc_wf(mem_gb=0.1, omp_nthreads=1)
    workflow.base_dir = tmp_path
    workflow.inputs.inputnode.bold_file = str(bold)
    workflow.inputs.inputnode.raw_ref_image = str(reference)
    node = workflow.get_node("mcflirt")
    assert isinstance(node.interface, MCFLIRT)
    done = {each.name: each for each in workflow.run(plugin="Linear").nodes()}
    xforms = Path(done["fsl2itk"].result.outputs.out_file)
    assert xforms.is_file()
    theirs = nt.linear.load(xforms, fmt="itk").matrix
    assert theirs.shape == (N_VOLUMES, 4, 4)
    options = RealignOptions(register_to_mean=False)
    image = nb.load(bold)
    q = Realign(bold, reference_image=reference, options=options).estimate_all().motion.q
    ours = rigid.mapping(q, image.affine, image.shape[:3])
    found = rigid.motion(theirs, image.affine, image.shape[:3])
    print(
        "largest difference", np.abs(theirs - ours).max(), "largest motion", np.abs(q).max(axis=0)
    )
    assert np.abs(found[:, :3] - q[:, :3]).max() <= 1e-3
    assert np.degrees(np.abs(found[:, 3:] - q[:, 3:]).max()) <= 1e-3
    assert np.abs(q).max() > 1e-3  # a real series does move
    np.testing.assert_allclose(theirs, ours, atol=2e-3)
    assert os.path.basename(done["mcflirt"].result.outputs.mat_file[0]) == "MAT_0000"
