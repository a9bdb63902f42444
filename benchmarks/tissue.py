"""The tissue method beside N4: known fields, labelled heads, a measured field, lesions, time.

The page is docs/validation/tissue.md. Rows are kept in tissue-rows.json beside it as they are
made, so that a run can be ended and continued; `--rows` only writes the page from the rows that
are there, and `--known` measures the known fields alone. Whoever changes the method deletes that
file. `--picture FILE.webp` draws what N4 and the method leave of a brain without a field.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import nibabel as nb
import numpy as np
from scipy import ndimage

from benchmarks.images import DATA
from benchmarks.known_fields import (
    AMPLITUDES,
    CONTRASTS,
    SHAPES,
    Known,
    known,
)
from benchmarks.machine import ROOT, arguments, computing_on, publish
from benchmarks.masks import Case, cases
from benchmarks.pictures import draw
from benchmarks.tissue_page import REPEATS, Rows, lines
from n4ax_bids import TissueOptions, auto_mask, n4, otsu_mask, preset, tissue, tissue_joint
from n4ax_bids.core.estimator import Given
from n4ax_bids.core.metrics import joint_variation
from n4ax_bids.core.tissue.method import prepare
from n4ax_bids.phantoms import GREY, WHITE, mni152

PAGE = ROOT / "docs" / "validation"
N4S = {"ants": preset("ants"), "fmriprep": preset("fmriprep")}
OTHERS = (
    "kidney-ge3t_GRE",
    "spine-sct_T2starw",
    "spine-sct_bold",
    "slice2d-ixi002/T1w",
    "slice2d-ixi002/T2w",
    "labelled/laynii-lo-t1epi-7t/image",
    "labelled/mouse-fvb-invivo-3/image",
    "brain-niivue_FLAIR",
    "head-niivue_T2w",
)
"""images of the folder of test data"""
LESION_ML = 30.0
FAR_MM = 20.0

Estimate = Callable[[np.ndarray, Any, tuple[float, ...]], np.ndarray]


def by_n4(name: str) -> Estimate:
    """Return an estimator of ln b by N4."""
    return lambda image, mask, zooms: np.asarray(
        n4(image, mask, zooms=zooms, options=N4S[name], return_bias=True)[1]
    )


def by_tissue(image: np.ndarray, mask: Any, zooms: tuple[float, ...]) -> np.ndarray:
    """Estimate ln b by the tissue method."""
    return np.asarray(tissue(image, mask, zooms=zooms, return_bias=True)[1])


def by_standard(image: np.ndarray, mask: Any, zooms: tuple[float, ...]) -> np.ndarray:
    """Estimate ln b by N4 with samples about 4 mm apart."""
    options = preset("standard")
    return np.asarray(n4(image, mask, zooms=zooms, options=options, return_bias=True)[1])


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


def others() -> Iterator[tuple[str, np.ndarray, tuple[float, ...]]]:
    """Yield name, image and mm of what is no whole brain, and of two images of another kind."""
    for name in OTHERS:
        read: Any = nb.load(DATA / f"{name}.nii.gz")
        values, mm = read.get_fdata(dtype=np.float32), read.header.get_zooms()
        values = values[..., 0] if values.ndim == 4 else values
        values = values[..., 0] if values.shape[-1] == 1 else values
        yield name, values, tuple(map(float, mm[: values.ndim]))


def measure_other(image: np.ndarray, mm: tuple[float, ...]) -> dict[str, Any]:
    """Return the misfit, and errors of a field that is multiplied on the image."""
    mask = np.asarray(otsu_mask(image)) != 0
    axes = [np.linspace(-1, 1, n) for n in image.shape]
    grid = np.meshgrid(*axes, indexing="ij")
    x, y, z = grid[0], grid[1], grid[-1]
    added = (0.25 * (x * y - z**2 + 0.6 * x)).astype(np.float32)
    estimate = prepare(Given(image, mask, None, mm), TissueOptions())(None)
    found: dict[str, Any] = {
        "misfit": estimate.details.misfit,
        "fell back": estimate.details.fell_back,
    }
    for name, of in (("tissue", by_tissue), ("standard", by_standard)):
        change = of(image * np.exp(added), mask, mm) - of(image, mask, mm)
        found[name] = float((change - added)[mask].std())
    return found


def misfit(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> float:
    """Return the misfit of an image."""
    return float(prepare(Given(image, mask, None, mm), TissueOptions())(None).details.misfit)


def measure_misfits(heads: Sequence[Case]) -> dict[str, Any]:
    """Return the lowest and the highest misfit of several groups of images."""
    made = [mni152(c, 0, s, a, 0.05) for c, s, a in product(CONTRASTS, SHAPES, AMPLITUDES[1:])]
    found = {
        "template brain with any field": [misfit(m.image, m.mask, (1.0,) * 3) for m in made],
        "real and simulated heads in the brain's mask": [
            misfit(each.image, each.brain, each.zooms) for each in heads
        ],
    }
    for wide in (190, 120):
        name = f"balls of smooth random texture without tissue levels, {wide} mm wide"
        found[name] = [misfit(*_texture(wide / 2, seed)) for seed in range(5)]
    return {name: [min(values), max(values)] for name, values in found.items()}


def _texture(radius: float, seed: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return image, mask and mm of a ball whose logarithm varies by 0.4 (sd) over 10 mm."""
    mm = 4.0
    at = np.arange(-radius, radius + mm, mm)
    ball = sum(each**2 for each in np.meshgrid(at, at, at)) < radius**2
    noise = np.random.default_rng(seed).standard_normal(ball.shape)
    smooth = ndimage.gaussian_filter(noise, 10 / mm)
    return np.exp(0.4 * smooth / smooth.std()).astype(np.float32), ball, (mm,) * 3


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
        rows.of("misfit", "groups", lambda: measure_misfits(heads))
        made = mni152("T1w", 0, "coils", 0.5, 0.05)
        given = made.image, made.mask, (1.0, 1.0, 1.0)
        rows.of("time", "template, coils 0.5", lambda: measure_time(*given))
    if not quick and not only_known:
        for name, image, mm in others():
            rows.of("other", name, lambda i=image, m=mm: measure_other(i, m))
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
