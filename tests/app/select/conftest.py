"""Derivative datasets of other pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def derived(tmp_path):
    """Make a derivative dataset of empty files: (*names, folder) → its root."""

    def make(*names: str, folder: str = "fmriprep") -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / folder

    return make
