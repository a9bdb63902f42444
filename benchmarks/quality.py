"""How well every method corrects: known fields on a head, real heads, and the peers beside them.

    python -m benchmarks.quality                    the peers on twelve named cases
    python -m benchmarks.quality --full --resume    the peers on every case: hours

Known fields: three shapes and four amplitudes on the ICBM 152 template, T1w- and T2w-like, with
noise of 0 to 9 %, the brain alone with its own mask, and a head with Otsu's and with the automatic
mask. Heads: one whose receive field was measured, three that are simulated with a known field, and
five others with labels, each with these three masks. No method is judged by one figure: a field
that removes the contrast of the tissues also lowers their variation. The rows are kept in
docs/validation/quality-rows.json as they are made. --resume measures only what is not among them;
--rows measures nothing and writes the pages.
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

from benchmarks import quality_files, quality_page
from benchmarks.corrections import PRESETS, Estimate, ours, ours_on_heads, slow
from benchmarks.known_fields import NAMED, Known, known
from benchmarks.machine import ROOT, arguments, computing_on, publish
from benchmarks.masks import Case, Maker, makers
from benchmarks.masks import cases as heads
from n4ax_bids import otsu_mask
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.phantoms import GREY, WHITE

PAGE = ROOT / "docs" / "validation"
EVERYWHERE = ("none", *(f"n4 {name}" for name in PRESETS))
"""what is quick enough for every case and mask; the tissue method is run where the noise is 5 %"""


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
        quality_files.write_csv(rows.kept, folder / "quality.csv")
        quality_files.draw(rows.kept, folder / "quality.png")


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
    for head in heads(quick):
        for mask_name, make_mask in masks_of_head(head).items():
            slower = slow() if mask_name != "otsu" and (quick or full) else {}
            for name, estimate in (ours_on_heads() | slower).items():
                add_head(rows, head, f"{name}, {mask_name}", estimate, make_mask)
    for case in known(quick, NAMED):
        everyone = full or quick or case.name in NAMED
        for mask_name, mask in masks_of(case):
            chosen = ours()
            if mask_name == "otsu" or not (everyone or "noise 5%" in case.name):
                chosen = {name: chosen[name] for name in EVERYWHERE}
            elif everyone:
                chosen |= slow()
            for name, estimate in chosen.items():
                add_known(rows, case, f"{name}, {mask_name}", estimate, mask)


def masks_of(case: Known) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the masks by which a case is corrected."""
    if not case.name.endswith("head"):
        yield "label", case.mask
        return
    yield "auto", case.mask
    yield "otsu", np.asarray(otsu_mask(case.made.image)) != 0


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


def masks_of_head(head: Case) -> dict[str, Maker]:
    """Return what makes the masks by which a head is corrected, each made once for an image."""
    return {name: _once(makers(head)[name]) for name in quality_page.MASKS}


def _once(make_mask: Maker) -> Maker:
    made: dict[int, np.ndarray] = {}

    def mask_of(image: np.ndarray) -> np.ndarray:
        if id(image) not in made:
            made[id(image)] = np.asarray(make_mask(image)) != 0
        return made[id(image)]

    return mask_of


def add_head(rows: Rows, head: Case, name: str, estimate: Estimate, make_mask: Maker) -> None:
    """Measure a head with labels or with a field that is known by other means than N4.

    The difference is that of two estimates: of the head, and of the same head without that field.
    """

    def log_field(image: np.ndarray) -> np.ndarray:
        found = estimate(image, make_mask(image), head.zooms)
        return np.asarray(found, np.float64)

    def one() -> dict[str, float]:
        log_bias = log_field(head.image)
        found: dict[str, float] = {}
        if head.grey is not None and head.white is not None:
            found |= _tissues(head.image / np.exp(log_bias), head.grey, head.white)
        if head.truth is not None:
            error = field_error(log_bias, head.truth, head.brain)
            found |= {"r": error.correlation, "rmse": error.rmse}
            if head.clean is not None:
                of_clean = log_field(head.clean)
                error = field_error(log_bias - of_clean, head.truth, head.brain)
                found[quality_page.DIFFERENCE] = error.rmse
        return found

    rows.add(f"head: {head.name}", name, one)


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
