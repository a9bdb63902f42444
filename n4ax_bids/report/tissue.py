"""The tissue method's own figure beside the histograms: its classes and a map of tissues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from n4ax_bids.report.colours import AFTER, BEFORE


def draw(axes: Any, options: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Draw the classes as densities, with the most probable tissues as a small picture.

    Parameters
    ----------
    axes : matplotlib axes
    options, details : of the tissue method, as in a sidecar
    """
    fell_back = bool(details["fell_back"])
    axes.set(title="Classes" + (", not used" if fell_back else ""), xlabel="ln of intensity")
    if fell_back:
        axes.title.set_color(BEFORE)
    classes = (details["class_means"], details["class_sds"], details["class_shares"])
    mean, sd, share = (np.array(each, float) for each in classes)
    if not len(mean):
        return
    x = np.linspace((mean - 3 * sd).min(), (mean + 3 * sd).max(), 300)
    each = share * np.exp(-(((x[:, None] - mean) / sd) ** 2) / 2) / sd / np.sqrt(2 * np.pi)
    axes.plot(x, each, color=AFTER, linewidth=0.6)
    axes.plot(x, each.sum(axis=1), color=AFTER)
    axes.set(yticks=[], ylim=(0, 1.8 * each.sum(axis=1).max()))
    section = np.array(details["tissue_section"], float)
    if section.size:
        inset = axes.inset_axes((0.02, 0.5, 0.34, 0.48))
        inset.imshow(section.T, origin="lower", vmin=0, vmax=3, cmap="gray")
        inset.set(xticks=[], yticks=[])
