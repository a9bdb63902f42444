"""A dataset whose images are corrected."""

from __future__ import annotations

import pytest

from tests.app.outputs.two_images import NAME, OTHER, main


@pytest.fixture
def done(make_dataset, tmp_path):
    """A dataset of two images, corrected."""
    root = make_dataset(NAME, OTHER, json_files={"T1w.json": {"MagneticFieldStrength": 3}})
    assert main(root, tmp_path / "out") == 0
    return root, tmp_path / "out"
