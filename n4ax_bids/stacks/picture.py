"""A picture of a corrected stack: input, mask, field and result in two planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.core.stack.correction import StackCorrection, correct_planes, enlarged
from n4ax_bids.io.atomic import replacing
from n4ax_bids.stacks.files import opened

MOST = 600
"""rows or columns that are drawn"""


def draw(path: str | Path, given: Any, made: Any, done: StackCorrection) -> None:
    """Draw the middle plane and a cut along Z, each as input, mask, field and result.

    Parameters
    ----------
    path : final name, .png
    given, made : the stack before and after, paths or arrays
    done : StackCorrection
    """
    from matplotlib.figure import Figure

    cuts = [_plane(given, made, done), _along_z(given, made, done)]
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, 4)
    for row, (name, before, mask, field, after) in zip(axes, cuts, strict=True):
        tops = [float(np.percentile(each, 99.5)) or 1.0 for each in (before, after)]
        reach = max(1.01, float(np.percentile(np.abs(np.log(field)), 99)) + 1)
        limits = {"vmin": 1 / reach, "vmax": reach, "cmap": "RdBu_r"}
        for axis, title, values, how in (
            (row[0], "input", before, {"vmin": 0, "vmax": tops[0], "cmap": "gray"}),
            (row[1], "mask", mask, {"vmin": 0, "vmax": 1, "cmap": "gray"}),
            (row[2], "field", field, limits),
            (row[3], "result", after, {"vmin": 0, "vmax": tops[1], "cmap": "gray"}),
        ):
            shown = axis.imshow(values, aspect="auto", **how)
            axis.set_title(f"{title}, {name}", fontsize=9)
            axis.set_axis_off()
            if title == "field":
                figure.colorbar(shown, ax=axis)
    with replacing(path) as part:
        figure.savefig(part, dpi=110, metadata={"Software": None})


def _plane(given: Any, made: Any, done: StackCorrection) -> tuple[Any, ...]:
    k = done.shape[0] // 2
    with opened(given, made) as sources:
        before, after = (each.read(k, k + 1)[0] for each in sources)
    mask = enlarged(done.thin_mask[k : k + 1], done.shape, done.how)[0]
    field = correct_planes(before[None], done, k).bias[0]
    step = max(1, max(before.shape) // MOST)
    parts = (each[::step, ::step] for each in (before, mask, field, after))
    return (f"plane {k}", *parts)


def _along_z(given: Any, made: Any, done: StackCorrection) -> tuple[Any, ...]:
    """Read one row of at most `MOST` planes."""
    row = done.shape[1] // 2
    found: list[list[np.ndarray]] = [[], [], [], []]
    with opened(given, made) as sources:
        for k in range(0, done.shape[0], max(1, done.shape[0] // MOST)):
            before, after = (each.read(k, k + 1)[:, row : row + 1] for each in sources)
            mask = enlarged(done.thin_mask[k : k + 1], done.shape, done.how)[:, row]
            part = ((row, row + 1), (0, done.shape[2]))
            field = correct_planes(before, done, k, part=part).bias
            for kept, each in zip(found, (before, mask, field, after), strict=True):
                kept.append(each.reshape(-1))
    return (f"row {row}, planes downwards", *map(np.stack, found))
