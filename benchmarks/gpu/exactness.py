"""Parts of a GPU day that ask whether the numbers are right, and the same each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import inputs
from benchmarks.gpu.day import ROOT, Day, digest
from benchmarks.gpu.loop import SMALL_ZOOMS, Loop, shared
from n4ax_bids.core import bspline, threshold
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4 import residual, sharpen, sharpen_direct
from n4ax_bids.core.n4.estimate import N4Result, estimate, estimate_batch
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.n4.take import take
from n4ax_bids.options import N4Options

BOUNDS = (5e-5, 2e-4, 5e-4)
"""of mean, 99th percentile and maximum of |ours/ITK - 1|, as in `benchmarks.parity`"""
N_BINS = 200
OTHERS = (
    ("as it is", ""),
    ("again", ""),
    ("no autotuning", "--xla_gpu_autotune_level=0"),
    ("deterministic ops", "--xla_gpu_deterministic_ops=true"),
    ("no graphs", "--xla_gpu_enable_command_buffer="),
)
"""other processes, and the flags of the compiler for them; those of a GPU come last"""


def primitives(day: Day) -> dict[str, Any]:
    """Compare the pieces of an iteration on the device with those on the CPU, bit for bit."""
    rng = np.random.default_rng(0)
    n = 4096 * (16 if day.quick else 512)
    view = rng.normal(5, 0.5, n).astype(np.float32)
    mask = rng.uniform(size=n) < 0.5
    made = {}
    with jax.enable_x64(True):
        for device, copies in ((day.device, 128), (jax.local_devices(backend="cpu")[0], 1)):
            there = [jax.device_put(array, device) for array in (view, mask)]
            out = jax.jit(_pieces, static_argnums=2)(*there, copies)
            made[copies] = {name: np.asarray(value) for name, value in out.items()}
    ours, result = made[128], {}
    for name, value in ours.items():
        wide = np.abs(value.astype(np.float64) - made[1][name].astype(np.float64))
        equal = bool(np.array_equal(value, made[1][name]))
        result[name] = {"equal": equal, "max": float(wide.max()), "n": int(np.count_nonzero(wide))}
    for one, other in (("expected", "expected directly"), ("tally", "tally without idle")):
        result[f"{one} equals {other}"] = bool(np.array_equal(ours[one], ours[other]))
    image, _ = inputs.head(day.sizes.small_shape, day.sizes.small_semi_axes)
    on_device = threshold.otsu_threshold(jax.device_put(image, day.device))
    result["otsu equal"] = on_device == threshold.otsu_threshold(image)
    return result | _precision_of_a_product(rng, day.device)


def _pieces(view: jax.Array, mask: jax.Array, copies: int) -> dict[str, jax.Array]:
    n, v_min = view.size, view.min()
    width, _ = residual.width_of(v_min, view.max(), N_BINS, view.dtype)
    position = sharpen.find_position(view, v_min, width, N_BINS)
    bins = sharpen.find_bins(position, N_BINS)
    total = sharpen.tally(bins, mask, N_BINS, n, repeats=0, copies=copies)
    counts = sharpen.histogram(total, n)
    options = {"fwhm": 0.15, "noise": 0.01}
    expected = sharpen.sharpening_map(counts, v_min, width, **options)
    return {
        "width": width,
        "position": position,
        "lower": bins.lower,
        "offset": bins.offset,
        "tally": total,
        "tally without idle": sharpen.tally(bins, mask, N_BINS, n, copies=copies),
        "counts": counts,
        "expected": expected,
        "expected directly": sharpen_direct.sharpening_map(counts, v_min, width, **options),
        "sharpened": sharpen.sharpened(bins, expected, sharpen.rise(expected)),
    }


def _precision_of_a_product(rng: np.random.Generator, device: jax.Device) -> dict[str, Any]:
    """Find TF32 by a product of values that need all 24 binary digits."""
    a = rng.uniform(1, 2, (4096, 16)).astype(np.float32)
    b = rng.uniform(1, 2, (16, 11)).astype(np.float32)
    product = np.asarray(bspline.along(jax.device_put(a, device), jax.device_put(b, device), 1))
    error = float(np.abs(product / (a.astype(np.float64) @ b.astype(np.float64)) - 1).max())
    return {"largest relative error of a float32 product": error, "no TF32": error < 2e-6}


def references(day: Day) -> dict[str, Any]:
    """Compare whole solves with the stored lattices of ITK and ANTs."""
    with np.load(ROOT / "tests" / "reference" / "n4.npz") as stored:
        reference = dict(stored)
    names = [inputs.PHANTOM, *inputs.REAL]
    if day.quick:
        names = ["2D slice T1w", "spine T2*w, in-plane 4"]
    first, last = names[0], names[-1]
    jobs = [(first, "list", 0.0), (first, "on device", 0.0), (first, "batch", 0.0)]
    jobs += [(name, "on device", 0.0) for name in names[1:]]
    jobs += [(last, "list", 0.0)]
    jobs += [(first, "list", 1e-3), (last, "list", 1e-3), (first, "slabs", 0.0)]
    result: dict[str, Any] = {}
    for name, path, stop in jobs:
        key = f"{name}/{path}/{stop:g}"
        if not day.has_room(15):
            result[key] = "no time"
        elif (case := inputs.reference_case(name)) is None:
            result[key] = "no data"
        else:
            options = N4Options(
                shrink_factor=1, n_iterations=(50,) * 4, convergence_threshold=stop
            )
            mine = _solved(*case, plan(options, case[0].shape), path)
            result[key] = _compared(mine, reference, f"{name}/{stop:g}", case[1])
    return result


def _solved(image: np.ndarray, mask: np.ndarray, made: Plan, path: str) -> N4Result:
    """Solve by one of the ways that an image can be laid out."""
    if path == "batch":
        pairs = [image, 2 * image + 1], [mask] * 2, [None] * 2
        return estimate_batch(*pairs, plans=[made] * 2, together=True)[0]
    if path == "on device":
        return estimate(jnp.asarray(image), jnp.asarray(mask), plan=made, on_device=True)
    room = take(image, mask, None, made).n_bytes(3) if path == "slabs" else None
    return estimate(image, mask, plan=made, on_device=False, memory=room)


def _compared(
    mine: N4Result, reference: dict[str, np.ndarray], key: str, mask: np.ndarray
) -> dict[str, Any]:
    theirs = mine.log_field._replace(lattice=reference[f"{key}/lattice"])
    box = [(0, n) for n in mask.shape]
    ours, itk = (np.asarray(evaluate(each, box))[mask] for each in (mine.log_field, theirs))
    error = np.abs(np.expm1(itk.astype(np.float64) - ours))
    values = np.array([error.mean(), np.quantile(error, 0.99), error.max()])
    close = (values <= np.maximum(BOUNDS, 3 * reference[f"{key}/itk_itself"])).all()
    counts = tuple(map(int, reference[f"{key}/n_iterations"]))
    return {
        "within": bool(close) and counts == tuple(mine.n_iterations),
        "mean p99 max": [float(f"{value:.2e}") for value in values],
        "iterations": list(mine.n_iterations),
        "iterations of ITK": list(counts),
    }


def repeats(day: Day) -> dict[str, Any]:
    """Run solves again and again and compare their bits."""
    sizes, n, result = day.sizes, 3 if day.quick else 10, {}
    full = inputs.head(sizes.shape, sizes.semi_axes)
    small = inputs.head(sizes.small_shape, sizes.small_semi_axes)
    loops = {
        name: Loop(day, *full, sizes.full, on_device=name == "whole rows")
        for name in ("list", "whole rows")
    }
    options = {"on_device": True, "zooms": SMALL_ZOOMS}
    loops["batch"] = Loop(day, *small, sizes.fmriprep, n=sizes.batch, **options)
    for name, loop in loops.items():
        digests = [digest(loop.run().lattice) for _ in range(n)]
        result[name] = {"repeats": n, "distinct": len(set(digests)), "digest": digests[0]}
    few = [inputs.head(sizes.small_shape, sizes.small_semi_axes, i) for i in range(8)]
    companies = (few, few[:1], few[:2], [few[0], *few[:4:-1]])
    digests = [digest(shared(company, sizes.fmriprep)[0]) for company in companies]
    result["shared solve"] = {"companies": len(companies), "distinct": len(set(digests))}
    lattices = np.asarray(loops["batch"].run().lattice)
    alone = np.asarray(Loop(day, *small, sizes.fmriprep, **options).run().lattice)
    result["batch: all images alike give one lattice"] = len({digest(a) for a in lattices}) == 1
    difference = float(np.abs(lattices[0] - alone).max())
    result["batch: largest difference from one alone"] = difference
    return result


def other_processes(day: Day) -> dict[str, Any]:
    """Solve in other processes, which choose matrix products anew by timing them."""
    result: dict[str, Any] = {}
    for name, flags in OTHERS if day.on_gpu else OTHERS[:2]:
        if not day.has_room(25):
            result[name] = "no time"
            continue
        given = os.environ.get("XLA_FLAGS", "")
        words = ["--child", *(["--quick"] if day.quick else [])]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_day", *words],
            env={**os.environ, "XLA_FLAGS": f"{given} {flags}".strip()},
            capture_output=True,
            text=True,
            timeout=min(600, max(20, day.left() - 5)),
            check=False,
            cwd=ROOT,
        )
        lines = done.stdout.strip().splitlines()
        result[name] = json.loads(lines[-1]) if done.returncode == 0 else done.stderr[-300:]
        day.save()
    return result


def child(day: Day) -> dict[str, Any]:
    """Return what another process finds: the digest of a lattice, and the time of an iteration."""
    loop = Loop(
        day, *inputs.head(day.sizes.shape, day.sizes.semi_axes), day.sizes.full, on_device=True
    )
    return {"digest": digest(loop.run().lattice), **loop.per_iteration()}
