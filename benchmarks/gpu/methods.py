"""Parts of a GPU day beyond N4: every other method beside the CPU, and the peers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.day import Day
from n4ax_bids.core.n4.call import n4
from n4ax_bids.options import N4Options, StackOptions, TissueOptions, ZeroShotOptions
from n4ax_bids.options.realign import RealignOptions
from n4ax_bids.phantoms import phantom

ZOOMS = (2.0, 2.0, 2.0)


def methods(day: Day) -> dict[str, Any]:
    """Run every method on the device and on the CPU: times, and the largest difference."""
    result: dict[str, Any] = {}
    cpu = jax.local_devices(backend="cpu")[0]
    for name, make in {"tissue": _tissue, "zero-shot": _zero_shot, "stack": _stack}.items():
        result[name] = _beside(day, make(day), cpu)
        day.save()
    result["realign"] = _beside(day, _realign(day), cpu)
    return result


def _beside(day: Day, call: Callable[[], np.ndarray], cpu: jax.Device) -> dict[str, Any]:
    if not day.has_room(40):
        return {"left out": "no time"}
    found: dict[str, np.ndarray] = {}

    def run(place: str) -> np.ndarray:
        found[place] = np.asarray(call())
        return found[place]

    here = day.warm(lambda: run("here"), 3)
    with jax.default_device(cpu):
        there = day.warm(lambda: run("cpu"), 1)
    off = np.abs(found["here"] - found["cpu"])
    return {"device": here, "cpu": there, "largest difference": float(off.max())}


def _head(day: Day) -> Any:
    n = 24 if day.quick else 96
    return phantom((n, n, n), seed=0, field="polynomial", amplitude=0.4, noise=0.02)


def _tissue(day: Day) -> Callable[[], np.ndarray]:
    from n4ax_bids.core.tissue.call import tissue

    made = _head(day)
    given = {"zooms": ZOOMS, "options": TissueOptions(), "return_bias": True}
    return lambda: tissue(made.image, made.mask, **given)[1]


def _zero_shot(day: Day) -> Callable[[], np.ndarray]:
    from n4ax_bids.core.zero_dce.call import zero_shot

    made = _head(day)
    options = ZeroShotOptions(n_steps=5 if day.quick else 30)
    given = {"zooms": ZOOMS, "options": options, "return_bias": True}
    return lambda: zero_shot(made.image, made.mask, **given)[1]


def _stack(day: Day) -> Callable[[], np.ndarray]:
    from n4ax_bids.core.stack.call import correct_stack

    shape = (8, 32, 32) if day.quick else (64, 512, 512)
    made = phantom(shape, seed=1, field="coils", amplitude=0.4, noise=0.02)
    options = StackOptions(sections=2)
    return lambda: correct_stack(made.image, made.mask, options=options).bias


def _realign(day: Day) -> Callable[[], np.ndarray]:
    """Of a series whose volumes are one head, moved by steps of a voxel and interpolated."""
    from scipy.ndimage import shift

    from n4ax_bids.core.motion import series, smoothing

    n, shape = (3, (20, 22, 16)) if day.quick else (200, (64, 64, 36))
    still = phantom(shape, seed=2, field="coils", amplitude=0.1, noise=0.02).image
    steps = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 3))
    moved = [still, *(shift(still, step, order=3, mode="nearest") for step in steps)]
    volumes = [np.asarray(volume, np.float32) for volume in moved]
    grid = smoothing.grid_of(np.diag([3.0, 3.0, 4.0, 1.0]), shape)
    options = RealignOptions(register_to_mean=False)
    return lambda: series.estimate(lambda i: volumes[i % 11], n, grid, options).motion.q


def peers(day: Day) -> dict[str, Any]:
    """Time nitrix and n4ax beside ours where they can be imported: one image on the device."""
    sizes, result = day.sizes, {}
    image, mask = (jnp.asarray(each) for each in inputs.head(sizes.shape, sizes.semi_axes))
    levels, n_levels = sizes.levels, len(sizes.levels)
    options = N4Options(shrink_factor=1, n_iterations=levels)

    def of_nitrix(module: Any) -> Any:
        given = {"n_fitting_levels": n_levels, "max_iterations": levels}
        return module.n4_bias_field_correction(
            image, mask=mask.astype(jnp.float32), convergence_threshold=0.0, **given
        )

    def of_n4ax(module: Any) -> Any:
        return module.n4(image, mask, iters=levels, over_relax=1.0, conv_threshold=0.0)

    ours = day.warm(lambda: n4(image, mask, options=options))
    result["ours"] = ours
    corrected = np.asarray(n4(image, mask, options=options))
    inside = np.asarray(mask)
    for name, path, call in (("nitrix", "nitrix.bias.n4", of_nitrix), ("n4ax", "n4ax", of_n4ax)):
        if not day.has_room(30):
            result[name] = "no time"
            continue
        try:
            module = importlib.import_module(path)
        except ImportError as error:
            result[name] = f"not there: {error}"
            continue
        try:
            timed = day.warm(lambda call=call, module=module: call(module), 3)
            ratio = np.log(np.asarray(call(module))[inside] / corrected[inside])
        except Exception as error:
            result[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        off = np.abs(np.expm1(ratio - np.median(ratio)))
        result[name] = {
            **timed,
            "times ours": round(timed["median_ms"] / ours["median_ms"], 2),
            "difference from ours, mean": float(off.mean()),
            "difference from ours, max": float(off.max()),
        }
    return result
