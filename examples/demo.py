"""Simulate a BIDS dataset with known bias fields, correct it, compare with the truth.

    python examples/demo.py [DIR]

DIR (default: demo) gets `bids`, the simulated dataset, and `derivatives`, what n4ax-bids made of
it. The exit status is not 0 if anything failed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np

from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.phantoms import GREY, WHITE, Item, make_dataset

MARK = ".made-by-demo"
"""file that shows that a folder may be emptied"""


class Evenness(NamedTuple):
    """How even the tissues of one image are."""

    white: float
    """coefficient of variation of white matter"""
    grey: float
    joint: float
    """coefficient of joint variation of the two"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=Path("demo"))
    parser.add_argument("--step", type=int, default=1, help="voxel size in mm (default: 1)")
    arguments = parser.parse_args()
    raw, out = arguments.directory / "bids", arguments.directory / "derivatives"
    mark = arguments.directory / MARK
    if arguments.directory.exists() and not mark.exists() and any(arguments.directory.iterdir()):
        parser.error(
            f"{arguments.directory}: not empty and not made by this demo; expected a new folder"
        )
    for folder in (raw, out):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo
    arguments.directory.mkdir(parents=True, exist_ok=True)
    mark.touch()

    print(f"simulating a BIDS dataset in {raw}", flush=True)
    items = make_dataset(raw, step=arguments.step)
    words = ["n4ax_bids", str(raw), str(out), "participant"]
    print(f"\n$ n4ax-bids {' '.join(words[1:])}", flush=True)
    start = time.perf_counter()
    status, seconds = run([sys.executable, "-m", *words])
    print(f"exit status {status}, {time.perf_counter() - start:.1f} s in all\n", flush=True)

    rows = [row(item, raw, out, seconds) for item in items]
    show(rows)
    return status or int(any(len(r) == 2 for r in rows))


def run(command: list[str]) -> tuple[int, dict[str, str]]:
    """Run the program and show its log; return its status and the seconds it took per image."""
    seconds = {}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", flush=True)
            if done := re.search(r"(\S+): corrected in ([\d.]+) s", line):
                seconds[done[1]] = done[2]
    return process.returncode, seconds


def row(item: Item, raw: Path, out: Path, seconds: dict[str, str]) -> list[str]:
    """One line of the table; two cells where there is nothing to compare."""
    stem = item.image.name.removesuffix(".gz").removesuffix(".nii")
    entities, _, suffix = stem.rpartition("_")
    folder = out / item.image.relative_to(raw).parent
    made = [folder / f"{entities}_desc-{what}_{suffix}.nii.gz" for what in OUTPUTS]
    missing = [path.name for path in made if not path.is_file()]
    if missing:
        return [stem, f"no {' and no '.join(missing)}"]
    image, corrected, field = map(read, (item.image, *made))
    labels, mask = read(item.labels), read(item.mask) > 0
    before, after = (evenness(volume, labels) for volume in (image, corrected))
    error = field_error(np.log(field), read(item.log_field), mask)
    cells = [f"{a:.3f} → {b:.3f}" for a, b in zip(before, after, strict=True)]
    return [stem, f"{error.correlation:.3f}", *cells, seconds.get(stem, "?")]


OUTPUTS = ("biascorr", "biasfield")


def read(path: Path) -> np.ndarray:
    return np.asarray(nb.load(path).dataobj)


def evenness(image: np.ndarray, labels: np.ndarray) -> Evenness:
    white, grey = labels == WHITE, labels == GREY
    return Evenness(
        coefficient_of_variation(image, white),
        coefficient_of_variation(image, grey),
        joint_variation(image, white, grey),
    )


HEADINGS = ("image", "r", "CV white", "CV grey", "CJV", "seconds")
EXPLANATION = """
r: correlation of the recovered and the true log field in the brain. CV: coefficient of variation
of a tissue; CJV: coefficient of joint variation of white and grey matter; before → after. The
first image's seconds hold the compilation of the solve."""


def show(rows: list[list[str]]) -> None:
    table = [list(HEADINGS), *rows]
    full = [r for r in table if len(r) == len(HEADINGS)]
    widths = [max(len(r[column]) for r in full) for column in range(len(HEADINGS))]
    for cells in table:
        padded = zip(cells, widths, strict=False)
        print("  ".join(f"{cell:<{width}}" for cell, width in padded).rstrip())
    print(EXPLANATION)


if __name__ == "__main__":
    sys.exit(main())
