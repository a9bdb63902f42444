"""Cases on which our numbers are compared with those of SimpleITK and of the ANTs program.

The tests use them too, with what `benchmarks.parity` has kept of the peers' answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import nibabel as nb
import numpy as np
import SimpleITK as sitk

from benchmarks.images import DATA, HEAD
from benchmarks.machine import ROOT
from n4ax_bids.core.field import LogField, evaluate
from n4ax_bids.core.n4.estimate import N4Result, estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.take import take
from n4ax_bids.options import N4Options, preset
from n4ax_bids.phantoms import phantom

REFERENCE = ROOT / "tests" / "reference" / "n4.npz"

SHORT = ((1,), (5,), (5, 5))
FULL = (50, 50, 50, 50)
THRESHOLD = 1e-3
MANY_VOXELS = 200_000
"""ITK adds up in float32, voxel after voxel, in one part for each thread: beyond so many voxels
its own rounding with 2 threads is larger than the bound of a short run."""

ANTS_WORDS = {
    "ants": ["-s", "4"],
    "fmriprep": ["-s", "4", "-b", "[200]", "-c", "[50x50x50x50x50,1e-7]"],
}


class Case(NamedTuple):
    """An image and its mask, given alike to ITK and to us."""

    image: np.ndarray
    mask: np.ndarray


class Difference(NamedTuple):
    """Of |ours/theirs - 1|."""

    mean: float
    p99: float
    max: float


def difference(log_ours: np.ndarray, log_theirs: np.ndarray) -> Difference:
    """Return how much the corrected intensities differ that two log fields lead to."""
    error = np.abs(np.expm1(np.asarray(log_theirs, np.float64) - log_ours))
    return Difference(float(error.mean()), float(np.quantile(error, 0.99)), float(error.max()))


BOUNDS = Difference(mean=5e-5, p99=2e-4, max=5e-4)
"""of a full run"""


def within_full_run_bounds(found: Difference, itk_itself: Difference) -> bool:
    """Say whether a full run is within the bounds, or 3 times what ITK differs from itself."""
    return all(
        value <= max(bound, 3 * own)
        for value, bound, own in zip(found, BOUNDS, itk_itself, strict=True)
    )


def largest(found: Iterable[Difference]) -> Difference:
    return Difference(*map(max, zip(*found, strict=True)))


def itk_otsu(image: sitk.Image) -> sitk.Image:
    """Return ITK's mask of the voxels above Otsu's threshold."""
    return sitk.OtsuThreshold(image, 0, 1, 200)


def _shrunk(name: str, factors: tuple[int, ...]) -> Case:
    image = sitk.ReadImage(str(DATA / name), sitk.sitkFloat32)
    both = (sitk.Shrink(part, factors) for part in (image, itk_otsu(image)))
    image, mask = (sitk.GetArrayFromImage(part).T for part in both)
    return Case(image, mask > 0)


def phantom_case() -> Case:
    made = phantom((96, 96, 96), seed=0, field="polynomial", amplitude=0.4, noise=0.02)
    return Case(made.image, made.mask)


CASES = {
    "head T1w, shrink 4": lambda: _shrunk(HEAD, (4, 4, 4)),
    "kidney GRE, in-plane 2": lambda: _shrunk("kidney-ge3t_GRE.nii.gz", (2, 2, 1)),
    "phantom 96³": phantom_case,
    "2D slice T1w": lambda: _shrunk("slice2d-ixi002/T1w.nii.gz", (1, 1)),
    "spine T2*w, in-plane 4": lambda: _shrunk("spine-sct_T2starw.nii.gz", (4, 4, 1)),
    "IXI T1w, shrink 3": lambda: _shrunk(
        "bids-small/sub-ixi012/anat/sub-ixi012_T1w.nii", (3, 3, 3)
    ),
}


def short_threads(case: Case) -> int:
    """Return with how many threads ITK is exact enough to compare single iterations with."""
    return 16 if np.count_nonzero(case.mask) > MANY_VOXELS else 2


PATHS = ("list", "slabs", "on device", "batch")
"""The ways to run a solve: the mask's voxels listed on the host; the same in slabs, as where
memory is short; whole rows, found on the device, as on a GPU; several images at once."""


def ours(
    case: Case, n_iterations: tuple[int, ...], threshold: float = 0.0, path: str = "list"
) -> N4Result:
    options = N4Options(
        shrink_factor=1, n_iterations=n_iterations, convergence_threshold=threshold
    )
    solve = plan(options, case.image.shape)
    if path == "batch":
        images = [case.image, 2 * case.image + 1]
        return estimate_batch(
            images, [case.mask] * 2, [None] * 2, plans=[solve] * 2, together=True
        )[0]
    memory = None
    if path == "slabs":
        memory = take(case.image, case.mask, None, solve).n_bytes(3)
    return estimate(
        case.image, case.mask, plan=solve, on_device=path == "on device", memory=memory
    )


def log_bias(result: N4Result, case: Case) -> np.ndarray:
    return np.asarray(evaluate(result.log_field, [(0, n) for n in case.image.shape]))[case.mask]


def final_grid(name: str, shape: tuple[int, ...]) -> LogField:
    """Return a zero field on the last level's lattice of a preset, for the head's file."""
    solved = plan(preset(name), shape, nb.load(DATA / HEAD).header.get_zooms())
    scale = 2 ** (len(preset(name).n_iterations) - 1)
    points = tuple((m - 3) * scale + 3 for m in solved.n_control_points)
    axes = [tuple(v * scale for v in axis.image) for axis in solved.axes]
    return LogField(np.zeros(points, np.float32), 3, *zip(*axes, strict=True))
