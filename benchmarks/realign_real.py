"""Realignment of real series, and of several volumes and seeds, beside other programs.

python -m benchmarks.realign_real curves [--most 2] [--programs n4ax_bids SimpleITK antspyx]
python -m benchmarks.realign_real designs [--images "T1w, 4 mm"]
python -m benchmarks.realign_real speed [--n 200]

`curves`: nobody knows how the head moved in a real series. So each program realigns the series as
it is and the same series with a known motion added to each volume; the difference of its two
answers should be the known motion. All motion is relative to the first volume.

`designs`: one volume of each of three images, moved by known motions with three seeds, through
other settings of ours and through SimpleITK.

`speed`: the whole job from file to file, with the seconds of the processor beside those of the
clock, because the machine may be busy. Ours is the command, twice: the first compiles, the second
finds its compiled programs. The other programs are imported already.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nb
import numpy as np

from benchmarks.images import DATA
from benchmarks.realign import (
    BOLD,
    PROGRAMS,
    errors,
    motion_of,
    moved_copies,
    moved_volume,
    ours,
)
from n4ax_bids.core.motion import rigid

SERIES = {"BOLD of a head": BOLD, "BOLD of a cervical spine": "spine-sct_bold.nii.gz"}
VOLUMES = {
    "BOLD, 5 mm": (BOLD, 1),
    "T2w, 4 mm": ("head-niivue_T2w.nii.gz", 4),
    "T1w, 4 mm": ("head-philips3t_T1w.nii.gz", 4),
}
DESIGNS = {
    "default": {},
    "degree 4": {"degree": 4},
    "all samples": {"quality": 1.0},
    "fwhm 1 voxel": {"fwhm": 1.0},
    "fwhm 2 voxels": {"fwhm": 2.0},
    "no jitter": {"jitter": False},
}
"""settings of ours; a width counts in the largest voxel size"""
Program = Callable[[Path, nb.Nifti1Image], np.ndarray]


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def relative(mappings: np.ndarray) -> np.ndarray:
    """Return mappings from the first volume to each volume."""
    return mappings @ np.linalg.inv(mappings[0])


def curves(names: list[str], most: float, folder: Path) -> None:
    """Print how near each program is to a motion that was added to a real series."""
    for title, name in SERIES.items():
        image = nb.load(DATA / name)
        data = np.asarray(image.dataobj, np.float64)
        n, shape, affine = data.shape[3], data.shape[:3], image.affine
        q = motion_of(n, most, 23)
        mappings = rigid.mapping(q, affine, shape)
        added = np.stack(
            [moved_volume(data[..., i], affine, mappings[i]) for i in range(n)], axis=-1
        )
        paths = []
        for which, values in (("as it is", data), ("moved", added)):
            paths.append(folder / f"{which.replace(' ', '-')}.nii")
            nb.Nifti1Image(values.astype(np.float32), affine).to_filename(paths[-1])
        print(f"\n{title}: {n} volumes {shape}, up to {most:g} mm and degrees added", flush=True)
        print("| program | RMS mm | RMS degrees | max mm | max degrees | lowest r | s |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for program in names:
            start = cpu_seconds()
            still, moved = (relative(PROGRAMS[program](path, nb.load(path))) for path in paths)
            seconds = cpu_seconds() - start
            found = rigid.motion(moved @ np.linalg.inv(still), affine, shape)
            off = (found - q)[1:]
            off[:, 3:] = np.degrees(off[:, 3:])
            r = min(np.corrcoef(found[1:, k], q[1:, k])[0, 1] for k in range(6))
            mm, degrees = (np.sqrt((part**2).mean()) for part in (off[:, :3], off[:, 3:]))
            worst = np.abs(off[:, :3]).max(), np.abs(off[:, 3:]).max()
            print(
                f"| {program} | {mm:.3f} | {degrees:.3f} | {worst[0]:.3f} | {worst[1]:.3f} | "
                f"{r:.4f} | {seconds:.1f} |",
                flush=True,
            )


def shrunk(path: Path, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the first volume of an image, averaged to voxels of about `step_mm`; its affine."""
    image = nb.as_closest_canonical(nb.load(path))
    data = np.asarray(image.dataobj, np.float64)
    data = data[..., 0] if data.ndim == 4 else data
    zooms = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    steps = np.maximum(np.round(step_mm / zooms).astype(int), 1)
    for axis, step in enumerate(steps):
        n = data.shape[axis] // step
        data = data.take(range(n * step), axis=axis)
        parts = (*data.shape[:axis], n, step, *data.shape[axis + 1 :])
        data = data.reshape(parts).mean(axis=axis + 1)
    linear = image.affine[:3, :3] * steps
    return data, nb.affines.from_matvec(linear, image.affine[:3, :3] @ ((steps - 1) / 2))


