"""The tables and the picture of `benchmarks.quality`, made from its rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import head, row

Kept = dict[str, dict[str, Any]]
MEASURES = ("r", "rmse", "cv of the ratio", "cv white", "cv grey", "cjv", "contrast")
PEERS = ("SimpleITK", "ANTs", "dipy B-splines", "nitrix")
COMPARED = ("n4 ants", "n4 fmriprep", "n4 fast", "n4 adaptive", "tissue", "zero-shot")
DIGITS = 1e-3
"""relative difference up to which two figures are the same to three digits"""


def lines(kept: Kept) -> Iterator[str]:
    """Yield the page."""
    yield (
        "*r*, *RMSE* and *CV*: correlation of ln of the field with the true one in the brain, "
        "standard deviation of their difference, and coefficient of variation of estimated / true "
        "field. *CV white*, *CV grey* and *CJV*: of the corrected image; a lower one is better "
        "only if the contrast, grey / white, stays the true one. *Contrast*: by how much grey / "
        "white divided by the true one is off 1, in either direction. Every estimate has the mask "
        "of its table; all figures are means over cases. The rows are those of `make quality` and "
        "of as much of `make quality-full` as has been run."
    )
    for mask, about in (
        ("label", "The brain alone, with its own mask"),
        ("auto", "The brain in a head, with the automatic mask"),
        ("otsu", "The brain in a head, with Otsu's mask"),
    ):
        yield from _table(kept, mask, about)
    yield from _named(kept)
    yield from _same(kept)
    yield from _losses(kept)
    yield from _on_average(kept)
    yield from _heads(kept)


def known(kept: Kept) -> Kept:
    return {case: found for case, found in kept.items() if not case.startswith("head: ")}


def _table(kept: Kept, mask: str, about: str) -> Iterator[str]:
    found = {case: each for case, each in known(kept).items() if f"none, {mask}" in each}
    if not found:
        return
    yield from ("", f"## {about}", "", f"{len(found)} cases.", "")
    yield from head("method", *MEASURES)
    names = dict.fromkeys(
        name.removesuffix(f", {mask}")
        for each in found.values()
        for name in each
        if name.endswith(f", {mask}")
    )
    for name in names:
        each = [case[f"{name}, {mask}"] for case in found.values() if f"{name}, {mask}" in case]
        if len(each) == len(found):
            yield row(name, *(_mean(each, measure) for measure in MEASURES))


def _value(one: dict[str, float], measure: str) -> float:
    """Return a measure of one case; of the contrast, how far it is from the true one."""
    return abs(one[measure] - 1) if measure == "contrast" else one[measure]


def _mean(each: list[dict[str, float]], measure: str) -> str:
    values = [_value(one, measure) for one in each if measure in one]
    return f"{np.mean(values):.3f}" if values else ""


def _with_peers(kept: Kept) -> Kept:
    return {
        case: each
        for case, each in known(kept).items()
        if any(name.startswith("SimpleITK") for name in each)
    }


def _named(kept: Kept) -> Iterator[str]:
    """Every method on the cases that the peers have run on."""
    found = _with_peers(kept)
    if not found:
        return
    yield from ("", "## Beside the peers", "")
    yield (
        f"{len(found)} cases, with the brain's own mask or the automatic one; means over the "
        "cases that a method was run on. "
        "*Seconds*: of processor time, compilation included."
    )
    yield ""
    yield from head("method", "cases", *MEASURES, "seconds")
    names = dict.fromkeys(
        name.rpartition(", ")[0]
        for each in found.values()
        for name in each
        if not name.endswith(", otsu")
    )
    for name in names:
        each = [
            one
            for case in found.values()
            for key, one in case.items()
            if key in (f"{name}, label", f"{name}, auto")
        ]
        seconds = float(np.median([one["seconds"] for one in each]))
        shown = (_mean(each, measure) for measure in MEASURES)
        yield row(name, len(each), *shown, f"{seconds:.2g}")


def _same(kept: Kept) -> Iterator[str]:
    """Whether our figures at SimpleITK's settings are those of SimpleITK."""
    pairs = [
        (case, measure, each[f"n4 as SimpleITK, {mask}"][measure], one[measure])
        for case, each in known(kept).items()
        for key, one in each.items()
        if key.startswith("SimpleITK, ")
        for mask in [key.rpartition(", ")[2]]
        for measure in MEASURES
        if measure in one
    ]
    if not pairs:
        return
    off = [abs(a - b) / max(abs(b), DIGITS) for _, _, a, b in pairs]
    worst = pairs[int(np.argmax(off))]
    far = sum(each > DIGITS for each in off)
    yield from ("", "## The same quality as SimpleITK?", "")
    yield (
        f"Of {len(pairs)} figures of this package with SimpleITK's settings, {len(pairs) - far} "
        f"are SimpleITK's to three digits. The largest relative difference is {max(off):.1e} "
        f"({worst[1]} of “{worst[0]}”: {worst[2]:g} and {worst[3]:g})."
    )


