"""Files to files on a CPU: what the App takes for an image of 256×176×256, and where.

`python -m benchmarks.files` makes N phantoms (int16, .nii.gz), runs `n4ax-bids --mask otsu` on
them with the corrected image and the field written, and shows what leaving out the field, or
drawing reports, changes. With `--before FOLDER`, another checkout takes turns with this one: how
long an image takes depends on the machine, and both then see the same one. Last come the steps of
one image, and what compression costs at each level.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import nibabel as nb
import numpy as np

from benchmarks.machine import ROOT, arguments, figure, head, publish, row

SHAPE = (256, 176, 256)
MAKE = """
import sys
from benchmarks.files import make
make(sys.argv[1], int(sys.argv[2]))
"""
DECIDED = (
    "Level 1 is used: level 2 makes files of the same size and takes about as long, level 3 takes "
    "longer, level 0 makes larger ones. A field that is stored without compression would save "
    "most of its encoding and take 15 % more room, on every user's disk; that costs more than a "
    "twentieth of a second.",
    "The field is written by default, as before. Reports, `--apply-to` and `n4ax-apply` read the "
    "lattice, which has the same information in a few kB, so nothing here would break without it. "
    "What would break is outside: scripts that read `desc-biasfield`, and programs that want the "
    "second output of ANTs. At the lattice's resolution it would be another image under the same "
    "name: such a script would multiply grids that do not fit, or resample by a spline other than "
    "that of the lattice, and image = corrected × field would hold to interpolation only. "
    "`--no-bias-field` leaves it out, and with it the step that encodes it and its bytes.",
    "Bytes of the data are as before, so the level of a field (`--field-scale`) is still a sum in "
    "float32 in raster order, for which the voxels inside the mask are brought into that order. A "
    "sum in float64 in the order of the file would save this step and change the last bit of the "
    "level, and with it every voxel.",
    "The aims are 3.5 images/s and 0.45 CPU seconds an image with the field, and 0.6 more for a "
    "report. They were set on another machine, on which the code of before made 1.9 to 2.4 "
    "images/s and took 0.87 CPU seconds. What is left is compression, then solve and division. "
    "Tried without a clear gain: isal's memory levels, pieces of 64 kB to 8 MB, and limits of "
    "malloc that halve the page faults. Reading in pieces of 1 MB saved a quarter of decoding. "
    "Larger pieces of Otsu's histogram and of compression let many threads wait for Python's lock "
    "less often. Without numpy's huge pages (`NUMPY_MADVISE_HUGEPAGE=0` and `--nprocs 16`), 16 "
    "images took less processor time, because memory that was never used is cheaper then; 48 took "
    "the same. To use the arrays of one image again for the next one changes no more than runs of "
    "the same code differ. With OPENBLAS_NUM_THREADS=1, a start takes less processor time and is "
    "not over sooner, because the threads of numpy's linear algebra do not spin; but then the "
    "tissue method would not have these threads.",
    "The division gives numpy's linear algebra one thread. With two, on two busy cores, its "
    "threads spun while they waited for one another, and the step took five to fifteen times the "
    "processor time.",
)
"""what was decided, and why"""


class Run(NamedTuple):
    """What a run of the App took."""

    wall: float
    cpu: float
    """s, of all threads, from the start of Python"""
    n_bytes: int
    """of the files written"""


def main(argv: Sequence[str] | None = None) -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("-n", type=int, default=32)
    own.add_argument("--pairs", type=int, default=3)
    own.add_argument("--before", type=Path)
    mine, rest = own.parse_known_args(argv)
    given = arguments("files", __doc__, rest)
    n, pairs = (2, 1) if given.quick else (mine.n, mine.pairs)
    given.command += f" -n {n} --pairs {pairs}" + (" --before FOLDER" if mine.before else "")
    publish(given, "Files to files on a CPU", page(n, pairs, mine.before))


def page(n: int, pairs: int, before: Path | None) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield (
        f"`n4ax-bids --mask otsu --device cpu` on {n} phantoms of the MNI152 template in "
        f"{'×'.join(map(str, SHAPE))} voxels (int16, .nii.gz), {cores} cores, nothing to compile. "
        f"Medians of {pairs} runs; two checkouts take turns. The start of Python is counted; "
        "it is most of a run with one image. Load is how many processes wanted a core in the last "
        "minute, ours included: with more than the cores, times are too long."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # In a process of its own: its memory would be counted to its children.
        subprocess.run([sys.executable, "-c", MAKE, str(root / "raw"), str(n)], check=True)
        yield from of_the_app(root, n, pairs, before)
        yield ""
        yield from of_one_image(root)
    for paragraph in DECIDED:
        yield ""
        yield paragraph


def of_the_app(root: Path, n: int, pairs: int, before: Path | None) -> Iterator[str]:
    checkouts = {"this one": ROOT} | ({"before": before} if before else {})
    yield from head("run", "checkout", "images/s", "CPU s an image", "MB an image", "load")
    for place in checkouts.values():  # compiles
        run_app(place, root, 1, ("--no-reports",))
    ratios = []
    for name, (some, flags, compared) in variants(n).items():
        here = checkouts if compared else {"this one": ROOT}
        runs = [
            {checkout: run_app(place, root, some, flags) for checkout, place in here.items()}
            for _ in range(pairs)
        ]
        load = os.getloadavg()[0]
        for checkout in here:
            wall, cpu, size = (median(each[checkout][k] for each in runs) for k in range(3))
            cells = (figure(some / wall), figure(cpu / some), figure(size / some / 1e6))
            yield row(name, checkout, *cells, figure(load))
        if len(here) > 1:
            times, spent = (
                median(each["before"][k] / each["this one"][k] for each in runs) for k in (0, 1)
            )
            ratios.append(
                f"{name}, {figure(times)} times as many images/s as before and "
                f"{figure(1 / spent)} of the CPU time (medians)"
            )
    if ratios:
        yield ""
        yield f"In pairs: {'; '.join(ratios)}."


def variants(n: int) -> dict[str, tuple[int, tuple[str, ...], bool]]:
    """Return for each kind of run: how many images, the flags, and whether both checkouts run."""
    return {
        "one image, reports off": (1, ("--no-reports",), True),
        "reports off": (n, ("--no-reports",), True),
        "reports off, no field": (n, ("--no-reports", "--no-bias-field"), False),
        "with reports": (n, (), False),
    }


def run_app(place: Path, root: Path, n: int, flags: Sequence[str]) -> Run:
    """Run the App of a checkout on the first n images."""
    labels = [f"{number:02}" for number in range(1, n + 1)]
    words = ["participant", "--skip-bids-validation", "--mask", "otsu", "--device", "cpu", *flags]
    out = root / "out"
    call = [sys.executable, "-m", "n4ax_bids", str(root / "raw"), str(out), *words]
    environment = {
        **os.environ,
        "PYTHONPATH": str(place.resolve()),
        "N4AX_CACHE_DIR": str(root / f"programs-{place.name}"),
    }
    start = time.perf_counter()
    process = subprocess.Popen(
        [*call, "--participant-label", *labels],
        env=environment,
        cwd=root,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the App of {place} has failed")
    took = Run(time.perf_counter() - start, used.ru_utime + used.ru_stime, size_of(out))
    subprocess.run(["rm", "-r", str(out)], check=True)
    return took


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make(path: str, n: int) -> None:
    """Write a BIDS dataset of n phantoms."""
    from n4ax_bids.phantoms import mni152

    for number in range(1, n + 1):
        head = np.transpose(mni152("T1w", number, "coils", 0.4).image, (1, 2, 0))[:, 7:183]
        space = [size - has for size, has in zip(SHAPE, head.shape, strict=True)]
        made = np.pad(head, [(each // 2, each - each // 2) for each in space])
        file = Path(path, f"sub-{number:02}", "anat", f"sub-{number:02}_T1w.nii.gz")
        file.parent.mkdir(parents=True)
        nb.Nifti1Image(np.rint(1000 * made).astype(np.int16), np.eye(4)).to_filename(file)
    text = '{"Name": "files", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
    Path(path, "dataset_description.json").write_text(text)


def of_one_image(root: Path) -> Iterator[str]:
    """Yield tables of the steps of one image, and of compression."""
    from n4ax_bids import preset
    from n4ax_bids.core.division import division
    from n4ax_bids.core.n4.estimate import estimate
    from n4ax_bids.core.n4.plan import plan
    from n4ax_bids.core.threshold import otsu_mask
    from n4ax_bids.io import volume
    from n4ax_bids.runtime import device

    device.start(1)
    path = next((root / "raw").rglob("*.nii.gz"))
    image = volume.load(path)
    mask = np.asarray(otsu_mask(image.data))
    solve_plan = plan(preset("standard"), image.data.shape, image.zooms)

    def solve():
        return estimate(image.data, mask, plan=solve_plan)

    field = solve().log_field
    done = division(image.data, field, mask, "mean")
    steps: dict[str, Callable[[], object]] = {
        "decode the image": lambda: volume.load(path),
        "Otsu's mask": lambda: otsu_mask(image.data),
        "solve, preset `standard`": solve,
        "divide; field, level 1 in the mask, numbers": lambda: division(
            image.data, field, mask, "mean"
        ),
        "the same without a level": lambda: division(image.data, field, mask),
        "encode the corrected image": lambda: volume.save(
            root / "c.nii.gz", done.corrected, image
        ),
        "encode the field": lambda: volume.save(root / "b.nii.gz", done.bias, image),
    }
    yield from head("step of one image, one thread", "CPU, s")
    with device.one_thread():
        for name, step in steps.items():
            yield row(name, figure(spent(step)))
    yield ""
    yield from encodings({"corrected image": done.corrected, "field": done.bias})


def encodings(arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield the table of the levels of isal's compression."""
    from isal import isal_zlib

    yield from head(
        "compression, level", *(f"{name}, {what}" for name in arrays for what in ("CPU s", "MB"))
    )
    for level in (None, 0, 1, 2, 3):
        cells: list[str] = []
        for array in arrays.values():
            raw = memoryview(array.reshape(-1, order="F").view(np.uint8))

            def packed(level=level, raw=raw) -> int:
                if level is None:  # blocks as they are, with their checksum
                    isal_zlib.crc32(raw)
                    return len(bytes(raw))
                made = isal_zlib.compressobj(level, isal_zlib.DEFLATED, 31)
                pieces = range(0, len(raw), 1 << 18)
                return sum(len(made.compress(raw[k : k + (1 << 18)])) for k in pieces) + len(
                    made.flush()
                )

            cells += [figure(spent(packed)), figure(packed() / 1e6)]
        yield row("stored" if level is None else level, *cells)


def spent(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the least processor time of a call, all threads."""
    seconds = []
    for _ in range(repeats):
        start = resource.getrusage(resource.RUSAGE_SELF)
        call()
        end = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    return min(seconds)


if __name__ == "__main__":
    main()
