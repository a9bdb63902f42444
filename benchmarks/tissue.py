"""The tissue method beside N4: known fields, labelled heads, a measured field, lesions, time.

The page is docs/validation/tissue.md. Rows are kept in tissue-rows.json beside it as they are
made, so that a run can be ended and continued; `--rows` only writes the page from the rows that
are there, and `--known` measures the known fields alone. Whoever changes the method deletes that
file. `--picture FILE.webp` draws what N4 and the method leave of a brain without a field.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from benchmarks.machine import ROOT, arguments, computing_on, figure, head, publish, row
from benchmarks.masks import Case, cases
from benchmarks.pictures import draw
from n4ax_bids import auto_mask, n4, otsu_mask, preset, tissue, tissue_joint
from n4ax_bids.core.metrics import joint_variation
from n4ax_bids.phantoms import GREY, WHITE, Phantom, mni152, phantom

PAGE = ROOT / "docs" / "validation"
SHAPES = ("polynomial", "coils", "dome")
AMPLITUDES = (0.0, 0.2, 0.5, 1.2)
NOISES = (0.05, 0.0, 0.03, 0.09)
CONTRASTS = ("T1w", "T2w")
N4S = {"ants": preset("ants"), "fmriprep": preset("fmriprep")}
LESION_ML = 30.0
FAR_MM = 20.0
REPEATS = 5

Estimate = Callable[[np.ndarray, Any, tuple[float, ...]], np.ndarray]


class Known(NamedTuple):
    """An image with a known field."""

    name: str
    made: Phantom
    mask: np.ndarray
    """where the field is estimated"""
    mm: float


def by_n4(name: str) -> Estimate:
    """Return an estimator of ln b by N4."""
    return lambda image, mask, zooms: np.asarray(
        n4(image, mask, zooms=zooms, options=N4S[name], return_bias=True)[1]
    )


def by_tissue(image: np.ndarray, mask: Any, zooms: tuple[float, ...]) -> np.ndarray:
    """Estimate ln b by the tissue method."""
    return np.asarray(tissue(image, mask, zooms=zooms, return_bias=True)[1])


def in_a_head(made: Phantom, mm: float, seed: int = 0) -> np.ndarray:
    """Return the image with a dark skull, bright fat and noisy air around the brain."""
    outside = ndimage.distance_transform_edt(~made.mask) * mm
    level = np.zeros(made.image.shape, np.float32)
    level[(outside > 0) & (outside <= 3)] = 0.25
    level[(outside > 3) & (outside <= 8)] = 0.08
    level[(outside > 8) & (outside <= 13)] = 1.3
    level *= np.exp(made.log_field)
    rng = np.random.default_rng(seed)
    noise = 0.03 * rng.standard_normal((2, *level.shape)).astype(np.float32)
    around = np.hypot(level + noise[0], noise[1])
    return np.where(made.mask, made.image, around)


def known(quick: bool) -> Iterator[Known]:
    """Make the suite of known fields: the brain alone, and in a head with the mask found in it."""
    if quick:
        made = phantom((40, 36, 32), field="coils", amplitude=0.5)
        yield Known("phantom", made, made.mask, 4.0)
        return
    for noise, whole in product(NOISES, (False, True)):
        for amplitude, shape, contrast in product(AMPLITUDES, SHAPES, CONTRASTS):
            if amplitude > 0 or shape == SHAPES[0]:
                yield _known_case(contrast, shape, amplitude, noise, whole=whole)


def _known_case(
    contrast: Any, shape: Any, amplitude: float, noise: float, *, whole: bool
) -> Known:
    """Make one case: the brain alone, or in a head."""
    made = mni152(contrast, 0, shape, amplitude, noise)
    name = f"{contrast} {shape} {amplitude:g}, noise {noise:.0%}"
    if not whole:
        return Known(f"{name}, brain", made, made.mask, 1.0)
    made = made._replace(image=in_a_head(made, 1.0))
    mask = auto_mask(made.image, (1.0, 1.0, 1.0)).mask
    return Known(f"{name}, head", made, mask, 1.0)


def measure_known(each: Known) -> dict[str, Any]:
    """Return errors, CJV and what the contrast of grey and white became."""
    made, found = each.made, {}
    inside = made.mask
    grey, white = made.labels == GREY, made.labels == WHITE
    for name, estimate in (("tissue", by_tissue), *((n, by_n4(n)) for n in N4S)):
        log_bias = estimate(made.image, each.mask, (each.mm,) * 3)
        corrected = made.image / np.exp(log_bias)
        true = made.image / np.exp(made.log_field)
        found[name] = {
            "rmse": float((log_bias - made.log_field)[inside].std()),
            "cjv": joint_variation(corrected, white, grey),
            "contrast": _ratio(corrected, grey, white) / _ratio(true, grey, white) - 1,
        }
    return found


def _ratio(image: np.ndarray, grey: np.ndarray, white: np.ndarray) -> float:
    return float(image[grey].mean() / image[white].mean())


def measure_joint(shape: Any, amplitude: float) -> dict[str, Any]:
    """Return errors of the field of T1w and T2w, each alone and both together."""
    made = [mni152(contrast, 0, shape, amplitude, 0.05) for contrast in CONTRASTS]
    true, mask = made[0].log_field, made[0].mask
    found = {}
    for name, images in (("T1w", made[:1]), ("T2w", made[1:]), ("both", made)):
        arrays = [each.image for each in images]
        field = tissue_joint(arrays, mask, zooms=(1.0, 1.0, 1.0), return_bias=True)[1]
        found[name] = float((np.asarray(field) - true)[mask].std())
    return found


def measure_head(case: Case) -> dict[str, Any]:
    """Return CJV and errors of a head with each mask, and the error of an added field."""
    found: dict[str, Any] = {}
    masks = {"auto": auto_mask(case.image, case.zooms).mask, "label": case.brain}
    axes = [np.linspace(-1, 1, n) for n in case.image.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    added = (0.25 * (x * y - z**2 + 0.6 * x + 0.3)).astype(np.float32)
    for mask_name, mask in masks.items():
        for name, estimate in (("tissue", by_tissue), ("ants", by_n4("ants"))):
            log_bias = estimate(case.image, mask, case.zooms)
            one: dict[str, float] = {}
            if case.grey is not None and case.white is not None:
                corrected = case.image / np.exp(log_bias)
                one["cjv before"] = joint_variation(case.image, case.white, case.grey)
                one["cjv"] = joint_variation(corrected, case.white, case.grey)
            inside = case.brain
            if case.truth is not None:
                one["alone"] = float((log_bias - case.truth)[inside].std())
                if case.clean is not None:
                    clean = estimate(case.clean, mask, case.zooms)
                    one["difference"] = float((log_bias - clean - case.truth)[inside].std())
                    one["clean"] = float(clean[inside].std())
            if mask_name == "auto":
                more = estimate(case.image * np.exp(added), mask, case.zooms)
                one["added"] = float((more - log_bias - added)[inside].std())
            found[f"{mask_name} {name}"] = one
    return found


def measure_lesions() -> dict[str, Any]:
    """Return how far lesions of 30 ml change the field more than 20 mm away."""
    made = mni152("T1w", 0, "coils", 0.5, 0.03)
    zooms = (1.0, 1.0, 1.0)
    before = by_tissue(made.image, made.mask, zooms)
    centre = np.argwhere(made.labels == WHITE).mean(axis=0) + (25, 10, 10)
    away = np.sqrt(
        sum((g - c) ** 2 for g, c in zip(np.indices(made.mask.shape), centre, strict=True))
    )
    radius = (LESION_ML * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    far = made.mask & (away > radius + FAR_MM)
    found = {}
    for name, factor in (("dark", 0.4), ("bright", 1.8)):
        image = np.where(away < radius, made.image * np.float32(factor), made.image)
        change = (by_tissue(image, made.mask, zooms) - before)[far]
        found[name] = {
            "sd": float(change.std()),
            "largest": float(abs(change - change.mean()).max()),
        }
    return found


def measure_time(image: np.ndarray, mask: Any, mm: tuple[float, ...]) -> dict[str, Any]:
    """Return processor seconds from array to array, after a first call that compiles."""
    estimates = {"tissue": by_tissue, "fmriprep": by_n4("fmriprep")}
    seconds: dict[str, list[float]] = {name: [] for name in estimates}
    for _ in range(1 + REPEATS):
        for name, estimate in estimates.items():
            start = time.process_time()
            estimate(image, mask, mm)
            seconds[name].append(time.process_time() - start)
    return {name: float(np.median(each[1:])) for name, each in seconds.items()}


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


def measured(rows: Rows, quick: bool, only_known: bool) -> None:
    """Measure what is not there yet: heads first, because they matter most."""
    heads = [] if only_known else list(cases(quick))
    for case in heads:
        rows.of("head", case.name, lambda case=case: measure_head(case))
    if heads:
        measured_head = heads[0]
        mask = np.asarray(otsu_mask(measured_head.image)) != 0
        given = measured_head.image, mask, measured_head.zooms
        rows.of("time", measured_head.name, lambda: measure_time(*given))
    if heads and not quick:
        rows.of("lesion", "30 ml", measure_lesions)
        made = mni152("T1w", 0, "coils", 0.5, 0.05)
        given = made.image, made.mask, (1.0, 1.0, 1.0)
        rows.of("time", "template, coils 0.5", lambda: measure_time(*given))
    for amplitude, shape in product(AMPLITUDES, () if quick else SHAPES):
        if amplitude > 0 or shape == SHAPES[0]:
            name = f"{shape} {amplitude:g}"
            rows.of("joint", name, lambda s=shape, a=amplitude: measure_joint(s, a))
    for each in known(quick):
        rows.of("known", each.name, lambda each=each: measure_known(each))


def picture(path: str) -> None:
    """Draw a T1w brain without a field: as it is, and as each method leaves it."""
    made = mni152("T1w", 0, "polynomial", 0.0, 0.05)
    shown = {"input, no field": made.image}
    for name, estimate in (("tissue", by_tissue), *((f"N4, {n}", by_n4(n)) for n in N4S)):
        shown[name] = made.image / np.exp(estimate(made.image, made.mask, (1.0,) * 3))
    draw(path, shown, made.mask)


def lines(rows: Rows) -> Iterator[str]:
    """Yield the page."""
    yield (
        "The tissue method beside this package's N4 with the presets *ants* and *fmriprep*, each "
        "with the same mask. RMSE is the standard deviation of ln of the field minus that of the "
        "true one in the brain. CJV is the coefficient of joint variation of grey and white "
        "matter: lower is better. What a table lacks was not measured with this version."
    )
    for kind, part in (("head", _heads), ("head", _truths), ("joint", _joint), ("known", _known)):
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


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if "--picture" in argv:
        picture(argv[argv.index("--picture") + 1])
        return
    given = arguments("tissue", __doc__, argv, "--rows", "--known")
    given.out = given.out or (None if given.quick else PAGE)
    kept = (given.out or ROOT / "build") / "tissue-rows.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if given.quick:
        kept.unlink(missing_ok=True)
    with computing_on(given.device, quick=True):
        rows = Rows(kept)
        if not given.rows:
            measured(rows, given.quick, given.known)
        publish(given, "The tissue method beside N4", lines(rows))


if __name__ == "__main__":
    main()
