"""What all benchmarks share: flags, the machine in words, clocks, and the page that they write.

Nothing but jax and numpy is needed; what a peer or a file format needs is asked for by `has`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import TypeVar

import jax
import numpy as np

import n4ax_bids
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "benchmarks"
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
"""of each program"""
PEERS = {"SimpleITK": "SimpleITK", "antspyx": "ants"}
"""packages and the modules that they install"""


def arguments(
    name: str, about: str, argv: Sequence[str] | None = None, *flags: str
) -> argparse.Namespace:
    """Read the flags that every benchmark has, and switches of its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N (default: cpu)")
    parser.add_argument("--image", type=Path, metavar="FILE.npy", help="instead of the usual one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", type=Path, help="folder for the page (default: docs/benchmarks)")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args(argv)
    words = [f"--device={given.device}"] if given.device != "cpu" else []
    words += [f"--image={given.image.name}"] if given.image else []
    words += [flag for flag in ("--quick", *flags) if getattr(given, flag.strip("-"))]
    given.name, given.command = name, shlex.join(["python", "-m", f"benchmarks.{name}", *words])
    return given


@contextmanager
def computing_on(name: str, *, quick: bool = False) -> Iterator[jax.Device]:
    """Compute on a device; programs of earlier processes are looked for only to be quick."""
    found = devices.resolve(name)
    jax.config.update("jax_enable_compilation_cache", quick)
    with compilation.kept() if quick else nullcontext(), jax.default_device(found):
        yield found


def placed(array: np.ndarray, device: jax.Device) -> np.ndarray | jax.Array:
    """Return what a caller would have: a numpy array for the CPU, else one on the device."""
    return array if device.platform == "cpu" else jax.device_put(array, device)


def has(*modules: str) -> bool:
    """Say whether modules are installed, without importing them."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what a call makes, once it is there, and its seconds."""
    start = time.perf_counter()
    made = jax.block_until_ready(call())
    return made, time.perf_counter() - start


def in_turn(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median seconds of each call; the calls take turns."""
    rounds = [[timed(call)[1] for call in calls] for _ in range(repeats)]
    return [median(each) for each in zip(*rounds, strict=True)]


def publish(given: argparse.Namespace, title: str, lines: Iterable[str]) -> None:
    """Print a page line by line as it comes, long ones wrapped, then write it.

    On a device other than the CPU it is a page of its own. Quick figures mean nothing: they are
    written only where a folder is named.
    """
    page = []
    for line in chain((f"# {title}", "", *heading(given), ""), lines):
        hanging = "  " if line.startswith("- ") else ""
        if not line.startswith("|"):
            line = fill(line, 98, subsequent_indent=hanging, break_on_hyphens=False)
        print(line, flush=True)
        page.append(line)
    folder = given.out or (None if given.quick else PAGES)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(page) + "\n"
        folder.joinpath(f"{page_name(given)}.md").write_text(text, encoding="utf-8")


def page_name(given: argparse.Namespace) -> str:
    """Return the page's name without suffix, e.g. "speed" or "speed-gpu"."""
    kind = given.device.partition(":")[0]
    return given.name if kind == "cpu" else f"{given.name}-{kind}"


def plot_path(given: argparse.Namespace) -> Path | None:
    """Return where the page's plot belongs; None where no page is written."""
    folder = given.out or (None if given.quick else PAGES)
    return folder and folder / f"{page_name(given)}.svg"


def heading(given: argparse.Namespace) -> list[str]:
    """Say how a page was made, where, with what and when."""
    used = devices.describe(devices.resolve(given.device))
    lines = [
        f"Written by `{given.command}` on {date.today()}.",
        "",
        f"- machine: {processor()}, {THREADS} of {os.cpu_count()} cores used by each program, "
        f"{memory() / 2**30:.0f} GiB memory; computed on {used}",
        f"- versions: {', '.join(versions())}",
    ]
    missing = [name for name, module in PEERS.items() if not has(module)]
    if missing:
        lines.append(f"- not installed, so left out: {', '.join(missing)}")
    if given.quick:
        lines.append("- quick: tiny sizes, figures without meaning")
    return lines


def versions() -> list[str]:
    """Name each package and its version, where it is installed."""
    found = [f"n4ax_bids {n4ax_bids.__version__}", f"Python {platform.python_version()}"]
    for name in ("jax", "jaxlib", "numpy", *PEERS):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Return the processor's name."""
    names = _entries("/proc/cpuinfo", "model name")
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> int:
    """Return the bytes of memory of this machine, 0 where it does not say."""
    found = _entries("/proc/meminfo", "MemTotal")
    return int(found[0].split()[0]) * 1024 if found else 0


def _entries(path: str, name: str) -> list[str]:
    file = Path(path)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]


def head(*names: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*names), "|" + " --- |" * len(names)]


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def figure(value: float | None) -> str:
    """Show three digits; a dash for what was not measured."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{digits}f}"


def ratio(one: float | None, other: float | None) -> str:
    """Show how many times as large one is as the other."""
    return "–" if one is None or other is None else f"{figure(one / other)}×"


def size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
