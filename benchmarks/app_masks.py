"""Throughput of the App with the mask that it finds by default beside that with Otsu's.

`python -m benchmarks.app_masks` copies a real 1 mm head N times into a BIDS dataset (the phantom
of `benchmarks.app` where there is no such head) and runs `n4ax-bids` on it with `--mask otsu` and
`--mask auto` in turn, each in a process of its own. Compiled programs are kept from runs before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nibabel as nb
import numpy as np

from benchmarks.app import CORES, MAKE, Run, run
from benchmarks.images import DATA, HEAD
from benchmarks.machine import ROOT, head, processor, row

PAGE = ROOT / "docs" / "benchmarks" / "app-masks.md"
MASKS = ("otsu", "auto")
HEADS = (DATA / "labelled" / "aomic-piop2-0001" / "image.nii.gz", DATA / HEAD)
"""the first of them that is there is used"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_masks", description=__doc__)
    parser.add_argument("-n", type=int, default=16, help="images (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=3, help="of runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=PAGE, help="file of the page")
    parser.add_argument("flags", nargs="*", help="flags for n4ax-bids, behind --")
    given = parser.parse_args(argv)
    said = []
    for line in lines(given.n, given.pairs, given.flags or ["--device", "cpu"]):
        print(line, flush=True)
        said.append(line)
    given.out.write_text("\n".join(said) + "\n", encoding="utf-8")


def lines(n: int, n_pairs: int, flags: Sequence[str]) -> Iterator[str]:
    """Run all, and yield each line of the page as it is known."""
    source = next((path for path in HEADS if path.exists()), None)
    name = "the MNI152 phantom" if source is None else f"`{source.relative_to(DATA)}`"
    versions = ", ".join(f"{each} {version(each)}" for each in ("jax", "numpy", "nipype", "isal"))
    yield "# The App with and without a search for the brain\n"
    yield f"Written by `python -m benchmarks.app_masks` on {date.today()}.\n"
    yield f"{processor()}, {CORES} cores; {versions}.\n"
    yield (
        f"`n4ax-bids … {' '.join(flags)} --mask …`, reports and validation off, {n} images. "
        f"Each is a copy of {name} in which one voxel differs. The two masks took turns."
    )
    yield ""
    quantities = ("images/s", "CPU s an image", "peak, MB")
    columns = [f"{mask}: {what}" for what in quantities for mask in MASKS]
    yield from head("pair", *columns, "auto / otsu, images/s", "mask, s an image")
    ratios, costs, shares = [], [], []
    for number, pair in enumerate(pairs(source, n, n_pairs, flags), 1):
        pace = [each.n_images / each.wall for each in pair]
        cost = [each.cpu / each.n_images for each in pair]
        search = pair[1].stages["mask"] / n
        ratios.append(pace[1] / pace[0])
        costs.append(cost[1] - cost[0])
        shares.append(cost[0] / cost[1])
        numbers = [f"{each:.2f}" for each in (*pace, *cost)]
        numbers += [f"{each.peak:.0f}" for each in pair]
        yield row(number, *numbers, f"{ratios[-1]:.2f}", f"{search:.2f}")
    yield ""
    yield (
        f"Median of {n_pairs} pairs: with `--mask auto` the App has {median(ratios):.0%} of the "
        f"throughput that it has with `--mask otsu`, and takes {median(costs):.2f} more CPU "
        f"seconds per image. The ratio of CPU seconds alone is {median(shares):.0%}; other work "
        "on the machine hardly changes it."
    )


def pairs(
    source: Path | None, n: int, n_pairs: int, flags: Sequence[str]
) -> Iterator[tuple[Run, ...]]:
    """Yield what a run with each mask took, after a short run with each that compiles."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if source is None:
            subprocess.run([sys.executable, "-c", MAKE, str(root / "raw"), str(n)], check=True)
        else:
            copies(source, root / "raw", n)
        for mask in MASKS:
            run(root, 2, [*flags, "--mask", mask])
        for _ in range(n_pairs):
            yield tuple(run(root, n, [*flags, "--mask", mask]) for mask in MASKS)


def copies(source: Path, raw: Path, n: int) -> None:
    """Make a BIDS dataset of n copies of an image; each differs from the others in one voxel.

    A mask that was found in one file would serve for its exact copies as well.
    """
    read = nb.load(source)
    data = np.asarray(read.dataobj).copy()
    for number in range(1, n + 1):
        label = f"sub-{number:02}"
        path = raw / label / "anat" / f"{label}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        data.flat[0] = number
        nb.Nifti1Image(data, read.affine, read.header).to_filename(path)
    description = '{"Name": "throughput", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
    raw.joinpath("dataset_description.json").write_text(description)


if __name__ == "__main__":
    main()
