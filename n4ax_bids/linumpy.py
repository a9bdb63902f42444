"""The names and defaults of linumpy's bias correction, computed by this package.

A script that imports these functions from linumpy needs to change its import only. The numbers
are those of N4 as in ITK, with axes and positions in their physical order; docs/serial-sections.md
lists the differences.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from n4ax_bids.arguments import is_among, require_count, shown
from n4ax_bids.core.arrays import as_array
from n4ax_bids.core.call import N4Warning
from n4ax_bids.core.field import divide
from n4ax_bids.core.n4 import sharpen
from n4ax_bids.core.n4.estimate import estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.stack.boundaries import section_bounds
from n4ax_bids.core.stack.call import require_stack_shape, voxel_sizes
from n4ax_bids.core.tissue_mask import compute_tissue_mask as compute_tissue_mask
from n4ax_bids.options import N4Options
from n4ax_bids.runtime.device import resolve, use
from n4ax_bids.stacks.files import require_apart, require_buffer

BACKENDS = ("cpu", "gpu", "auto")
CPU_ITERATIONS, GPU_ITERATIONS = (50, 50, 50, 50), (25, 25, 25)


def n4_correct(
    vol: Any,
    mask: Any = None,
    *,
    shrink_factor: int = 4,
    n_iterations: Sequence[int] | None = None,
    spline_distance_mm: float = 10.0,
    voxel_size_mm: Sequence[float] = (1.0, 1.0, 1.0),
    backend: str = "cpu",
    out: Any = None,
    bias_out: Any = None,
    _sections: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct the bias field of a volume.

    Parameters
    ----------
    vol : array (planes, rows, columns)
    mask : array like `vol`, not 0 = inside; None for the voxels above 0
    shrink_factor : estimate the field on every n-th voxel of each axis
    n_iterations : most iterations of each level; None for four levels of 50 on the CPU and three
        of 25 otherwise, as in linumpy
    spline_distance_mm : distance of knots at the first level
    voxel_size_mm : size of a voxel on the axes of `vol`
    backend : "cpu", "gpu", or "auto" for a GPU where there is one
    out, bias_out : float32 arrays like `vol` that are filled and returned; `out` may be `vol`

    Returns
    -------
    corrected, bias : float32 arrays; bias is the factor by which intensities were divided

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    if not is_among(backend, BACKENDS):
        raise ValueError(f"backend is {shown(backend)}; expected cpu, gpu or auto")
    if n_iterations is None:
        n_iterations = CPU_ITERATIONS if backend == "cpu" else GPU_ITERATIONS
    options = _Options(shrink_factor, tuple(n_iterations), spline_distance_mm, True)
    return _corrected(
        vol, mask, options, voxel_size_mm, backend, (out, bias_out), sections=_sections
    )


def n4_correct_gpu(
    vol: Any,
    mask: Any = None,
    *,
    shrink_factor: int = 4,
    n_iterations: Sequence[int] | None = None,
    spline_distance_mm: float = 10.0,
    voxel_size_mm: Sequence[float] = (1.0, 1.0, 1.0),
    use_gpu: bool = True,
    convergence_tol: float = 1e-3,
    n_bins: int = 200,
    fwhm_log: float = 0.15,
    wiener_noise: float = 0.01,
    mask_weights: Any = None,
    out: Any = None,
    bias_out: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct the bias field of a volume on a GPU, or on the CPU where there is none.

    The lattice is the same at all levels, as in linumpy.

    Parameters
    ----------
    vol, mask, shrink_factor, spline_distance_mm, voxel_size_mm, out, bias_out : as `n4_correct`
    n_iterations : most iterations of each level; None for three levels of 25
    use_gpu : use a GPU where there is one
    convergence_tol : end a level when the coefficient of variation of the change is not above this
    n_bins, fwhm_log, wiener_noise : sharpening of the histogram
    mask_weights : array like `vol`, confidence of each voxel; None for equal weights

    Returns
    -------
    corrected, bias : as `n4_correct`
    """
    n_iterations = GPU_ITERATIONS if n_iterations is None else tuple(n_iterations)
    sharpening = (fwhm_log, wiener_noise, n_bins)
    options = _Options(
        shrink_factor, n_iterations, spline_distance_mm, False, convergence_tol, sharpening
    )
    device = "auto" if use_gpu else "cpu"
    return _corrected(vol, mask, options, voxel_size_mm, device, (out, bias_out), mask_weights)


