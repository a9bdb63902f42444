"""The App searches for garbage again before it works; see tests/runtime/test_startup.py."""

from __future__ import annotations

import gc

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.status import Status
from n4ax_bids.runtime import startup


def test_the_app_searches_again_before_its_first_image(
    fake_node, make_dataset, tmp_path, monkeypatch
):
    from n4ax_bids.app.images import attempt

    seen, correct = [], attempt.correct

    def watched(*arguments, **more):
        seen.append(gc.isenabled())
        return correct(*arguments, **more)

    monkeypatch.setattr(attempt, "correct", watched)
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
    startup.begin()
    try:
        status = cli.main([str(root), str(tmp_path / "out"), "participant", "--no-reports"])
    finally:
        startup.end()
        gc.unfreeze()
    assert status == Status.OK and seen == [True]


@pytest.mark.parametrize("words", [["group"], ["participant", "--reports-only"]])
def test_the_app_searches_again_for_its_pages(
    fake_node, make_dataset, tmp_path, monkeypatch, words
):
    root, out = make_dataset("sub-01/anat/sub-01_T1w.nii.gz"), tmp_path / "out"
    assert cli.main([str(root), str(out), "participant", "--no-reports"]) == Status.OK
    ended = []
    monkeypatch.setattr(startup, "end", lambda: ended.append(True))
    cli.main([str(root), str(out), *words])
    assert ended
