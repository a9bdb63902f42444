"""The page of `benchmarks.quality`, made from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.machine import head, row

Kept = dict[str, dict[str, Any]]
Pairs = list[tuple[dict[str, float], dict[str, float]]]
MEASURES = ("r", "rmse", "cv of the ratio", "cv white", "cv grey", "cjv", "contrast")
DIFFERENCE = "rmse of the difference"
MASKS = ("label", "auto", "otsu")
PRESETS = ("ants", "standard", "fmriprep", "fast", "adaptive")
COMPARED = (*(f"n4 {name}" for name in PRESETS), "tissue", "zero-shot")
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
        "of its table; all figures are means over cases. The zero-shot method and the "
        f"peers have run on {len(_with_all(kept))} of {len(known(kept))} cases with known fields "
        "(`make quality-full`)."
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
    for name in everywhere(kept, mask, names):
        each = [case[f"{name}, {mask}"] for case in found.values()]
        yield row(name, *(_mean(each, measure) for measure in MEASURES))


def everywhere(kept: Kept, mask: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the methods that have run on every case of a mask."""
    cases = [each for each in known(kept).values() if f"none, {mask}" in each]
    for name in names:
        if cases and all(f"{name}, {mask}" in each for each in cases):
            yield name


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


def _with_all(kept: Kept) -> Kept:
    """Return the cases that everything slow has run on."""
    slow = ("zero-shot, ", "SimpleITK, ", "ANTs, ", "dipy B-splines, ")
    return {
        case: each
        for case, each in known(kept).items()
        if all(any(name.startswith(start) for name in each) for start in slow)
    }


def _named(kept: Kept) -> Iterator[str]:
    """Every method on the cases that the peers have run on."""
    found = _with_peers(kept)
    if not found:
        return
    yield from ("", "## Beside the peers", "")
    yield (
        f"{len(found)} cases, with the brain's own mask or the automatic one; means over those "
        "that a method was run on. *Seconds*: median processor time, compilation included."
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
    yield from ("", "## Where it wins and loses", "")
    yield (
        "Share of the cases in which a method is better than N4 with ANTs' defaults (*n4 ants*), "
        "by RMSE and by CJV, and the mean ratio of its RMSE to that of N4; with each mask."
    )
    yield ""
    yield from head("method", "mask", "better by RMSE", "better by CJV", "mean ratio of RMSE")
    for name in COMPARED[1:]:
        for mask in MASKS:
            pairs = _beside_ants(kept, name, mask)
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
    yield from (
        "",
        "Measures by which a method is worse than ANTs' defaults, averaged over the cases that "
        "both were run on (*r*: lower, all others: higher):",
        "",
    )
    yield from head("method", "own mask", "automatic mask", "Otsu's mask")
    for name in COMPARED[1:]:
        cells = []
        for mask in MASKS:
            both = _beside_ants(kept, name, mask)
            worse = [measure for measure in MEASURES if _is_worse(both, measure)]
            cells.append(", ".join(worse) or "none" if both else "")
        if any(cells):
            yield row(name, *cells)


def _beside_ants(kept: Kept, name: str, mask: str) -> Pairs:
    """Return the figures of a method and those of ANTs' defaults, for each known field."""
    return [
        (each[f"{name}, {mask}"], each[f"n4 ants, {mask}"])
        for each in known(kept).values()
        if f"{name}, {mask}" in each and f"n4 ants, {mask}" in each
    ]


def _is_worse(pairs: Pairs, measure: str) -> bool:
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
    """Heads whose field is known by other means than N4, and heads with labels."""
    found = {
        case.removeprefix("head: "): each
        for case, each in kept.items()
        if case.startswith("head: ")
    }
    for title, measure, about in (
        (
            "Heads with a known field",
            "rmse",
            "RMSE of ln b in the brain, by mask. The field of *xa30-norm-pair* is the ratio of "
            "one acquisition without and with the scanner's normalisation. The other heads are "
            "simulated on BrainWeb's anatomy, two with a simulated field and "
            "*sim-pd-prisma64ch-pn3* with that measured field. *n4 standard* is the App's default "
            "preset: on the templates above, in voxels of 1 mm, it is *n4 ants*. *Own*: the "
            "mask of the labels, for *xa30-norm-pair* a rough one of the brain. *none* is the "
            "variation of the field itself.",
        ),
        (
            "The difference of a pair",
            DIFFERENCE,
            "RMSE of the difference of two estimates, of the head and of the same head without "
            "that field, each with the mask made of it: what a method takes for a field in both "
            "is not counted.",
        ),
        (
            "Labelled heads",
            "cjv",
            "CJV of grey and white matter after correction, by mask: lower is better. Most have "
            "no true field, and a field that removes contrast can lower the CJV.",
        ),
    ):
        yield from _heads_by(found, measure, title, about)


def _heads_by(found: Kept, measure: str, title: str, about: str) -> Iterator[str]:
    measured = {
        (head_name, mask): {
            name.rpartition(", ")[0]: one[measure]
            for name, one in each.items()
            if name.endswith(f", {mask}") and measure in one
        }
        for head_name, each in found.items()
        for mask in MASKS
    }
    measured = {place: values for place, values in measured.items() if values}
    if not measured:
        return
    names = dict.fromkeys(name for values in measured.values() for name in values)
    yield from ("", f"## {title}", "", about, "")
    yield from head("head", "mask", *names)
    for (head_name, mask), values in measured.items():
        shown = (f"{values[name]:.3f}" if name in values else "" for name in names)
        yield row(head_name, "own" if mask == "label" else mask, *shown)
    worse = []
    for mask in MASKS:
        of_mask = [values for (_, other), values in measured.items() if other == mask]
        if len(of_mask) < 2:
            continue
        means = {
            name: float(np.mean([values[name] for values in of_mask]))
            for name in names
            if all(name in values for values in of_mask)
        }
        shown = (f"{means[name]:.3f}" if name in means else "" for name in names)
        yield row("*mean*", "own" if mask == "label" else mask, *shown)
        losers = [n for n in COMPARED if means.get(n, 0) > means.get("n4 ants", np.inf)]
        worse.append(f"{', '.join(losers) or 'none'} ({'own' if mask == 'label' else mask})")
    if worse:
        yield ""
        about = "Of our methods, these are worse than ANTs' defaults in the mean of the heads"
        yield f"{about}: {'; '.join(worse)}."
