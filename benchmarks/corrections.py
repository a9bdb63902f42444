"""What the benchmarks of quality compare: our methods, and those of others that are installed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.machine import has
from n4ax_bids import n4, preset, tissue, zero_shot

SHRINK = 4
LEVELS = (50, 50, 50, 50)
PRESETS = ("ants", "fmriprep", "adaptive")
Estimate = Callable[[np.ndarray, np.ndarray, tuple[float, ...]], np.ndarray]
"""image, mask and mm to ln b"""


def ours() -> dict[str, Estimate]:
    """Return what is quick enough for every case."""
    return {
        "none": lambda image, mask, mm: np.zeros(image.shape, np.float32),
        **{f"n4 {name}": _by_preset(name) for name in PRESETS},
        "n4 as SimpleITK": _by_simpleitk("n4ax_bids.simpleitk"),
        "tissue": lambda image, mask, mm: np.asarray(
            tissue(image, mask, zooms=mm, return_bias=True)[1]
        ),
    }


def ours_on_heads() -> dict[str, Estimate]:
    """Return the same and the App's default, which is ANTs' where the voxels have 1 mm."""
    return {**ours(), "n4 standard": _by_preset("standard")}


def slow() -> dict[str, Estimate]:
    """Return what takes seconds for an image, and the programs of others that are installed."""
    return {"n4 fast": _by_preset("fast"), "zero-shot": _by_zero_shot, **_peers()}


def _by_preset(name: str) -> Estimate:
    options = preset(name)
    return lambda image, mask, mm: np.asarray(
        n4(image, mask, zooms=mm, options=options, return_bias=True)[1]
    )


def _by_zero_shot(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    return np.asarray(zero_shot(image, mask, zooms=mm, return_bias=True)[1])


def _by_simpleitk(module: str) -> Estimate:
    """Return N4 by a script for SimpleITK, run by SimpleITK itself or by the module beside it."""

    def estimate(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
        import importlib

        import SimpleITK as sitk

        whole = sitk.GetImageFromArray(image.T.astype(np.float32))
        inside = sitk.GetImageFromArray(mask.T.astype(np.uint8))
        whole.SetSpacing(mm)
        inside.SetSpacing(mm)
        filter_ = importlib.import_module(module).N4BiasFieldCorrectionImageFilter()
        filter_.SetMaximumNumberOfIterations(LEVELS)
        filter_.SetConvergenceThreshold(0.0)
        shrunk = (sitk.Shrink(each, [SHRINK] * image.ndim) for each in (whole, inside))
        filter_.Execute(*shrunk)
        return sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(whole)).T

    return estimate


def _peers() -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    if has("SimpleITK"):
        found["SimpleITK"] = _by_simpleitk("SimpleITK")
    if has("ants"):
        found["ANTs"] = _by_ants
    if has("dipy"):
        found["dipy B-splines"] = _by_dipy
    if has("nitrix") and has("nitrix.bias"):
        found["nitrix"] = _by_nitrix
    return found


def _by_ants(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    import ants

    whole, inside = (
        ants.from_numpy(each.astype(np.float32), spacing=mm) for each in (image, mask)
    )
    given = {"iters": list(LEVELS), "tol": 0.0}
    field = ants.n4_bias_field_correction(
        whole, mask=inside, shrink_factor=SHRINK, convergence=given, return_bias_field=True
    )
    return np.log(np.maximum(field.numpy(), 1e-6))


def _by_dipy(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    """dipy's regression by B-splines of the mean of the volumes with b = 0; here there is one."""
    from dipy.core.gradients import gradient_table
    from dipy.denoise.bias_correction import bias_field_correction

    table = gradient_table(np.zeros(1), bvecs=np.zeros((1, 3)))
    _, field = bias_field_correction(
        image[..., None], table, mask=mask.astype(bool), return_bias_field=True
    )
    return np.log(np.maximum(field, 1e-6))


def _by_nitrix(image: np.ndarray, mask: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    from nitrix.bias.n4 import n4_bias_field_correction

    corrected = n4_bias_field_correction(
        image.astype(np.float32), mask=mask.astype(np.float32), convergence_threshold=0.0
    )
    return np.log(np.maximum(image, 1e-6)) - np.log(np.maximum(np.asarray(corrected), 1e-6))
