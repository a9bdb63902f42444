"""Derivative datasets of other pipelines; a run over one image."""

from __future__ import annotations

from pathlib import Path

import pytest

from n4ax_bids.app import cli
from tests.app.select.odd_texts import T1W


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


@pytest.fixture
def run(make_dataset, tmp_path, fake_node, capsys):
    """Run over one image; return the status and what was logged."""
    make_dataset(T1W)

    def once(*flags, level="participant"):
        try:
            words = [str(tmp_path / "raw"), str(tmp_path / "out"), level, *flags]
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return status, text

    return once
