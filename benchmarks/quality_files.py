"""The table and the picture beside the page of `benchmarks.quality`, made from its rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from benchmarks.quality_page import DIFFERENCE, MEASURES, Kept, everywhere, known

PICTURED = (
    "none",
    "n4 ants",
    "n4 fmriprep",
    "n4 adaptive",
    "tissue",
    "zero-shot",
    "n4 fast",
    "dipy B-splines",
)


def write_csv(kept: Kept, path: Path) -> None:
    """Write every figure."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        measures = (*MEASURES, DIFFERENCE)
        writer.writerow(["case", "method", "mask", *measures])
        for case, each in kept.items():
            for name, one in each.items():
                method, _, mask = name.rpartition(", ")
                writer.writerow([case, method, mask, *(one.get(m, "") for m in measures)])


def draw(kept: Kept, path: Path) -> None:
    """Draw RMSE over the amplitude of the field, for each mask and what has run on every case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    titles = {"label": "brain, own mask", "auto": "head, automatic mask", "otsu": "head, Otsu"}
    for panel, (mask, title) in zip(axes, titles.items(), strict=True):
        for name in everywhere(kept, mask, PICTURED):
            by_amplitude: dict[float, list[float]] = {}
            for case, each in known(kept).items():
                number = re.search(r" ([\d.]+), noise", case)
                if number and f"{name}, {mask}" in each:
                    one = each[f"{name}, {mask}"]["rmse"]
                    by_amplitude.setdefault(float(number[1]), []).append(one)
            at = sorted(by_amplitude)
            colour = f"C{PICTURED.index(name)}"  # the same in all panels
            means = [np.mean(by_amplitude[a]) for a in at]
            panel.plot(at, means, "o-", color=colour, label=name)
        panel.set_title(title)
        panel.set_xlabel("amplitude of ln b")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("RMSE of ln b")
    axes[0].set_ylim(0, 0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
