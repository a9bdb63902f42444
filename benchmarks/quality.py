"""How well every method corrects: known fields on a head, real heads, and the peers beside them.

    python -m benchmarks.quality                    the peers on twelve named cases
    python -m benchmarks.quality --full --resume    the peers on every case: hours

Known fields: three shapes and four amplitudes on the ICBM 152 template, T1w- and T2w-like, with
noise of 0 to 9 %, the brain alone with its own mask, and a head with Otsu's and with the automatic
mask. No method is judged by one figure: a field that removes the contrast of the tissues also
lowers their variation. The rows are kept in docs/validation/quality-rows.json as they are made.
--resume measures only what is not among them; --rows measures nothing and writes the pages.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quality_page
from benchmarks.known_fields import Known, known
from benchmarks.machine import ROOT, arguments, computing_on, has, publish
from benchmarks.masks import cases as heads
from n4ax_bids import n4, otsu_mask, preset, tissue, zero_shot
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.phantoms import GREY, WHITE

PAGE = ROOT / "docs" / "validation"
SHRINK = 4
LEVELS = (50, 50, 50, 50)
PRESETS = ("ants", "fmriprep", "adaptive")
EVERYWHERE = ("none", *(f"n4 {name}" for name in PRESETS))
"""what is quick enough for every case and mask; the tissue method is run where the noise is 5 %"""
NAMED = tuple(
    f"{contrast} {field}, noise {noise}, {where}"
    for contrast, field, noise, where in (
        ("T1w", "polynomial 0", "5%", "brain"),
        ("T2w", "polynomial 0", "5%", "head"),
        ("T1w", "polynomial 0.2", "3%", "head"),
        ("T1w", "coils 0.5", "0%", "brain"),
        ("T1w", "coils 0.5", "5%", "head"),
        ("T1w", "dome 1.2", "5%", "brain"),
        ("T1w", "coils 1.2", "9%", "head"),
        ("T2w", "polynomial 0.5", "3%", "brain"),
        ("T2w", "coils 0.2", "5%", "head"),
        ("T2w", "dome 0.5", "9%", "brain"),
        ("T2w", "coils 1.2", "5%", "brain"),
        ("T2w", "dome 1.2", "3%", "head"),
    )
)
"""cases on which slow methods and peers are run too, before all others"""
Estimate = Callable[[np.ndarray, np.ndarray, tuple[float, ...]], np.ndarray]
"""image, mask and mm to ln b"""


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("quality", __doc__, argv, "--full", "--resume", "--rows")
    given.out = given.out or (None if given.quick else PAGE)
    folder = given.out or Path(".")
    rows = Rows(None if given.quick else folder / "quality-rows.json")
    if not (given.resume or given.rows):
        rows.kept.clear()
    if not given.rows:
        with computing_on(given.device, quick=True):
            measure(rows, quick=given.quick, full=given.full)
    publish(given, "How well it corrects", quality_page.lines(rows.kept))
    if not given.quick:
        quality_page.write_csv(rows.kept, folder / "quality.csv")
        quality_page.draw(rows.kept, folder / "quality.png")


class Rows:
    """What was measured, kept in a file: case, then method and mask, then figures."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        there = path is not None and path.exists()
        self.kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if there else {}

    def add(self, case: str, name: str, measure_one: Callable[[], dict[str, float]]) -> None:
        """Measure unless that is done."""
        of_case = self.kept.setdefault(case, {})
        if name in of_case:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = measure_one()
        # Without a field there is no correlation with it.
        of_case[name] = {k: float(f"{v:.5g}") for k, v in found.items() if np.isfinite(v)}
        if self._path:
            self._path.write_text(json.dumps(self.kept, indent=0) + "\n", encoding="utf-8")
        print(case, name, of_case[name], file=sys.stderr, flush=True)


def measure(rows: Rows, *, quick: bool, full: bool) -> None:
    """Measure everything that is not there yet."""
    for case in heads(quick):
        if case.grey is None or case.white is None:
            continue
        for name, estimate in ours().items():
            add_head(rows, case, f"{name}, label", estimate, case.brain)
    for case in known(quick, NAMED):
        everyone = full or quick or case.name in NAMED
        for mask_name, mask in masks_of(case):
            chosen = ours()
            if mask_name == "otsu" or not (everyone or "noise 5%" in case.name):
                chosen = {name: chosen[name] for name in EVERYWHERE}
            elif everyone:
                chosen |= {"n4 fast": _by_preset("fast"), "zero-shot": by_zero_shot, **peers()}
            for name, estimate in chosen.items():
                add_known(rows, case, f"{name}, {mask_name}", estimate, mask)


