"""The zero-shot method beside N4, on known fields and labelled heads.

The page is docs/validation/zero-shot.md.

Rows are kept in zero-shot-rows.json beside the page as they are made, so that a run can be ended
and continued; `--rows` only writes the page from the rows that are there. Whoever changes the
method deletes that file. `--picture FILE.webp` draws the strongest known field instead.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import arguments, computing_on, figure, head, publish, row, size
from benchmarks.masks import HEADS, PAGE, Case, cases
from benchmarks.pictures import draw
from n4ax_bids import ZeroShotOptions, n4, preset, zero_shot
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.options.zero_shot import PRESETS
from n4ax_bids.phantoms import CSF, GREY, WHITE, mni152, phantom

BRAIN = ZeroShotOptions()
SETTINGS: dict[str, Any] = {
    "brain": BRAIN,
    "N4 ants": preset("ants"),
    "N4 fmriprep": preset("fmriprep"),
    "paper": PRESETS["paper"],
    "five classes": replace(BRAIN, n_levels=5),
    "network alone": replace(BRAIN, n_levels=0, field_spacing=200.0),
    "N4 standard": preset("standard"),
    "exposure weight 10": replace(BRAIN, weight_exposure=10.0),
    "learning rate 0.005": replace(BRAIN, learning_rate=5e-3),
}
EVERYWHERE = (
    *("input", "true field", "brain", "N4 ants", "N4 fmriprep", "paper"),
    *("five classes", "network alone", "exposure weight 10"),
)
"""settings that large images get as well"""
LARGE = 2_000_000
"""voxels of a large image: a fit takes half a minute or more"""
TIMES = "Time and memory of a whole head"
WHOLE_HEAD = "aomic-piop2-0001"
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
        csf = made.labels == CSF
        yield Case(name, made.image, (mm,) * 3, made.mask, grey, white, truth, clean, csf)


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
    if case.csf is not None:
        found["csf"] = coefficient_of_variation(corrected, case.csf)
    if case.truth is not None and options is not None:
        error = field_error(log_bias, case.truth, case.brain)
        found |= {"r": error.correlation, "rmse": error.rmse}
    return found


def made(given: Any, kept: Path | None) -> dict[str, Any]:
    """Return all rows, by image and setting, and the figures of the whole head."""
    rows = json.loads(kept.read_text()) if kept and kept.exists() else {}
    if given.rows:
        return rows
    settings = {"input": None, "true field": "truth", **SETTINGS}
    if given.quick:
        settings = {name: settings[name] for name in ("input", "brain", "N4 ants")}
    several = list(groups(given.quick))
    for first in (True, False):  # what every image gets comes first
        chosen = {k: v for k, v in settings.items() if (k in EVERYWHERE) == first}
        for name, case in ((name, case) for group in several for name in chosen for case in group):
            if name in rows.get(case.name, {}) or not wanted(name, case):
                continue
            rows.setdefault(case.name, {})[name] = measured(case, chosen[name])
            print(case.name, name, rows[case.name][name], flush=True)
            keep(rows, kept)
        if TIMES not in rows:
            with get_context("spawn").Pool(1) as pool:
                rows[TIMES] = pool.apply(whole_head, (given.quick,))
            keep(rows, kept)
    return rows


def wanted(setting: str, case: Case) -> bool:
    """Whether an image gets this setting."""
    if setting == "true field":
        return case.truth is not None
    return setting in EVERYWHERE or case.image.size < LARGE


def groups(quick: bool) -> Iterator[list[Case]]:
    """Yield the images in groups, each of which gets all its settings before the next."""
    yield list(known(quick))
    if not quick:
        heads = list(cases(False))
        yield [each for each in heads if each.truth is None]
        yield [each for each in heads if each.truth is not None]


def keep(rows: dict[str, Any], path: Path | None) -> None:
    """Write what is there so far."""
    if path:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def lines(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the page."""
    yield (
        "CV is the coefficient of variation of a tissue: grey matter (GM), white matter (WM) and "
        "CSF. CJV is the coefficient of joint variation of grey and white matter, GM/WM the ratio "
        "of their means; r and RMSE compare the field with the true one in the brain. All methods "
        "get the same mask: the brain of the labels. CPU seconds include compilation for new "
        "shapes. A CV that falls while CJV rises means lost contrast. *brain* and *paper* are "
        "presets of the zero-shot method; the other settings are *brain* with one change. *paper* "
        "returns the brightened image, of which CV and CJV are; its r and RMSE are those of the "
        "field beside it. N4 is that of this package: *ants* samples every fourth voxel, "
        "*standard* samples 4 mm apart. Large images, of two million voxels and more, have fewer "
        "settings. Rows of the zero-shot method without CPU seconds were computed from the fit of "
        "the network that *brain* has as well."
    )
    yield ""
    lacking = missing(rows)
    if lacking:
        yield f"Not measured with this version: {'; '.join(lacking)}."
    for name, settings in rows.items():
        if name == TIMES:
            continue
        yield ""
        yield f"## {name}"
        yield ""
        yield from head(
            "setting", "CV GM", "CV WM", "CV CSF", "CJV", "GM/WM", "r", "RMSE", "CPU s"
        )
        for setting in ("input", "true field", *SETTINGS):
            if setting not in settings:
                continue
            found = settings[setting]
            keys = ("grey", "white", "csf", "cjv", "ratio", "r", "rmse")
            cells = [f"{found[k]:.3f}" if k in found else "–" for k in keys]
            yield row(setting, *cells, figure(found["seconds"]) if found["seconds"] else "–")
    yield ""
    yield f"## {TIMES}"
    yield ""
    yield from times(rows[TIMES]) if TIMES in rows else ["This has not been measured here."]


