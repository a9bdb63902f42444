"""Images that are selected from a dataset, by their paths in it."""

from __future__ import annotations

from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset


def select(root, tmp_path, **wanted):
    return dataset.select(Request(root, tmp_path / "out", **wanted))


def names(selection):
    return [job.relative for job in selection.jobs]
