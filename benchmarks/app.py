"""Throughput of the App: a BIDS dataset of real-size images, files in to files out.

`python -m benchmarks.app` makes N images of the MNI152 phantom (1 mm, int16, .nii.gz, each with
its own field and noise), runs `n4ax-bids` on them in processes of their own, and prints what a run
takes beside what its solves and its processor time alone would take. Compiled programs are kept
from a first run on, which is shown apart.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.machine import processor

STAGES = ("decode", "mask", "solve", "divide", "encode")
CORES = len(os.sched_getaffinity(0))
RUN = """
import sys
from n4ax_bids.app.cli import main
if __name__ == "__main__":
    status = main(sys.argv[1:])
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            print("peak", line.split()[1], file=sys.stderr)
    sys.exit(status)
"""
"""The program, and its own peak memory: that of a child would count its parent's at the fork."""
MAKE = """
import sys
from benchmarks.app import make_dataset
make_dataset(sys.argv[1], int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Run:
    """What one run of the program took."""

    n_images: int
    wall: float
    """from the start of the process to its end, s"""
    cpu: float
    """of all its threads, s"""
    peak: float
    """resident memory, MB"""
    stages: dict[str, float]
    """sum over the images of the wall time of each stage, s"""

    @property
    def bound(self) -> float:
        """What the run takes at least: all solves, or all processor time on all cores."""
        return max(self.stages["solve"], self.cpu / CORES)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app", description=__doc__)
    parser.add_argument("-n", type=int, default=32, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("flags", nargs="*", help="flags for n4ax-bids, behind --")
    arguments = parser.parse_args(argv)
    flags = arguments.flags or ["--device", "cpu"]
    text = tables(arguments.n, arguments.repeats, flags)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


def tables(n: int, repeats: int, flags: Sequence[str]) -> str:
    """Run all, print each line as it is known, and return the text."""
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    few = max(1, n // 4)
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "nipype", "isal"))
    say("# The App over a dataset\n")
    say(f"Written by `python -m benchmarks.app --out docs/benchmarks/app.md` on {date.today()}.\n")
    say(f"{processor()}, {CORES} cores; {versions}.\n")
    say(
        f"`n4ax-bids … {' '.join(flags)}`, reports and validation off, {n} images of "
        "197 × 233 × 189 voxels\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # In a process of its own: memory of this one would be counted to its children.
        subprocess.run([sys.executable, "-c", MAKE, str(root / "raw"), str(n)], check=True)
        cold = run(root, few, flags)
        runs = [run(root, n, flags) for _ in range(repeats)]
        small = run(root, few, flags)
        # The second one: compiling is not bound to one core.
        _, one = (run(root, few, [*flags, "--omp-nthreads", "1"]) for _ in range(2))

    say("*Bound*: the larger of two times: the sum of the solves (two at the same time share the")
    say("cores, so each takes longer), and the CPU time of all threads / the number of cores.\n")
    say("| run | images/s | wall, s | solves, s | CPU s / cores | wall / bound | peak, MB |")
    say("|" + " --- |" * 7)
    named = [(f"{few} images, nothing compiled yet", cold)]
    named += [(f"{n} images", each) for each in runs] + [(f"{few} images", small)]
    for name, each in named:
        say(
            f"| {name} | {each.n_images / each.wall:.2f} | {each.wall:.1f} "
            f"| {each.stages['solve']:.1f} | {each.cpu / CORES:.1f} "
            f"| {each.wall / each.bound:.2f} | {each.peak:.0f} |"
        )
    ratio = median(each.wall / each.bound for each in runs)
    peak = median(each.peak for each in runs)
    say(f"\nMedian of {repeats}: wall / bound {ratio:.2f};")
    say(f"peak memory for {n} images / that for {few}: {peak / small.peak:.2f}.")
    say(f"`--omp-nthreads 1`: {one.cpu / one.wall:.2f} cores used over the whole run.\n")
    say("| stage | s an image | share |\n| --- | --- | --- |")
    total = Counter()
    for each in runs:
        total.update(each.stages)
    for stage in STAGES:
        seconds, share = total[stage] / (n * repeats), total[stage] / total.total()
        say(f"| {stage} | {seconds:.3f} | {share:.0%} |")
    return "\n".join(lines) + "\n"


def make_dataset(path: str, n: int) -> None:
    """Write a BIDS dataset of n real-size images, subject by subject."""
    import nibabel as nb
    import numpy as np

    from n4ax_bids.phantoms import mni152, mni152_affine

    for number in range(1, n + 1):
        made = mni152("T1w", number, "coils", 0.4)
        file = Path(path, f"sub-{number:02}", "anat", f"sub-{number:02}_T1w.nii.gz")
        file.parent.mkdir(parents=True)
        stored = np.rint(1000 * made.image).astype(np.int16)
        nb.Nifti1Image(stored, mni152_affine()).to_filename(file)
    description = '{"Name": "throughput", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
    Path(path, "dataset_description.json").write_text(description)


def run(root: Path, n: int, flags: Sequence[str]) -> Run:
    """Run the program on the first n images, in a process of its own."""
    labels = [f"{number:02}" for number in range(1, n + 1)]
    off = ("--no-reports", "--skip-bids-validation")
    words = [str(root / "raw"), str(root / "out"), "participant", "-v", *off, *flags]
    environment = {**os.environ, "N4AX_CACHE_DIR": str(root / "programs")}
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words, "--participant-label", *labels],
        env=environment,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    shutil.rmtree(root / "out", ignore_errors=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    records = [ast.literal_eval(found) for found in re.findall(r"DEBUG .*?: (\{.*)", done.stderr)]
    return Run(
        n_images=len(records),
        wall=wall,
        cpu=sum(after[2:4]) - sum(before[2:4]),
        peak=int(re.search(r"^peak (\d+)", done.stderr, re.MULTILINE)[1]) / 1024,
        stages={stage: sum(r["seconds"][stage] for r in records) for stage in STAGES},
    )


if __name__ == "__main__":
    main()
