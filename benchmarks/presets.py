"""How far short schedules stay from the field of many iterations, on real heads, and their time.

    python -m benchmarks.presets

The reference is ITK's method at full resolution with 50, 50, 30 and 20 iterations and no early
end: the preset `robust` without its threshold. Each schedule solves every head with Otsu's mask.
The difference is that of the two fields in the mask, after their median ratio is taken out. The
times are processor seconds; reference, schedule and `robust` take turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import nibabel as nb
import numpy as np

from benchmarks.images import DATA
from benchmarks.machine import ROOT, arguments, computing_on, head, publish, row
from n4ax_bids import N4Options, n4, otsu_mask, preset
from n4ax_bids.phantoms import phantom

PAGE = ROOT / "docs" / "validation"
REFERENCE = N4Options(shrink_factor=1, n_iterations=(50, 50, 30, 20))
FILES = (
    "head-philips3t_T1w.nii.gz",
    "bids-small/sub-ixi012/anat/sub-ixi012_T1w.nii",
    "head-niivue_T2w.nii.gz",
    "brain-niivue_FLAIR.nii.gz",
)
"""beside the labelled heads"""
NAMED = ("fast", "n4ax", "robust", "simpleitk")
OTHERS = (
    (1, (16, 20, 16, 12), 1.95),
    (1, (20, 22, 16, 12), 1.95),
    (1, (25, 25, 15, 10), 1.8),
    (1, (30, 25, 15, 10), 1.95),
    (2, (50, 50, 30, 20), 1.0),
    (2, (20, 20, 15, 10), 1.8),
    (3, (20, 20, 15, 10), 1.8),
    (4, (25, 25, 20, 15), 1.5),
)
"""shrink factor, iterations and over-relaxation of schedules that were not chosen"""


class Found(NamedTuple):
    """One schedule on one head."""

    mean: float
    """of the absolute difference of the fields, as a share"""
    p99: float
    """its 99th percentile"""
    faster: float
    """times as fast as the reference"""
    than_robust: float
    """times as fast as the preset `robust`"""


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("presets", __doc__, argv)
    given.out = given.out or (None if given.quick else PAGE)
    with computing_on(given.device, quick=given.quick):
        publish(given, "Short schedules compared with many iterations", lines(given.quick))


def lines(quick: bool) -> Iterator[str]:
    """Write the page."""
    found: dict[str, list[Found]] = {name: [] for name in schedules(quick)}
    names = []
    for name, image, zooms in heads(quick):
        names.append(f"{name} {'×'.join(map(str, image.shape))}")
        for schedule, each in measured(image, zooms, schedules(quick)):
            found[schedule].append(each)
        print(names[-1], file=sys.stderr, flush=True)
    yield (
        "Difference from ITK's method at full resolution with 50, 50, 30 and 20 iterations, no "
        "early end, Otsu's mask; the median ratio of the fields is taken out. Times as fast, in "
        "processor seconds of the whole call: median of the heads."
    )
    yield ""
    yield from head(
        "schedule",
        "largest mean difference",
        "mean of the heads",
        "largest 99th percentile",
        "times as fast as the reference",
        "times as fast as `robust`",
    )
    for schedule, each in found.items():
        yield row(
            schedule,
            f"{max(one.mean for one in each):.2%}",
            f"{np.mean([one.mean for one in each]):.2%}",
            f"{max(one.p99 for one in each):.2%}",
            f"{median(one.faster for one in each):.1f}",
            f"{median(one.than_robust for one in each):.1f}",
        )
    yield ""
    yield f"{len(names)} heads, mean difference of the presets on each:"
    yield ""
    yield from head("head", *(f"`{name}`" for name in NAMED))
    for i, name in enumerate(names):
        yield row(name, *(f"{found[f'`{each}`'][i].mean:.2%}" for each in NAMED))


def schedules(quick: bool) -> dict[str, N4Options]:
    """Return the presets and the schedules that are compared."""
    made = {f"`{name}`": preset(name) for name in NAMED}
    for shrink, counts, relaxed in OTHERS:
        made[f"shrink {shrink}, {' '.join(map(str, counts))}, × {relaxed}"] = N4Options(
            shrink_factor=shrink, n_iterations=counts, over_relaxation=relaxed
        )
    if quick:
        made = {
            name: replace(options, n_iterations=tuple(min(n, 2) for n in options.n_iterations))
            for name, options in made.items()
        }
    return made


def heads(quick: bool) -> Iterator[tuple[str, np.ndarray, tuple[float, ...]]]:
    """Read the real heads, name, image and mm; or make a phantom."""
    if quick:
        made = phantom((40, 36, 32), field="polynomial", amplitude=0.4)
        yield "phantom", made.image, (4.0,) * 3
        return
    labelled = sorted((DATA / "labelled").glob("*/image.nii.gz"))
    for path in (*(DATA / file for file in FILES), *labelled):
        read = nb.load(path)
        if len(read.shape) == 3:
            name = path.parent.name if path.name == "image.nii.gz" else Path(path.stem).stem
            zooms = tuple(map(float, read.header.get_zooms()))
            yield name, np.asarray(read.dataobj, np.float32), zooms


def measured(
    image: np.ndarray, zooms: tuple[float, ...], wanted: dict[str, N4Options]
) -> Iterator[tuple[str, Found]]:
    """Solve one head with every schedule, in turn with the reference and `robust`."""
    mask = np.asarray(otsu_mask(image)) != 0
    robust = wanted["`robust`"]

    def field(options: N4Options) -> tuple[np.ndarray, float]:
        began = time.process_time()
        _, log_bias = n4(image, mask, zooms=zooms, options=options, return_bias=True)
        there = np.asarray(log_bias)
        return there, time.process_time() - began

    reference = field(REFERENCE)[0]
    for options in (robust, *wanted.values()):
        field(options)  # compile
    for name, options in wanted.items():
        (log_bias, mine), (_, plain), (_, robusts) = map(field, (options, REFERENCE, robust))
        difference = (log_bias - reference)[mask]
        difference = np.abs(np.expm1(difference - np.median(difference)))
        yield (
            name,
            Found(
                float(difference.mean()),
                float(np.percentile(difference, 99)),
                plain / mine,
                robusts / mine,
            ),
        )


if __name__ == "__main__":
    main()
