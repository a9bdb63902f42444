"""Small images for n4ax-n4 and for the ANTs program, and the name that n4ax-n4 is called by."""

from __future__ import annotations

import sys

import nibabel as nb
import numpy as np
import pytest

SHAPE = (22, 20, 18)
OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.5, 1.7, 2]), [31.0, -44.0, 12.5]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in 3D and 2D, a mask of labels and fractions, a weight with zeros."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(20101109)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = sum(x**2 for x in axes) < 0.9
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], SHAPE), 20.0)
    tissue *= np.exp(0.4 * axes[0] - 0.3 * axes[1]) * (1 + 0.03 * rng.standard_normal(SHAPE))
    mask = inside.astype(np.float32)
    mask[:7] *= 2
    mask[7:9] *= 0.5
    weight = np.maximum(rng.uniform(-0.2, 1, SHAPE), 0) * inside
    whole = {"image": tissue.astype(np.int16), "mask": mask, "weight": weight.astype(np.float32)}
    for name, data in whole.items():
        save(data, OBLIQUE, folder / f"{name}.nii.gz")
        save(data[..., 9], np.diag([1.5, 1.7, 1, 1]), folder / f"{name}2.nii.gz")
    save(whole["image"][..., 9:10], OBLIQUE, folder / "slice.nii.gz")
    (folder / "mask(1).nii.gz").symlink_to(folder / "mask.nii.gz")
    return folder


def save(data, affine, path):
    image = nb.Nifti1Image(data, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    image.to_filename(path)


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def called_n4ax_n4(monkeypatch):
    """The process was started as the command, whose name stands before each error."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/n4ax-n4"])
