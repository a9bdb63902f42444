"""Runs that make reports."""

from __future__ import annotations

import pytest

from n4ax_bids.app import cli
from tests.app.reports.pages import NAMES


@pytest.fixture
def run(make_dataset, tmp_path):
    """Make a dataset on the first call and run on it: (*flags, level=, names=, json_files=)."""

    def run(*flags, level="participant", names=NAMES, json_files=None, out="out"):
        root = tmp_path / "raw"
        if not root.exists():
            make_dataset(*names, json_files=json_files)
        return cli.main([str(root), str(tmp_path / out), level, *flags])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