def picture(path: str) -> None:
    """Draw the middle plane of the strongest known field: before, after, N4, without the field."""
    case = list(known(False))[-1]
    assert case.truth is not None
    shown = {"input": case.image}
    for name, call, options in (("zero-shot", zero_shot, BRAIN), ("N4, ants", n4, preset("ants"))):
        shown[name] = call(case.image, case.brain, zooms=case.zooms, options=options)
    shown["true field"] = case.image / np.exp(case.truth)
    draw(path, shown, case.brain)


def missing(rows: dict[str, Any]) -> list[str]:
    """Name the images, and for each setting the images, that have no row."""
    images = [name for name in rows if name != TIMES]
    known_names = [f"known field ±{amplitude:g}" for amplitude in AMPLITUDES]
    absent = [name for name in (*HEADS, "head-philips3t", *known_names) if name not in images]
    found = [f"the images {', '.join(absent)}"] if absent else []
    for setting in SETTINGS:
        without = [name for name in images if setting not in rows[name]]
        if without:
            where = "any image" if len(without) == len(images) else ", ".join(without)
            found.append(f"*{setting}* on {where}")
    return found


def times(found: dict[str, Any]) -> Iterator[str]:
    """Yield the seconds and the peak memory of a whole head."""
    yield (
        f"{found['name']}, {size(found['shape'])}, preset *brain*, in a process of its own. The "
        "first call compiles. Seconds mean something on an idle machine only. Memory is the "
        "largest resident memory of the process so far, which holds Python, JAX and the image."
    )
    yield ""
    yield from head("call", "seconds", "CPU s", "peak memory, MB")
    for name, seconds, cpu, megabytes in found["calls"]:
        yield row(name, figure(seconds), figure(cpu), f"{megabytes:.0f}")


def whole_head(quick: bool) -> dict[str, Any]:
    """Measure in this process: name, shape, and for each call its seconds and the peak so far."""
    if quick:
        case = next(known(quick))
    else:
        case = next(each for each in cases(quick) if each.name == WHOLE_HEAD)
    calls = [("before", None, None, peak())]
    for name in ("first call", "second call"):
        wall, cpu = time.perf_counter(), time.process_time()
        zero_shot(case.image, case.brain, zooms=case.zooms, options=BRAIN)
        taken = time.perf_counter() - wall, time.process_time() - cpu
        calls.append((name, *taken, peak()))
    return {"name": case.name, "shape": case.image.shape, "calls": calls}


def peak() -> float:
    """Return the largest resident memory of this process so far in MB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    if "--picture" in sys.argv:
        picture(sys.argv[sys.argv.index("--picture") + 1])
        return
    given = arguments("zero_shot", __doc__, None, "--rows")
    given.name = "zero-shot"
    given.out = given.out or (None if given.quick else PAGE)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    with computing_on(given.device, quick=given.quick):
        kept = None if given.quick or not given.out else given.out / "zero-shot-rows.json"
        publish(given, "Zero-shot correction", lines(made(given, kept)))


if __name__ == "__main__":
    main()
