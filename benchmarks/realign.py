"""Realignment beside other programs: known motion on a real volume, errors and time.

python -m benchmarks.realign [--n 12] [--series FILE] [--noise 0.02]

A volume of a real series is moved by known motions with a spline of degree 5 in float64, noise is
added, and each program finds the motion of every volume relative to the first. Errors are root
mean squares over the volumes that moved, in mm and degrees, of the motion about the grid's centre.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy.ndimage import map_coordinates

from benchmarks.images import DATA
from n4ax_bids.core.motion import rigid

BOLD = "bids-small/sub-001/func/sub-001_task-rest_bold.nii.gz"


def moved_series(path: Path, n: int, noise: float) -> tuple[nb.Nifti1Image, np.ndarray]:
    """Return a series of one real volume with known motion, and the motion (n, 6)."""
    image = nb.load(path)
    first = np.asarray(image.dataobj[..., 0], np.float64)
    return moved_copies(first, image.affine, n, noise)


def motion_of(n: int, most: float, seed: int) -> np.ndarray:
    """Return n random motions (n, 6), mm and rad, none for the first volume."""
    q = np.random.default_rng(seed).uniform(-most, most, (n, 6))
    q *= [1] * 3 + [np.radians(1)] * 3
    q[0] = 0
    return q


def moved_volume(volume: np.ndarray, affine: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """Return a volume whose head is at mapping(x) where that of `volume` is at x."""
    back = np.linalg.inv(affine) @ np.linalg.inv(mapping) @ affine
    grid = np.indices(volume.shape).reshape(3, -1)
    at = back[:3, :3] @ grid + back[:3, 3:]
    return map_coordinates(volume, at, order=5, mode="nearest").reshape(volume.shape)


def moved_copies(
    first: np.ndarray,
    affine: np.ndarray,
    n: int,
    noise: float,
    seed: int = 17,
) -> tuple[nb.Nifti1Image, np.ndarray]:
    """Return a series of one volume (I, J, K) with known motion, and the motion (n, 6)."""
    q, rng = motion_of(n, 2.0, seed), np.random.default_rng(seed + 1)
    volumes = np.empty((*first.shape, n), np.float32)
    scale = noise * np.percentile(first, 99)
    for i, mapping in enumerate(rigid.mapping(q, affine, first.shape)):
        moved = moved_volume(first, affine, mapping)
        volumes[..., i] = moved + scale * rng.standard_normal(first.shape)
    return nb.Nifti1Image(volumes, affine), q


def ours(path: Path, image: nb.Nifti1Image, **options: Any) -> np.ndarray:
    """The mappings by this package, estimate alone."""
    from n4ax_bids import Realign, RealignOptions

    run = Realign(path, options=RealignOptions(**options))
    return rigid.mapping(run.estimate_all().motion.q, image.affine, image.shape)


def by_simpleitk(path: Path, image: nb.Nifti1Image) -> np.ndarray:
    """SimpleITK: Euler transform, mean squares, two levels, regular gradient descent."""
    import SimpleITK as sitk

    series = sitk.ReadImage(str(path), sitk.sitkFloat32)
    size = list(series.GetSize())

    def volume(i: int) -> sitk.Image:
        return sitk.Extract(series, [*size[:3], 0], [0, 0, 0, i])

    fixed = volume(0)
    found = []
    for i in range(size[3]):
        moving = volume(i)
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMeanSquares()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-4, 200)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([2, 1])
        centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in size[:3]])
        method.SetInitialTransform(sitk.Euler3DTransform(centre), inPlace=False)
        done = sitk.Euler3DTransform(method.Execute(fixed, moving).GetBackTransform())
        each = np.eye(4)
        each[:3, :3] = np.array(done.GetMatrix()).reshape(3, 3)
        middle = np.array(done.GetCenter())
        each[:3, 3] = done.GetTranslation() + middle - each[:3, :3] @ middle
        found.append(each)
    return rigid.to_lps(np.stack(found))


def by_ants(path: Path, image: nb.Nifti1Image) -> np.ndarray:
    """antspyx: its rigid registration with default settings (mutual information)."""
    import ants

    volumes = ants.ndimage_to_list(ants.image_read(str(path)))
    found = []
    for moving in volumes:
        done = ants.registration(volumes[0], moving, type_of_transform="Rigid", random_seed=1)
        read = ants.read_transform(done["fwdtransforms"][0])
        middle, numbers = np.array(read.fixed_parameters), np.array(read.parameters)
        each = np.eye(4)
        each[:3, :3] = numbers[:9].reshape(3, 3)
        each[:3, 3] = numbers[9:] + middle - each[:3, :3] @ middle
        found.append(each)
        for name in done["fwdtransforms"]:
            Path(name).unlink(missing_ok=True)
    return rigid.to_lps(np.stack(found))


def by_dipy(path: Path, image: nb.Nifti1Image) -> np.ndarray:
    """dipy: translation and rigid stages by mutual information, its own defaults."""
    from dipy.align import affine_registration

    data = image.get_fdata(dtype=np.float32)
    found = []
    for i in range(image.shape[3]):
        _, matrix = affine_registration(
            data[..., i],
            data[..., 0],
            moving_affine=image.affine,
            static_affine=image.affine,
            pipeline=["translation", "rigid"],
        )
        found.append(matrix)
    return np.stack(found)


PROGRAMS: dict[str, Callable[[Path, nb.Nifti1Image], np.ndarray]] = {
    "n4ax_bids": ours,
    "n4ax_bids, again": ours,
    "n4ax_bids as SPM": partial(ours, fwhm=5.0, degree=2),
    "SimpleITK": by_simpleitk,
    "antspyx": by_ants,
    "dipy": by_dipy,
}


def errors(found: np.ndarray, q: np.ndarray, image: nb.Nifti1Image) -> tuple[float, float]:
    """Return the root mean square errors in mm and degrees, over the volumes that moved."""
    difference = rigid.motion(found, image.affine, image.shape)[1:] - q[1:]
    mm, radians = np.sqrt((difference**2).reshape(-1, 2, 3).mean(axis=(0, 2)))
    return float(mm), float(np.degrees(radians))


def main() -> None:
    """Print a row for each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=12, help="volumes")
    parser.add_argument(
        "--noise", type=float, default=0.02, help="as a part of the 99th percentile"
    )
    parser.add_argument("--series", type=Path, default=DATA / BOLD)
    asked = parser.parse_args()
    image, q = moved_series(asked.series, asked.n, asked.noise)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "series.nii"
        image.to_filename(path)
        print(f"{asked.n} volumes {image.shape[:3]}, noise {asked.noise:g}", flush=True)
        print("| program | RMS mm | RMS degrees | s |\n| --- | --- | --- | --- |", flush=True)
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            mm, degrees = errors(program(path, image), q, image)
            seconds = time.perf_counter() - start
            print(f"| {name} | {mm:.4f} | {degrees:.4f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