def masks_of(case: Known) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the masks by which a case is corrected."""
    if not case.name.endswith("head"):
        yield "label", case.mask
        return
    yield "auto", case.mask
    yield "otsu", np.asarray(otsu_mask(case.made.image)) != 0


def ours() -> dict[str, Estimate]:
    """Return what is quick enough for every case."""
    return {
        "none": lambda image, mask, mm: np.zeros(image.shape, np.float32),
        **{f"n4 {name}": _by_preset(name) for name in PRESETS},
        "n4 as SimpleITK": _by_simpleitk("n4ax_bids.simpleitk"),
        "tissue": lambda image, mask, mm: np.asarray(
            tissue(image, mask, zooms=mm, return_bias=True)[1]
        ),
    }


def _by_preset(name: str) -> Estimate:
    options = preset(name)
    return lambda image, mask, mm: np.asarray(
        n4(image, mask, zooms=mm, options=options, return_bias=True)[1]
    )


def by_zero_shot(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    return np.asarray(zero_shot(image, mask, zooms=mm, return_bias=True)[1])


def _by_simpleitk(module: str) -> Estimate:
    """Return N4 by a script for SimpleITK, run by SimpleITK itself or by the module beside it."""

    def estimate(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
        import importlib

        import SimpleITK as sitk

        whole = sitk.GetImageFromArray(image.T.astype(np.float32))
        inside = sitk.GetImageFromArray(mask.T.astype(np.uint8))
        whole.SetSpacing(mm)
        inside.SetSpacing(mm)
        filter_ = importlib.import_module(module).N4BiasFieldCorrectionImageFilter()
        filter_.SetMaximumNumberOfIterations(LEVELS)
        filter_.SetConvergenceThreshold(0.0)
        shrunk = (sitk.Shrink(each, [SHRINK] * image.ndim) for each in (whole, inside))
        filter_.Execute(*shrunk)
        return sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(whole)).T

    return estimate


def peers() -> dict[str, Estimate]:
    """Return the programs of others that are installed."""
    found: dict[str, Estimate] = {}
    if has("SimpleITK"):
        found["SimpleITK"] = _by_simpleitk("SimpleITK")
    if has("ants"):
        found["ANTs"] = _by_ants
    if has("dipy"):
        found["dipy B-splines"] = _by_dipy
    if has("nitrix") and has("nitrix.bias"):
        found["nitrix"] = _by_nitrix
    return found


def _by_ants(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    import ants

    whole, inside = (
        ants.from_numpy(each.astype(np.float32), spacing=mm) for each in (image, mask)
    )
    given = {"iters": list(LEVELS), "tol": 0.0}
    field = ants.n4_bias_field_correction(
        whole, mask=inside, shrink_factor=SHRINK, convergence=given, return_bias_field=True
    )
    return np.log(np.maximum(field.numpy(), 1e-6))


def _by_dipy(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    """dipy's regression by B-splines of the mean of the volumes with b = 0; here there is one."""
    from dipy.core.gradients import gradient_table
    from dipy.denoise.bias_correction import bias_field_correction

    table = gradient_table(np.zeros(1), bvecs=np.zeros((1, 3)))
    _, field = bias_field_correction(
        image[..., None], table, mask=mask.astype(bool), return_bias_field=True
    )
    return np.log(np.maximum(field, 1e-6))


def _by_nitrix(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    from nitrix.bias.n4 import n4_bias_field_correction

    corrected = n4_bias_field_correction(
        image.astype(np.float32), mask=mask.astype(np.float32), convergence_threshold=0.0
    )
    return np.log(np.maximum(image, 1e-6)) - np.log(np.maximum(np.asarray(corrected), 1e-6))


def add_known(rows: Rows, case: Known, name: str, estimate: Estimate, mask: np.ndarray) -> None:
    made = case.made

    inside = made.mask
    image, true = made.image[inside].astype(np.float64), made.log_field[inside]
    grey, white = made.labels[inside] == GREY, made.labels[inside] == WHITE

    def one() -> dict[str, float]:
        start = time.process_time()
        log_bias = np.asarray(estimate(made.image, mask, (case.mm,) * 3))[inside]
        seconds = time.process_time() - start
        error = field_error(log_bias, true, np.ones(true.shape, bool))
        ratio, corrected = np.exp(log_bias - true), image / np.exp(log_bias)
        contrast = _contrast(corrected, grey, white) / _contrast(image / np.exp(true), grey, white)
        return {
            "r": error.correlation,
            "rmse": error.rmse,
            "cv of the ratio": float(ratio.std() / ratio.mean()),
            **_tissues(corrected, grey, white),
            "contrast": contrast,
            "seconds": seconds,
        }

    rows.add(case.name, name, one)


def add_head(rows: Rows, case: Any, name: str, estimate: Estimate, mask: np.ndarray) -> None:
    def one() -> dict[str, float]:
        log_bias = np.asarray(estimate(case.image, mask, case.zooms), np.float64)
        return _tissues(case.image / np.exp(log_bias), case.grey, case.white)

    rows.add(f"head: {case.name}", name, one)


def _tissues(image: np.ndarray, grey: np.ndarray, white: np.ndarray) -> dict[str, float]:
    return {
        "cv white": coefficient_of_variation(image, white),
        "cv grey": coefficient_of_variation(image, grey),
        "cjv": joint_variation(image, white, grey),
    }


def _contrast(image: np.ndarray, grey: np.ndarray, white: np.ndarray) -> float:
    return float(image[grey].mean() / image[white].mean())


if __name__ == "__main__":
    main()
