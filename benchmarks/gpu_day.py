"""One day with a GPU: is it exact, the same each time, how fast, how much memory, what next?

    python -m benchmarks.gpu_day [--quick] [--budget 450] [--out FILE.json]

Needs jax with its CUDA plugin, numpy, scipy and pytest; nothing else of this project's needs.
Parts are done in the order of their worth; those that the budget has no room for are named under
"skipped". The results are one JSON, printed as the last line and written to --out after every
part. `--quick` rehearses everything at tiny sizes, also on a CPU, and leaves nothing out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import app, candidates, exactness, methods, times
from benchmarks.gpu.day import Day, as_json

LEAST = 25.0
"""seconds without which no part is begun that may need as many"""


class Part(NamedTuple):
    """A piece of the day."""

    name: str
    seconds: float
    """that it may take"""
    run: Callable[[Day], Any]
    about: str


PARTS = (
    Part("machine", 20, times.machine, "device, versions, copy, tiny loop"),
    Part("primitives", 30, exactness.primitives, "pieces equal those of the CPU, bit for bit"),
    Part("repeats", 70, exactness.repeats, "the same each time, bit for bit"),
    Part("calls", 90, times.calls, "times and memory of whole calls"),
    Part("references", 80, exactness.references, "stored lattices of ITK and ANTs"),
    Part("iterations", 45, times.iterations, "the compiled loop alone"),
    Part("candidates", 110, candidates.candidates, "the loop with parts replaced"),
    Part("peers", 70, methods.peers, "nitrix and n4ax, where they are installed"),
    Part("methods", 150, methods.methods, "every other method beside the CPU"),
    Part("app", 150, app.app, "the App, files to files"),
    Part("kernels", 40, times.kernels, "kernels of some iterations"),
    Part("statistic", 15, times.statistic_on_host, "ITK's statistic on the host"),
    Part("processes", 70, exactness.other_processes, "the same bits in another process?"),
    Part("tests", 60, times.tests, "tests that need no other package"),
)
"""in the order of their worth"""


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    budget = float("inf") if given.quick else given.budget
    day = Day(given.quick, budget, given.out)
    if given.child:
        print(as_json(exactness.child(day)))
        return 0
    for part in PARTS:
        if not given.only or part.name in given.only:
            _do(part, day, limited=not (given.only or given.quick))
    day.found["memory at the end"] = day.memory()
    day.save()
    print(as_json(day.found))
    return 1 if day.found["failed"] else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_day",
        description=__doc__,
        epilog="parts: " + "; ".join(f"{part.name}: {part.about}" for part in PARTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a rehearsal on a CPU")
    parser.add_argument("--budget", type=float, default=450.0, help="seconds (default: 450)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART", default=()
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _do(part: Part, day: Day, *, limited: bool) -> None:
    """Run a part, and note what it found or how it failed."""
    if day.left() < min(part.seconds, LEAST):
        day.found["skipped"].append(part.name)
        return
    start = time.perf_counter()
    day.deadline = start + part.seconds if limited else float("inf")
    try:
        day.found["parts"][part.name] = part.run(day)
    except Exception as error:
        day.found["failed"][part.name] = f"{type(error).__name__}: {error}"[:500]
        print(traceback.format_exc(), file=sys.stderr)
    day.found["took"][part.name] = took = round(time.perf_counter() - start, 1)
    print(f"{part.name}: {took} s", file=sys.stderr, flush=True)
    day.save()


if __name__ == "__main__":
    sys.exit(main())