def _losses(kept: Kept) -> Iterator[str]:
    """Where each of our methods is worse than ANTs' defaults."""
    found = known(kept)
    yield from ("", "## Where it wins and loses", "")
    yield (
        "Cases of all in which a method is better than N4 with ANTs' defaults (*n4 ants*), by "
        "RMSE and by CJV, and the mean ratio of its RMSE to that of N4; with each mask."
    )
    yield ""
    yield from head("method", "mask", "better by RMSE", "better by CJV", "mean ratio of RMSE")
    for name in COMPARED[1:]:
        for mask in ("label", "auto", "otsu"):
            pairs = [
                (each[f"{name}, {mask}"], each[f"n4 ants, {mask}"])
                for each in found.values()
                if f"{name}, {mask}" in each and f"n4 ants, {mask}" in each
            ]
            if not pairs:
                continue
            better = (
                sum(a[measure] < b[measure] for a, b in pairs) / len(pairs)
                for measure in ("rmse", "cjv")
            )
            ratio = np.mean([a["rmse"] / b["rmse"] for a, b in pairs])
            shown = (f"{share:.0%} of {len(pairs)}" for share in better)
            yield row(name, mask, *shown, f"{ratio:.2f}")


def _on_average(kept: Kept) -> Iterator[str]:
    """By which measures each of our methods is worse than ANTs' defaults, averaged over cases."""
    yield ""
    yield (
        "Measures by which a method is worse than ANTs' defaults, averaged over the cases that "
        "both were run on (*r*: lower, all others: higher):"
    )
    yield ""
    yield from head("method", "own mask", "automatic mask", "Otsu's mask")
    for name in COMPARED[1:]:
        cells = []
        for mask in ("label", "auto", "otsu"):
            both = [
                (each[f"{name}, {mask}"], each[f"n4 ants, {mask}"])
                for each in known(kept).values()
                if f"{name}, {mask}" in each and f"n4 ants, {mask}" in each
            ]
            worse = [measure for measure in MEASURES if _is_worse(both, measure)]
            cells.append(", ".join(worse) or "none" if both else "")
        yield row(name, *cells)


def _is_worse(pairs: list[tuple[dict[str, float], dict[str, float]]], measure: str) -> bool:
    """Return whether the first of each pair is worse in the mean."""
    values = [
        (_value(one, measure), _value(other, measure))
        for one, other in pairs
        if measure in one and measure in other
    ]
    if not values:
        return False
    ours, theirs = np.mean(values, axis=0)
    return bool(ours < theirs if measure == "r" else ours > theirs)


def _heads(kept: Kept) -> Iterator[str]:
    found = {case: each for case, each in kept.items() if case.startswith("head: ")}
    if not found:
        return
    yield from ("", "## Labelled heads", "")
    yield "CJV in the brain's mask: lower is better. There is no true field."
    yield ""
    names = [name.removesuffix(", label") for name in next(iter(found.values()))]
    yield from head("head", *names)
    for case, each in found.items():
        values = (each.get(f"{name}, label") for name in names)
        shown = (f"{one['cjv']:.3f}" if one else "" for one in values)
        yield row(case.removeprefix("head: "), *shown)


def write_csv(kept: Kept, path: Path) -> None:
    """Write every figure."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "method", "mask", *MEASURES])
        for case, each in kept.items():
            for name, one in each.items():
                method, _, mask = name.rpartition(", ")
                writer.writerow([case, method, mask, *(one.get(m, "") for m in MEASURES)])


def draw(kept: Kept, path: Path) -> None:
    """Draw RMSE over the amplitude of the field, for each mask."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    names = ("none", "n4 ants", "n4 fmriprep", "n4 adaptive", "tissue")
    titles = {"label": "brain, own mask", "auto": "head, automatic mask", "otsu": "head, Otsu"}
    for panel, (mask, title) in zip(axes, titles.items(), strict=True):
        for name in names:
            by_amplitude: dict[float, list[float]] = {}
            for case, each in known(kept).items():
                number = re.search(r" ([\d.]+), noise", case)
                if number and f"{name}, {mask}" in each:
                    one = each[f"{name}, {mask}"]["rmse"]
                    by_amplitude.setdefault(float(number[1]), []).append(one)
            at = sorted(by_amplitude)
            panel.plot(at, [np.mean(by_amplitude[a]) for a in at], "o-", label=name)
        panel.set_title(title)
        panel.set_xlabel("amplitude of ln b")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("RMSE of ln b")
    axes[0].set_ylim(0, 0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
