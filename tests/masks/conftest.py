"""A PATH for stand-ins of brain programs, and an image for them."""

from __future__ import annotations

import pytest

from n4ax_bids.io import volume
from tests.masks.stand_ins import made


@pytest.fixture
def bin(tmp_path, monkeypatch):
    """A folder that is all of PATH, and no FreeSurfer."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def image(tmp_path):
    return volume.load(made(tmp_path / "T1w.nii.gz"))
