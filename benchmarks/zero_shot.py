"""The zero-shot method beside N4, on known fields and labelled heads.

The page is docs/validation/zero-shot.md.

Rows are kept in zero-shot-rows.json beside the page as they are made, so that a run can be ended
and continued.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import arguments, computing_on, figure, head, publish, row
from benchmarks.masks import PAGE, Case, cases
from n4ax_bids import ZeroShotOptions, n4, preset, zero_shot
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.options.zero_shot import PRESETS
from n4ax_bids.phantoms import GREY, WHITE, mni152, phantom

BRAIN = ZeroShotOptions()
SETTINGS: dict[str, Any] = {
    "brain": BRAIN,
    "N4 ants": preset("standard"),
    "N4 fmriprep": preset("fmriprep"),
    "brain, network alone": replace(BRAIN, n_levels=0, field_spacing=200.0),
    "paper": PRESETS["paper"],
    "exposure weight 10": replace(BRAIN, weight_exposure=10.0),
    "learning rate 0.005": replace(BRAIN, learning_rate=5e-3),
    "four levels": replace(BRAIN, n_levels=4),
}
AMPLITUDES = (0.2, 0.5, 1.2)


def known(quick: bool) -> Iterator[Case]:
    """Make images with known fields."""
    for amplitude in AMPLITUDES:
        if quick:
            made, mm = phantom((40, 36, 32), field="coils", amplitude=amplitude), 4.0
        else:
            made, mm = mni152("T1w", 0, "coils", amplitude, step=2), 2.0
        grey, white = made.labels == GREY, made.labels == WHITE
        name, truth = f"known field ±{amplitude:g}", made.log_field
        clean = made.image / np.exp(truth)
        yield Case(name, made.image, (mm,) * 3, made.mask, grey, white, truth, clean)


def measured(case: Case, options: Any) -> dict[str, float]:
    """Return the numbers of one image with one setting; None as options leaves the image."""
    log_bias, seconds = np.zeros(case.image.shape, np.float32), 0.0
    corrected = case.image
    if options == "truth":
        log_bias = case.truth
        corrected = case.image / np.exp(log_bias)
    elif options is not None:
        call: Callable[..., Any] = zero_shot if isinstance(options, ZeroShotOptions) else n4
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corrected, log_bias = call(
                case.image, case.brain, zooms=case.zooms, options=options, return_bias=True
            )
        seconds = time.process_time() - start
    found = {"seconds": seconds}
    if case.grey is not None and case.white is not None:
        found |= {
            "grey": coefficient_of_variation(corrected, case.grey),
            "white": coefficient_of_variation(corrected, case.white),
            "cjv": joint_variation(corrected, case.white, case.grey),
            "ratio": float(corrected[case.grey].mean() / corrected[case.white].mean()),
        }
    if case.truth is not None and options is not None:
        error = field_error(log_bias, case.truth, case.brain)
        found |= {"r": error.correlation, "rmse": error.rmse}
    return found


def made(given: Any, kept: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Return all rows, by image and setting."""
    rows = json.loads(kept.read_text()) if kept and kept.exists() else {}
    images = [*known(given.quick), *([] if given.quick else cases(False))]
    settings = {"input": None, "true field": "truth", **SETTINGS}
    if given.quick:
        settings = {name: settings[name] for name in ("input", "brain", "N4 ants")}
    for name, options in settings.items():
        for case in images:
            if name in rows.get(case.name, {}) or (options == "truth" and case.truth is None):
                continue
            rows.setdefault(case.name, {})[name] = measured(case, options)
            print(case.name, name, rows[case.name][name], flush=True)
            if kept:
                kept.write_text(json.dumps(rows, indent=1))
    return rows


def lines(rows: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """Yield the page."""
    yield "CV is the coefficient of variation of grey and white matter, CJV that of joint"
    yield "variation; grey/white is the ratio of their means. r and RMSE compare the field with"
    yield "the true one in the brain. The mask is the brain's, from labels, for all methods. CPU"
    yield "seconds include compilation where a shape is new. A CV that falls while CJV rises means"
    yield "lost contrast. N4 ants is ANTs' N4 with samples 4 mm apart."
    yield ""
    yield "A setting that an image lacks has not been measured there yet."
    for name, settings in rows.items():
        yield ""
        yield f"## {name}"
        yield ""
        yield from head(
            "setting", "CV grey", "CV white", "CJV", "grey/white", "r", "RMSE", "CPU s"
        )
        for setting, found in settings.items():
            keys = ("grey", "white", "cjv", "ratio", "r", "rmse")
            cells = [f"{found[k]:.3f}" if k in found else "–" for k in keys]
            yield row(setting, *cells, figure(found["seconds"]) if found["seconds"] else "–")


def main() -> None:
    given = arguments("zero_shot", __doc__)
    given.name = "zero-shot"
    given.out = given.out or (None if given.quick else PAGE)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    with computing_on(given.device, quick=given.quick):
        kept = None if given.quick or not given.out else given.out / "zero-shot-rows.json"
        publish(given, "Zero-shot correction", lines(made(given, kept)))


if __name__ == "__main__":
    main()
