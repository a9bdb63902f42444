"""The rows of `benchmarks.tissue`, kept in a file, and the page that is made of them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.machine import figure, head, row

KINDS = ("head", "misfit", "other", "joint", "known", "lesion", "time")
"""kinds of rows"""
REPEATS = 5
"""calls of which the time is the median"""


class Rows:
    """What was measured, kept in a file."""

    def __init__(self, path: Any) -> None:
        self._path = path
        self.kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, kind: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure unless that is done."""
        key = f"{kind}: {name}"
        if key in self.kept:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.kept[key] = measure()
        self._path.write_text(json.dumps(self.kept, indent=1) + "\n")
        print(key, json.dumps(self.kept[key]), file=sys.stderr, flush=True)

    def kind(self, kind: str) -> dict[str, Any]:
        """Return the rows of a kind by their names."""
        return {k.partition(": ")[2]: v for k, v in self.kept.items() if k.startswith(f"{kind}: ")}


def lines(rows: Rows) -> Iterator[str]:
    """Yield the page."""
    yield (
        "The tissue method beside this package's N4 with the presets *ants* and *fmriprep*, each "
        "with the same mask. RMSE is the standard deviation of ln of the field minus that of the "
        "true one in the brain. CJV is the coefficient of joint variation of grey and white "
        "matter: lower is better. What a table lacks was not measured with this version."
    )
    for kind, part in (
        ("head", _heads),
        ("head", _truths),
        ("other", _other),
        ("joint", _joint),
        ("known", _known),
    ):
        found = rows.kind(kind)
        yield from part(found) if found else ()
    if rows.kind("lesion") or rows.kind("time"):
        yield from _others(rows)
    lacking = [
        kind for kind in ("head", "joint", "known", "lesion", "time") if not rows.kind(kind)
    ]
    if lacking:
        yield from ("", f"Not measured with this version: {', '.join(lacking)}.")


def _heads(found: dict[str, Any]) -> Iterator[str]:
    """Yield the heads with labels, and the error of an added field."""
    yield from ("", "## Heads with labels, and a field added to each", "")
    yield (
        "The last two columns: a known field is multiplied on the image, and the estimate must "
        "change by just that field. This rewards an estimate that repeats its faults."
    )
    yield ""
    yield from head(
        "head", "mask", "CJV before", "N4", "tissue", "ratio", "added, RMSE: N4", "tissue"
    )
    ratios: dict[str, list[float]] = {}
    for name, masks in found.items():
        for mask in dict.fromkeys(key.split()[0] for key in masks):
            ours, theirs = masks[f"{mask} tissue"], masks[f"{mask} ants"]
            cells = ["–"] * 4
            if "cjv" in ours:
                ratio = ours["cjv"] / theirs["cjv"]
                ratios.setdefault(mask, []).append(ratio)
                numbers = (ours["cjv before"], theirs["cjv"], ours["cjv"], ratio)
                cells = [f"{value:.3f}" for value in numbers]
            errors = [
                f"{each['added']:.3f}" if "added" in each else "–" for each in (theirs, ours)
            ]
            yield row(name, mask, *cells, *errors)
    yield ""
    for mask, values in ratios.items():
        yield (
            f"- mask {mask}: mean ratio {np.mean(values):.3f}, largest {max(values):.3f}, "
            f"{len(values)} heads"
        )


def _truths(found: dict[str, Any]) -> Iterator[str]:
    """Yield the heads with a measured or simulated field."""
    yield from ("", "## Heads with a measured or simulated field", "")
    yield from head("head", "mask", "alone: N4", "tissue", "difference: N4", "tissue")
    for name, masks in found.items():
        for mask in dict.fromkeys(key.split()[0] for key in masks):
            ours, theirs = masks[f"{mask} tissue"], masks[f"{mask} ants"]
            if "difference" in ours:
                numbers = [each[k] for k in ("alone", "difference") for each in (theirs, ours)]
                yield row(name, mask, *(f"{value:.3f}" for value in numbers))


def _other(found: dict[str, Any]) -> Iterator[str]:
    """Yield images that are no whole brains."""
    yield from ("", "## Slabs, slices, and what is no brain", "")
    yield (
        "A field of about ±0.4 is multiplied on the image, and the estimate must change by just "
        "that field; RMSE in Otsu's mask, beside N4 with the preset *standard*."
    )
    yield ""
    yield from head("image", "misfit", "RMSE: N4", "tissue")
    for name, each in found.items():
        misfit = "–" if each["misfit"] is None else f"{each['misfit']:.3f}"
        misfit += " (coarse N4)" if each["fell back"] else ""
        yield row(name, misfit, f"{each['standard']:.3f}", f"{each['tissue']:.3f}")


def _joint(found: dict[str, Any]) -> Iterator[str]:
    """Yield what T1w and T2w of one field give together."""
    yield from ("", "## T1w and T2w that share a field", "")
    yield (
        "RMSE on the template with 5 % noise, from each image alone and from both by "
        "`tissue_joint`."
    )
    yield ""
    yield from head("field", "T1w alone", "T2w alone", "both")
    for name, each in found.items():
        yield row(name, *(f"{each[key]:.3f}" for key in ("T1w", "T2w", "both")))


def _known(found: dict[str, Any]) -> Iterator[str]:
    """Yield the suite of known fields."""
    yield from ("", "## Known fields on the template", "")
    yield from head(
        "case", "RMSE: ants", "fmriprep", "tissue", "ratio", "CJV: better N4", "tissue", "contrast"
    )
    ratios, lower = [], []
    for name, each in found.items():
        n4s = [each["ants"], each["fmriprep"]]
        best, least = (min(n[k] for n in n4s) for k in ("rmse", "cjv"))
        ours = each["tissue"]
        ratios.append(ours["rmse"] / best)
        lower.append(ours["cjv"] < least)
        numbers = (*(n["rmse"] for n in n4s), ours["rmse"], ratios[-1], least, ours["cjv"])
        yield row(name, *(f"{value:.3f}" for value in numbers), f"{ours['contrast']:+.1%}")
    if ratios:
        yield ""
        yield (
            f"{len(ratios)} cases: mean ratio to the better N4 {np.mean(ratios):.3f}, largest "
            f"{max(ratios):.3f}; CJV below both in {np.mean(lower):.0%}."
        )


def _others(rows: Rows) -> Iterator[str]:
    """Yield lesions and times."""
    yield from ("", "## Lesions, and time", "")
    for name, each in rows.kind("lesion").items():
        for kind, change in each.items():
            yield (
                f"- A {kind} lesion of {name} changes ln of the field more than 20 mm away by "
                f"{change['sd']:.4f} (sd), at most {change['largest']:.4f}."
            )
    for name, each in rows.kind("time").items():
        yield (
            f"- {name}, from array to array after a first call: {figure(each['tissue'])} s of "
            f"processor time, N4 (*fmriprep*) {figure(each['fmriprep'])} s (median of {REPEATS} "
            "calls in turn)."
        )


def _misfits(found: dict[str, Any]) -> Iterator[str]:
    """Yield the misfit of groups of images."""
    yield from ("", "## Misfit", "")
    yield from head("images", "lowest", "highest")
    for name, ends in found["groups"].items():
        yield row(name, *(f"{end:.3f}" for end in ends))


PARTS = (
    ("head", _heads),
    ("head", _truths),
    ("misfit", _misfits),
    ("other", _other),
    ("joint", _joint),
    ("known", _known),
)
"""parts of the page, with the kinds of rows that they show"""