def designs(titles: list[str], folder: Path) -> None:
    """Print the errors of other settings of ours, and of SimpleITK, on volumes × 3 seeds."""
    print("| volume | program | " + " | ".join(f"seed {s}" for s in (1, 2, 3)) + " | mean |")
    print("| --- " * 6 + "|", flush=True)
    for title in titles:
        name, step = VOLUMES[title]
        first, affine = shrunk(DATA / name, step)
        largest = float(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).max())
        programs: dict[str, Program] = {}
        for label, given in DESIGNS.items():
            options = {k: v * largest if k == "fwhm" else v for k, v in given.items()}
            programs[label] = partial(ours, **options)
        programs["SimpleITK"] = PROGRAMS["SimpleITK"]
        for label, program in programs.items():
            found = []
            for seed in (1, 2, 3):
                image, q = moved_copies(first, affine, 6, 0.02, seed=seed)
                path = folder / "moved.nii"
                image.to_filename(path)
                found.append(errors(program(path, image), q, image))
            cells = [f"{mm:.3f} mm {degrees:.3f}°" for mm, degrees in found]
            mean = np.mean(found, axis=0)
            print(
                f"| {title} | {label} | {' | '.join(cells)} | {mean[0]:.3f} mm {mean[1]:.3f}° |",
                flush=True,
            )


def by_simpleitk(path: Path, out: Path) -> None:
    """SimpleITK, from file to file: estimate, then resample by cubic B-splines."""
    import SimpleITK as sitk

    image = nb.load(path)
    mappings = rigid.to_lps(PROGRAMS["SimpleITK"](path, image))
    series = sitk.ReadImage(str(path), sitk.sitkFloat32)
    size = list(series.GetSize())
    volumes = []
    for i, mapping in enumerate(mappings):
        volume = sitk.Extract(series, [*size[:3], 0], [0, 0, 0, i])
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(mapping[:3, :3].ravel().tolist())
        transform.SetTranslation(mapping[:3, 3].tolist())
        volumes.append(sitk.Resample(volume, volume, transform, sitk.sitkBSpline3))
    sitk.WriteImage(sitk.JoinSeries(volumes), str(out))


def by_ants(path: Path, out: Path) -> None:
    """antspyx's own motion correction, from file to file."""
    import ants

    series = ants.image_read(str(path))
    fixed = ants.slice_image(series, axis=3, idx=0)
    done = ants.motion_correction(series, fixed, type_of_transform="Rigid")
    ants.image_write(done["motion_corrected"], str(out))


def by_us(path: Path, out: Path) -> None:
    """Our command, from file to file, with the start of Python; compiled programs are kept."""
    call = [sys.executable, "-m", "n4ax_bids.commands.realign_cli", str(path), str(out)]
    cache = {"N4AX_CACHE_DIR": str(out.parent / "programs")}
    subprocess.run(call, check=True, env={**os.environ, **cache})


def speed(n: int, n_rival: int, folder: Path) -> None:
    """Print the time from file to file; the others get fewer volumes, and the time is scaled."""
    from tests.moving_head import motions, moving_head

    moved = moving_head(motions(20), noise=0.02)
    volumes = np.moveaxis(moved.volumes, 0, -1)
    paths = {}
    for count in (n, n_rival):
        repeated = np.tile(volumes, (1, 1, 1, -(-count // 20)))[..., :count]
        paths[count] = folder / f"{count}.nii.gz"
        nb.Nifti1Image(repeated, moved.affine).to_filename(paths[count])
    print("| program | volumes | s | processor s | processor s for a volume |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    rows = (
        ("n4ax-realign, the first time: compiles", by_us, n),
        ("n4ax-realign, the next process", by_us, n),
        ("SimpleITK", by_simpleitk, n_rival),
        ("antspyx", by_ants, n_rival),
    )
    for label, job, count in rows:
        clock, used = time.perf_counter(), cpu_seconds()
        job(paths[count], folder / "out.nii.gz")
        clock, used = time.perf_counter() - clock, cpu_seconds() - used
        print(f"| {label} | {count} | {clock:.1f} | {used:.1f} | {used / count:.3f} |", flush=True)


def main() -> None:
    """Print the tables of one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("curves", "designs", "speed"))
    parser.add_argument("--n", type=int, default=200, help="volumes of `speed`")
    parser.add_argument("--n-rival", type=int, default=200, help="volumes for the other programs")
    parser.add_argument("--most", type=float, default=2.0, help="mm and degrees that are added")
    parser.add_argument(
        "--programs", nargs="+", choices=PROGRAMS, default=["n4ax_bids", "SimpleITK", "antspyx"]
    )
    parser.add_argument(
        "--images", nargs="+", choices=VOLUMES, default=list(VOLUMES), help="of `designs`"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.part == "curves":
            curves(asked.programs, asked.most, Path(name))
        elif asked.part == "designs":
            designs(asked.images, Path(name))
        else:
            speed(asked.n, asked.n_rival, Path(name))


if __name__ == "__main__":
    main()
