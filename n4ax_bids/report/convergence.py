"""N4's own figure beside the histograms: the convergence of its fitting levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from n4ax_bids.report.colours import AFTER


class Level(NamedTuple):
    """The outcome of one fitting level."""

    n_iterations: int
    most: int
    """iterations allowed"""
    convergence: float
    """last value of the stopping statistic; NaN if it is not known"""
    converged: bool


def draw(axes: Any, options: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Draw the stopping statistic of each fitting level on matplotlib axes.

    Parameters
    ----------
    axes : matplotlib axes
    options, details : N4's, as in a sidecar
    """
    from matplotlib.ticker import LogLocator, NullLocator

    levels, threshold = _levels(options, details), options["convergence_threshold"]
    numbers = np.arange(1, len(levels) + 1)
    values = np.array([level.convergence for level in levels], float)
    shown = np.isfinite(values) & (values > 0)
    axes.set(title="Convergence", xlabel="fitting level", xticks=numbers)
    axes.set_xlim(0.5, len(levels) + 0.5)
    axes.set_ylabel("last change of the field (CV)")
    if not shown.any():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no value recorded", ha="center", transform=axes.transAxes)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")  # matplotlib's own powers take 0.2 s
    axes.yaxis.set_minor_locator(NullLocator())
    axes.plot(numbers[shown], values[shown], "o-", color=AFTER, clip_on=False)
    for number, level, value in zip(numbers, levels, values, strict=True):
        if not (math.isfinite(value) and value > 0):
            continue
        words = f"{level.n_iterations} of {level.most}" + (", met" if level.converged else "")
        axes.annotate(words, (number, value), (0, 9), textcoords="offset points", ha="center")
    lowest, highest = values[shown].min(), values[shown].max()
    if threshold > 0:
        axes.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
        label = f"threshold {threshold:g}"
        axes.annotate(label, (0.55, threshold), (0, 3), textcoords="offset points", color="0.3")
        lowest, highest = min(lowest, threshold), max(highest, threshold)
    axes.set_ylim(lowest / 2, highest * 3)


def in_words(options: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Say in a sentence or two how far the iterations got.

    Parameters
    ----------
    options, details : N4's, as in a sidecar
    """
    levels, threshold = _levels(options, details), options["convergence_threshold"]
    if not levels or not math.isfinite(levels[-1].convergence):
        return ""
    last = levels[-1]
    change = f"{100 * last.convergence:.2g} %"
    if threshold > 0 and all(level.converged for level in levels):
        return (
            f"Every level ended because the field changed by less than the threshold; the last "
            f"iteration changed it by {change}."
        )
    if threshold > 0:
        ended = sum(level.converged for level in levels)
        return (
            f"{ended} of {len(levels)} levels ended because the field changed by less than the "
            f"threshold, the others after all their iterations; the last iteration changed the "
            f"field by {change}."
        )
    return (
        f"No threshold was set, so every level used all its iterations; the last one changed the "
        f"field by {change}. A change far below the field's own variation means that more "
        "iterations would make little difference."
    )


def _levels(options: Mapping[str, Any], details: Mapping[str, Any]) -> list[Level]:
    rows = zip(
        details["n_iterations"],
        options["n_iterations"],
        details["convergence"],
        details["converged"],
        strict=False,
    )
    return [
        Level(done, most, float("nan") if last is None else last, bool(met))
        for done, most, last, met in rows
    ]
