"""The zero-shot method's own figure beside the histograms: its loss and its two maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from n4ax_bids.report.colours import AFTER, BEFORE


def draw(axes: Any, options: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Draw the loss at each step, with both maps as small pictures beside it.

    Parameters
    ----------
    axes : matplotlib axes
    options, details : of the zero-shot method, as in a sidecar
    """
    from matplotlib.ticker import LogLocator, NullLocator

    losses = np.array([np.nan if v is None else v for v in details["losses"]], float)
    saturated = bool(details["saturated"])
    axes.set(title="Loss" + (", saturated" if saturated else ""), xlabel="step")
    if saturated:
        axes.title.set_color(BEFORE)
    shown = np.isfinite(losses) & (losses > 0)
    if shown.any():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0.9 * losses[shown].min(), 1.1 * losses[shown].max())
    axes.plot(np.arange(len(losses)), losses, color=AFTER)
    for place, name, low, high in (
        (0.32, "alpha_section", -1.0, 1.0),
        (0.68, "bias_section", 0.0, 1.0),
    ):
        _picture(axes, place, details[name], name, low, high)


def _picture(axes: Any, place: float, values: Any, name: str, low: float, high: float) -> None:
    """Draw a map with its range below it."""
    values = np.asarray(values, float)
    inset = axes.inset_axes((place, 0.45, 0.32, 0.45))
    inset.imshow(values.T, origin="lower", vmin=low, vmax=high, cmap="RdBu_r")
    word = "tone" if name == "alpha_section" else "bias"
    label = f"{word} {values.min():.2f} to {values.max():.2f}"
    inset.set(xticks=[], yticks=[])
    inset.set_xlabel(label, fontsize=8)
