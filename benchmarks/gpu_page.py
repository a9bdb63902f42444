"""The page of the days with a GPU: docs/benchmarks/gpu.md, from the results of `gpu_day`.

    python -m benchmarks.gpu_page

Each JSON in docs/benchmarks/gpu is one run of `benchmarks.gpu_day`, with its date, the commit that
was measured and what had changed; the page shows them side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.machine import PAGES, head, row

GOALS = {
    "full, whole rows, device arrays": 15.0,
    "n4() with its own mask, device array to device array": 15.0,
    "shrink 4, whole rows, device arrays": 15.0,
    "batch of 16 at shrink 4, device arrays": 24.0,
}
"""milliseconds on an H200"""
KERNELS = 12
"""of the longest, in the table"""
Run = dict[str, Any]


def main() -> None:
    runs = [json.loads(path.read_text()) for path in sorted((PAGES / "gpu").glob("*.json"))]
    text = "\n".join(page(runs)) + "\n"
    (PAGES / "gpu.md").write_text(text, encoding="utf-8")


def page(runs: list[Run]) -> Iterator[str]:
    yield "# On a GPU"
    yield ""
    yield "Written by `python -m benchmarks.gpu_page` from the results of `benchmarks.gpu_day` in"
    yield "[gpu/](gpu/). A part that a run had no time for, or that failed, has no figure."
    yield ""
    yield from head("run", "date", "device", "versions", "commit", "what was measured")
    for number, run in enumerate(runs, 1):
        machine = run["parts"]["machine"]
        gpu = f"{machine['nvidia-smi'].split(',')[0]}, {machine['cores']} cores"
        versions = f"jax {machine['jax']}, Python {machine['python']}"
        yield row(str(number), run["date"], gpu, versions, run["commit"], run["about"])
    yield from ("", "## Whole calls", "")
    yield (
        "Milliseconds, median (first call). 256×176×256 voxels, 2.0 million in the mask, 150 "
        "iterations; at shrink 4, 64×44×64 voxels, preset `fmriprep`, 250 iterations."
    )
    yield ""
    yield from calls(runs)
    yield from ("", "## Is it exact?", "")
    yield from exactness(runs)
    yield from ("", "## The loop alone", "")
    yield from loops(runs)
    yield from ("", "## Choices", "")
    yield from candidates(runs)
    yield from ("", "## Kernels of an iteration", "")
    yield from kernels(runs)
    yield from ("", "## Peers on the same device", "")
    yield from peers(runs)
    yield from ("", "## Other methods", "")
    yield from methods(runs)
    yield from ("", "## The App, files to files", "")
    yield from app(runs)


def part(run: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = run["parts"].get(name, {})
    return found


def numbers(runs: list[Run]) -> list[str]:
    return [f"run {number}" for number in range(1, len(runs) + 1)]


def calls(runs: list[Run]) -> Iterator[str]:
    yield from head("call", *numbers(runs), "goal")
    every = {name: found for run in runs for name, found in part(run, "calls").items()}
    names = [name for name, found in every.items() if "median_ms" in str(found)]
    for name in names:
        shown = []
        for run in runs:
            found = part(run, "calls").get(name)
            known = isinstance(found, dict)
            shown.append(f"{found['median_ms']:.1f} ({found['cold_ms']:.0f})" if known else "")
        goal = GOALS.get(name)
        yield row(name, *shown, "" if goal is None else f"≤ {goal:g}")


def exactness(runs: list[Run]) -> Iterator[str]:
    yield (
        "Relative difference from the stored fields of ITK and ANTs inside the mask: mean, 99th "
        "percentile and maximum. The limits are 5e-5, 2e-4 and 5e-4, or three times ITK's own "
        "difference between two of its builds; ✗ marks what is beyond them."
    )
    yield ""
    yield from head("case / path / threshold", *numbers(runs))
    for name in part(runs[0], "references"):
        shown = []
        for run in runs:
            found = part(run, "references").get(name)
            words = " / ".join(f"{value:.1e}" for value in found["mean p99 max"]) if found else ""
            shown.append(words + ("" if not found or found["within"] else " ✗"))
        yield row(name, *shown)
    yield ""
    yield "Parts of an iteration whose bits are those of the CPU, of 2.1 million values:"
    yield ""
    yield from head("part", *numbers(runs))
    for name, found in part(runs[-1], "primitives").items():
        if isinstance(found, dict):
            each = [part(run, "primitives").get(name, {}) for run in runs]
            yield row(name, *(_equal(one) for one in each))
    yield ""
    for number, run in enumerate(runs, 1):
        same = part(run, "repeats")
        if same:
            distinct = [f"{k}: {v['distinct']}" for k, v in same.items() if isinstance(v, dict)]
            yield f"- Run {number}: distinct results of ten solves: {', '.join(distinct)}."
        digests = {
            found["digest"] for found in part(run, "processes").values() if "digest" in found
        }
        n = sum("digest" in found for found in part(run, "processes").values())
        if n > 1:
            yield f"- Run {number}: {n} processes, {len(digests)} distinct result(s)."


def _equal(found: dict[str, Any]) -> str:
    if not found:
        return ""
    n = f" ({found['n']} values)" if found.get("n") else ""
    return "equal" if found["equal"] else f"differ by {found['max']:.1e}{n}"


def loops(runs: list[Run]) -> Iterator[str]:
    yield "Microseconds an iteration, and milliseconds of the whole loop."
    yield ""
    yield from head("form", *numbers(runs))
    names = dict.fromkeys(name for run in runs for name in part(run, "iterations"))
    for name in names:
        each = [part(run, "iterations").get(name) for run in runs]
        yield row(
            name,
            *(
                f"{one['us_per_iteration']:.0f} µs, {one['whole']['median_ms']:.1f} ms"
                if isinstance(one, dict)
                else ""
                for one in each
            ),
        )


def candidates(runs: list[Run]) -> Iterator[str]:
    yield (
        "Milliseconds of the whole loop with one choice taken back. In run 1, “as it is” was one "
        "CUDA graph; in run 2 it was the compiler's usual graphs."
    )
    yield ""
    yield from head("choice", *numbers(runs))
    names = dict.fromkeys(name for run in runs for name in part(run, "candidates"))
    for name in names:
        each = [part(run, "candidates").get(name) for run in runs]
        shown = [_whole(one) for one in each]
        if any(shown):
            yield row(name, *shown)


def _whole(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    if "whole" in found:
        return f"{found['whole']['median_ms']:.1f}"
    each = found["us_per_iteration"]
    return f"{each:.0f} µs an iteration" if each > 5 else ""


def kernels(runs: list[Run]) -> Iterator[str]:
    yield (
        "Without graphs, in which the profiler misses some. Microseconds of the longest; what "
        "runs once a level is left out."
    )
    for number, run in enumerate(runs, 1):
        for case, found in part(run, "kernels").items():
            if not isinstance(found, dict) or "each" not in found:
                continue
            yield ""
            yield (
                f"Run {number}, {case}: {found['kernels an iteration']:.0f} kernels, "
                f"{found['us an iteration']:.0f} µs an iteration."
            )
            yield ""
            yield from head("kernel", "µs")
            for name, (_, each) in list(found["each"].items())[:KERNELS]:
                yield row(f"`{name}`", f"{each:.1f}")


def peers(runs: list[Run]) -> Iterator[str]:
    yield (
        "The same image, mask and 150 iterations, device array to device array. *Difference*: of "
        "the corrected image from ours, the scale removed."
    )
    yield ""
    yield from head("run", "program", "ms (first call)", "times ours", "difference, mean / max")
    for number, run in enumerate(runs, 1):
        for name, found in part(run, "peers").items():
            if not isinstance(found, dict):
                continue
            off = [found.get(f"difference from ours, {kind}") for kind in ("mean", "max")]
            yield row(
                str(number),
                name,
                f"{found['median_ms']:.1f} ({found['cold_ms']:.0f})",
                f"{found.get('times ours', 1):g}",
                "" if off[0] is None else f"{off[0]:.1e} / {off[1]:.1e}",
            )


def methods(runs: list[Run]) -> Iterator[str]:
    yield (
        "Milliseconds (first call) on the device and on all cores of the same machine, and the "
        "largest difference of ln b or of the field between both."
    )
    yield ""
    yield from head("run", "method", "GPU", "CPU", "largest difference")
    for number, run in enumerate(runs, 1):
        for name, found in part(run, "methods").items():
            if "device" in found:
                times = (found[place] for place in ("device", "cpu"))
                shown = (f"{one['median_ms']:.0f} ({one['cold_ms']:.0f})" for one in times)
                yield row(str(number), name, *shown, f"{found['largest difference']:.1e}")


def app(runs: list[Run]) -> Iterator[str]:
    columns = {
        "images/s": "images a second",
        "images/s from the first to the last": "images a second from the first to the last",
        "first image after, s": "first image after, s",
        "CPU s an image": "CPU s an image",
        "of these in the system": "system s an image",
        "MiB written": "MiB written",
    }
    yield (
        "`n4ax-bids … --mask otsu`, corrected image and field written; images/s and CPU seconds "
        "of whole processes."
    )
    yield ""
    yield from head("run", "case", *columns)
    for number, run in enumerate(runs, 1):
        found = part(run, "app")
        for case, one in found.items():
            if isinstance(one, dict):
                shown = (f"{one[name]:g}" if name in one else "" for name in columns.values())
                yield row(str(number), f"{case}, {found['images']} images", *shown)


if __name__ == "__main__":
    main()
