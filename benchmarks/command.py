"""One image by the command: from the start of the process to the file on disk.

`n4ax-n4` with nothing compiled yet, with its programs kept from an earlier run, and the ANTs
program, with the same words and on as many threads, at every preset.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import images
from benchmarks.machine import (
    ROOT,
    THREADS,
    arguments,
    figure,
    has,
    head,
    publish,
    ratio,
    row,
    size,
    timed,
)
from benchmarks.peers import ants_n4
from n4ax_bids.options import PRESETS, N4Options

WARM = 5
SOON = 20.0
"""s; what ANTs does in less it does three times"""
ANTS_SECONDS = 3e-6
"""that ANTs takes for a voxel in an iteration, about: to choose a size that it can finish"""
LONGEST = 60.0
"""s, about, that ANTs may take at full resolution"""
QUICK = ("fast",)


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("command", __doc__, argv)
    if not has("nibabel", "SimpleITK", "isal"):
        print("needs nibabel, SimpleITK and isal, as the command does: left out")
        return
    publish(given, "Time of the command for one image", page(given))


def page(given: argparse.Namespace) -> Iterator[str]:
    image = images.usual(given)
    yield (
        f"Image: {image.name}, {size(image.values.shape)}, int16, .nii.gz. There is no mask, as "
        "by default in ANTs, so all voxels take part. Times are from the start of the process to "
        "the written file. *Empty cache*: nothing is compiled yet, one run; *warm cache*: with "
        f"the programs that this run has compiled, median of {1 if given.quick else WARM}. ANTs: "
        f"one run, or the median of three if it takes less than {SOON:.0f} s. Ratios: ANTs / ours."
    )
    yield ""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        start = 0.0 if has("ants") else None
        if not given.quick:
            _warm_up()
        if has("ants") and not given.quick:
            start = median(ants_n4("--version") for _ in range(3))
            yield (
                f"Python starts the ANTs program. This takes {figure(start)} s (its `--version`, "
                "median of 3) that the program by itself would not need, so this time is "
                "subtracted. The start of our own command is counted."
            )
            yield ""
        yield from head(
            "preset", "shape", "empty cache, s", "warm cache, s", "ANTs, s", "empty", "warm"
        )
        known: dict[tuple, float] = {}
        for name in QUICK if given.quick else PRESETS:
            yield one_preset(name, image, folder, start, known, given)
    yield ""
    yield (
        "At full resolution with all iterations, ANTs would take up to an hour. In this case both "
        "programs get every n-th voxel of the image, with the smallest n for which ANTs needs "
        f"about {LONGEST:.0f} s or less. The preset `fast` over-relaxes, which ANTs cannot do. "
        "Here both run the same number of iterations without over-relaxation; the factor changes "
        "the result of an iteration, not its time. Presets with the same ANTs arguments share one "
        "measured time."
    )


def one_preset(
    name: str,
    image: images.Image,
    folder: Path,
    start: float | None,
    known: dict[tuple, float],
    given: argparse.Namespace,
) -> str:
    """Time one preset and return its row; what ANTs took is kept in `known`, by its words."""
    options = PRESETS[name]
    step = coarsest_needed(options, image.values.size)
    path, shape = write(image, step, folder)
    words = ["-i", path, "-o", folder / "out.nii.gz", *ants_words(options)]
    if given.quick:
        words += ["-c", "[2x1,0]"]
    cache = folder / f"programs-{name}"
    call = partial(ours, words, cache, given.device)
    empty = timed(call)[1]
    warm = median(timed(call)[1] for _ in range(1 if given.quick else WARM))
    theirs = None
    if start is not None:
        if tuple(words) not in known:
            known[tuple(words)] = ants(words, given.quick)
        theirs = max(0.0, known[tuple(words)] - start)
    return row(
        f"`{name}`",
        size(shape) + (f" (n = {step})" if step > 1 else ""),
        figure(empty),
        figure(warm),
        figure(theirs),
        ratio(theirs, empty),
        ratio(theirs, warm),
    )


def coarsest_needed(options: N4Options, n_voxels: int) -> int:
    """Return which every n-th voxel of an image ANTs can finish in time."""
    if options.shrink_factor > 1 or options.convergence_threshold > 1e-6:
        return 1
    step = 1
    while n_voxels / step**3 * sum(options.n_iterations) * ANTS_SECONDS > LONGEST:
        step += 1
    return step


def ants_words(options: N4Options) -> list[str]:
    """Return options in the words of the ANTs program; over-relaxation has none."""
    iterations = "x".join(map(str, options.n_iterations))
    words = ["-d", "3", "-s", str(options.shrink_factor)]
    words += ["-c", f"[{iterations},{options.convergence_threshold:g}]"]
    if options.bspline_fitting_distance is not None:
        words += ["-b", f"[{options.bspline_fitting_distance:g}]"]
    return words


def write(image: images.Image, step: int, folder: Path) -> tuple[Path, tuple[int, ...]]:
    """Write every n-th voxel of an image and return its path and shape."""
    import nibabel as nb

    values = image.values[(slice(None, None, step),) * 3]
    scale = 1 if values.max() > 100 else 1000
    affine = image.affine @ np.diag([step, step, step, 1])
    path = folder / f"every{step}.nii.gz"
    nb.Nifti1Image(np.rint(scale * values).astype(np.int16), affine).to_filename(path)
    return path, values.shape


def ours(words: Sequence[str | Path], cache: Path, device: str) -> None:
    """Run `n4ax-n4` as its script does, with a cache folder of its own."""
    call = [
        sys.executable,
        "-m",
        "n4ax_bids.commands.ants_cli",
        *map(str, words),
        "--device",
        device,
    ]
    subprocess.run(call, check=True, env=_environment(cache))


def ants(words: Sequence[str | Path], quick: bool) -> float:
    first = ants_n4(*words, threads=THREADS)
    more = 2 if first < SOON and not quick else 0
    return median([first, *(ants_n4(*words, threads=THREADS) for _ in range(more))])


def _warm_up() -> None:
    """Let the disk give its files, and Python compile its own, before anything is timed."""
    imports = "import n4ax_bids.commands.ants_cli, n4ax_bids.correct"
    subprocess.run([sys.executable, "-c", imports], check=True, env=_environment(None))


def _environment(cache: Path | None) -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    known = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    return {
        **known,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(THREADS),
        "N4AX_CACHE_DIR": str(cache or "off"),
    }


if __name__ == "__main__":
    main()
