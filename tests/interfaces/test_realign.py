"""The nodes for realignment, as scripts and workflows use them."""

from __future__ import annotations

import importlib
import os
import pickle

import nibabel as nb
import nipype.interfaces.fsl
import nipype.interfaces.spm
import numpy as np
import pytest
from nipype import Node

from n4ax_bids.core.motion import rigid
from n4ax_bids.interfaces import MCFLIRT, Realign, patch
from n4ax_bids.io import motion_files
from tests.moving_head import motions, moving_head

SHAPE = (28, 30, 22)


@pytest.fixture(scope="module")
def moved():
    q = motions(4)
    q[2], q[0] = 0, q[2]  # MCFLIRT's reference is the middle volume
    return moving_head(q, shape=SHAPE, zooms=(6.0, 6.0, 7.0))


@pytest.fixture(scope="module")
def bold(moved, tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "bold.nii.gz"
    nb.Nifti1Image(np.moveaxis(moved.volumes, 0, -1), moved.affine).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("module", "name", "ours"),
    [
        ("nipype.interfaces.fsl.tests.test_auto_MCFLIRT", "MCFLIRT", MCFLIRT),
        ("nipype.interfaces.spm.tests.test_auto_Realign", "Realign", Realign),
    ],
)
def test_nipypes_own_tests(monkeypatch, module, name, ours):
    """Those that nipype generates from its class: every trait, with its metadata."""
    tests = importlib.import_module(module)
    monkeypatch.setattr(tests, name, ours)
    called = [test() for word, test in vars(tests).items() if word.startswith("test_")]
    assert len(called) == 2


@pytest.fixture(scope="module")
def mcflirt(bold, tmp_path_factory):
    """A run as in fMRIPrep's head motion workflow, with every file."""
    folder = tmp_path_factory.mktemp("mcflirt")
    node = Node(
        MCFLIRT(
            in_file=str(bold),
            save_mats=True,
            save_plots=True,
            save_rms=True,
            stats_imgs=True,
            mean_vol=True,
            output_type="NIFTI_GZ",
        ),
        name="mcflirt",
        base_dir=folder,
    )
    return node.run().outputs


def test_its_files_have_fsls_names(mcflirt):
    assert os.path.basename(mcflirt.out_file) == "bold_mcf.nii.gz"
    assert [os.path.relpath(path, mcflirt.out_file + ".mat") for path in mcflirt.mat_file] == [
        f"MAT_{i:04d}" for i in range(4)
    ]
    assert mcflirt.par_file == mcflirt.out_file + ".par"
    assert mcflirt.rms_files == [mcflirt.out_file + "_abs.rms", mcflirt.out_file + "_rel.rms"]
    assert os.path.basename(mcflirt.mean_img) == "bold_mcf_mean_reg.nii.gz"
    assert os.path.basename(mcflirt.std_img) == "bold_mcf_sigma.nii.gz"
    assert os.path.basename(mcflirt.variance_img) == "bold_mcf_variance.nii.gz"


def test_its_matrices_are_the_true_motion(mcflirt, moved):
    matrices = np.stack([motion_files.read_table(path, 4) for path in mcflirt.mat_file])
    mappings = rigid.from_fsl_matrices(matrices, moved.affine, moved.shape)
    q = rigid.motion(mappings, moved.affine, moved.shape)
    assert np.abs(q - moved.q).max() < 0.05
    relative = motion_files.read_table(mcflirt.rms_files[1], 1)
    assert len(relative) == 3 and (relative > 0.5).all()


def test_its_images_agree(mcflirt):
    series = nb.load(mcflirt.out_file).get_fdata()[4:-4, 4:-4, 4:-4]
    sd, variance = (
        nb.load(path).get_fdata()[4:-4, 4:-4, 4:-4]
        for path in (mcflirt.std_img, mcflirt.variance_img)
    )
    np.testing.assert_allclose(sd, series.std(axis=-1), atol=0.02)
    np.testing.assert_allclose(sd**2, variance, rtol=1e-4, atol=1e-4)


def test_it_shows_fsls_command_line(bold):
    node = MCFLIRT(in_file=str(bold), out_file="moco.nii", cost="mutualinfo")
    assert node.cmdline == f"mcflirt -in {bold} -cost mutualinfo -out moco.nii"
    assert not hasattr(node, "_cmd")  # fMRIPrep would look for such a program
    assert pickle.loads(pickle.dumps(node)).inputs.cost == "mutualinfo"


@pytest.mark.parametrize(
    ("inputs", "message"), [({"dof": 12}, "dof is 12"), ({"ref_vol": 9}, "reference is 9")]
)
def test_what_it_cannot_do_is_refused(bold, tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        MCFLIRT(in_file=str(bold), **inputs).run()


def test_patch_puts_it_in_place():
    theirs = nipype.interfaces.fsl.MCFLIRT
    with patch() as patched:
        assert nipype.interfaces.fsl.MCFLIRT is MCFLIRT
        assert "nipype.interfaces.fsl.preprocess.MCFLIRT" in patched.replaced
    assert nipype.interfaces.fsl.MCFLIRT is theirs


def test_realign_as_for_spm(bold, moved, tmp_path):
    node = Node(Realign(in_files=[str(bold)], fwhm=6), name="realign", base_dir=tmp_path)
    outputs = node.run().outputs
    rows = motion_files.read_table(outputs.realignment_parameters, 6)
    true = rigid.spm_parameters(rigid.mapping(moved.q, moved.affine, moved.shape))
    assert np.abs(rows - true).max() < 0.1
    np.testing.assert_allclose(rows[0], 0, atol=1e-12)
    assert os.path.basename(outputs.realignment_parameters) == "rp_bold.txt"
    assert os.path.basename(outputs.realigned_files) == "rbold.nii.gz"
    assert os.path.basename(outputs.mean_image) == "meanbold.nii.gz"
    assert nb.load(outputs.realigned_files).shape == (*SHAPE, 4)


def test_two_series_share_a_reference(bold, moved, tmp_path):
    other = tmp_path / "second.nii.gz"
    nb.Nifti1Image(np.moveaxis(moved.volumes[::-1], 0, -1), moved.affine).to_filename(other)
    node = Node(Realign(in_files=[str(bold), str(other)]), name="realign", base_dir=tmp_path)
    one, two = (nb.load(path).get_fdata() for path in node.run().outputs.realigned_files)
    inner = (slice(4, -4),) * 3
    assert np.abs(one[inner] - two[inner][..., ::-1]).mean() < 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"jobtype": "write"}, "jobtype is write"),
        ({"wrap": [0, 1, 0]}, r"wrap is \[0, 1, 0\]"),
        ({"write_which": [1, 1]}, "write_which"),
    ],
)
def test_what_realign_cannot_do_is_refused(bold, tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        Realign(in_files=[str(bold)], **inputs).run()


def test_series_of_one_name_are_refused(bold, tmp_path):
    """Their outputs would have one name as well."""
    other = tmp_path / bold.name
    other.write_bytes(bold.read_bytes())
    with pytest.raises(ValueError, match=f"another series has the name {bold.name}"):
        Realign(in_files=[str(bold), str(other)]).run(cwd=tmp_path)


def test_estimate_writes_parameters_alone(bold, tmp_path):
    node = Node(Realign(in_files=[str(bold)], jobtype="estimate"), name="e", base_dir=tmp_path)
    outputs = node.run().outputs
    assert os.path.exists(outputs.realignment_parameters)
    assert not list(tmp_path.rglob("rbold*")) and not list(tmp_path.rglob("mean*"))