def n4_correct_per_section(
    vol: Any,
    n_serial_slices: int,
    mask: Any = None,
    *,
    n_processes: int = 1,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct each section of a stack on its own.

    Parameters
    ----------
    vol : array (planes, rows, columns)
    n_serial_slices : number of sections
    mask : as `n4_correct`
    n_processes : accepted and not used: the cores, or the GPU, are shared in one process
    options : of `n4_correct`

    Returns
    -------
    corrected, bias : as `n4_correct`; each section's bias has a scale of its own
    """
    require_count("n_processes", n_processes)
    return n4_correct(vol, mask, **options, _sections=n_serial_slices)


def apply_bias_field(vol: Any, bias: Any, floor: float = 1e-6) -> np.ndarray:
    """Return vol / max(bias, floor) in float32.

    Parameters
    ----------
    vol, bias : arrays of one shape
    floor : smallest divisor
    """
    image, field = np.asarray(vol, np.float32), np.asarray(bias, np.float32)
    if image.shape != field.shape:
        raise ValueError(f"bias has shape {field.shape}; expected that of vol, {image.shape}")
    return image / np.maximum(field, np.float32(floor))


def sharpen_residual(
    log_image: Any,
    mask: Any = None,
    *,
    n_bins: int = 200,
    fwhm_log: float = 0.15,
    wiener_noise: float = 0.01,
) -> np.ndarray:
    """Sharpen log intensities: replace each by the expected value without blur by the field.

    Parameters
    ----------
    log_image : array of any shape, ln of intensity
    mask : array like it, not 0 = inside; None for everywhere
    n_bins, fwhm_log, wiener_noise : sharpening of the histogram

    Returns
    -------
    float32 array like `log_image`. It is unchanged outside the mask, and everywhere if the mask is
    empty or the intensities inside it differ by less than 1e-8.
    """
    image = np.array(log_image, np.float32)
    inside = np.ones(image.shape, bool) if mask is None else np.asarray(mask) != 0
    if inside.shape != image.shape:
        raise ValueError(f"mask has shape {inside.shape}; expected {image.shape}")
    values = image[inside]
    if values.size and values.max() - values.min() >= 1e-8:
        with jax.enable_x64(True):
            image[inside] = _sharpened(values, n_bins, fwhm_log, wiener_noise)
    return image


@partial(jax.jit, static_argnums=1)
def _sharpened(values: jax.Array, n_bins: int, fwhm: float, noise: float) -> jax.Array:
    low = values.min()
    slope = (values.max() - low) / (n_bins - 1)
    bins = sharpen.find_bins(sharpen.find_position(values, low, slope, n_bins), n_bins)
    tally = sharpen.tally(bins, None, n_bins, values.size)
    counts = sharpen.histogram(tally, values.size)
    expected = sharpen.sharpening_map(counts, low, slope, fwhm=fwhm, noise=noise)
    # The largest value can lie outside the bins by a rounding; it then keeps that of the last.
    return sharpen.sharpened(bins, expected, sharpen.rise(expected)).astype(jnp.float32)


class _Options:
    """What differs between the calls; it becomes N4's options once the shape is known."""

    def __init__(
        self,
        shrink_factor: int,
        n_iterations: tuple[int, ...],
        distance: float,
        refine: bool,
        threshold: float = 1e-3,
        sharpening: tuple[float, float, int] = (0.15, 0.01, 200),
    ) -> None:
        self._distance = distance
        self._more: dict[str, Any] = {
            "shrink_factor": shrink_factor,
            "n_iterations": n_iterations,
            "refine": refine,
            "convergence_threshold": threshold,
            "histogram_sharpening": sharpening,
        }

    def of(self, shape: Sequence[int], zooms: Sequence[float]) -> N4Options:
        """Return the options for a shape; both arguments in the order columns, rows, planes."""
        if not self._distance > 0:
            raise ValueError(f"spline_distance_mm is {self._distance}; expected a positive number")
        extents = [n * zoom for n, zoom in zip(shape, zooms, strict=True)]
        points = tuple(max(1, round(extent / self._distance)) + 3 for extent in extents)
        return N4Options(n_control_points=points, **self._more)


def _corrected(
    vol: Any,
    mask: Any,
    options: _Options,
    sizes: Sequence[float],
    device: str,
    buffers: tuple[Any, Any],
    weights: Any = None,
    sections: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(as_array(vol, "vol"))
    require_stack_shape("vol", image.shape)
    zooms = voxel_sizes(sizes)
    for name, buffer in zip(("out", "bias_out"), buffers, strict=True):
        if buffer is not None:
            require_buffer(buffer, image.shape, name)
    require_apart(vol, *buffers)
    inside = image > 0 if mask is None else np.asarray(as_array(mask, "mask")) != 0
    weight = None if weights is None else np.asarray(weights, np.float32)
    for name, array in (("mask", inside), ("mask_weights", weight)):
        if array is not None and array.shape != image.shape:
            raise ValueError(f"{name} has shape {array.shape}; expected {image.shape}")
    parts = [slice(*ends) for ends in section_bounds(image.shape[0], sections)]
    shapes = [image[part].shape[::-1] for part in parts]
    with use(resolve(_available(device))):
        results = estimate_batch(
            [image[part].T for part in parts],
            [inside[part].T for part in parts],
            [None if weight is None else weight[part].T for part in parts],
            plans=[plan(options.of(s, zooms[::-1]), s, zooms[::-1]) for s in shapes],
        )
    corrected, bias = (np.empty(image.shape, np.float32) if b is None else b for b in buffers)
    for part, result in zip(parts, results, strict=True):
        divided, log_bias = divide(image[part].T, result.log_field)
        corrected[part], bias[part] = divided.T, np.exp(log_bias.T)
    return corrected, bias


def _available(device: str) -> str:
    """Return the device that is asked for; without a GPU the CPU, with a warning."""
    if device != "gpu":
        return device
    where = resolve("auto")
    if where.platform == "cpu":
        warnings.warn("backend 'gpu': JAX sees no GPU here, the CPU is used", N4Warning, 3)
    return "auto"
