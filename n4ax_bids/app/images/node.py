"""The node for a job, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n4ax_bids.app.job import Job
from n4ax_bids.app.machine.limits import free_memory
from n4ax_bids.app.machine.resources import Share, n_cores
from n4ax_bids.app.request import Request
from n4ax_bids.io import endings
from n4ax_bids.methods import METHODS, outputs_of
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

LEAST, MOST = 100_000_000, 4_000_000_000
"""bytes of the budget of a stack; more would not make it faster"""
OVERHEAD = 400_000_000
"""bytes that the program takes besides the budget"""
MM = {"mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "nm": 1e-6}
"""mm per PixelSizeUnits of BIDS"""


def node_of(
    job: Job,
    request: Request,
    folder: Path,
    metadata: Mapping[str, Any] = {},
    share: Share | None = None,
) -> Any:
    """Return the node that makes the outputs of an image.

    Parameters
    ----------
    job, request, folder, metadata : as `inputs`
    share : device and threads; None under an engine of nipype, where each node has its own
    """
    means: dict[str, Any] = {"device": share.device if share else request.device}
    if share:
        means["num_threads"] = share.n_threads
    own = outputs_of(request.method)
    if own:
        return own.node(job, request, folder, **means)
    from n4ax_bids.interfaces import BiasFieldCorrection, StackImageCorrection

    means |= inputs(job, request, folder, metadata)
    if not METHODS[request.method].streams:
        return BiasFieldCorrection(**means)
    return StackImageCorrection(**means, memory_gb=budget(request, share) / 1e9)


def budget(request: Request, share: Share | None = None) -> int:
    """Return how many bytes a stack may take, besides what the program itself needs."""
    if share is not None:
        total, n_images = share.memory, share.n_images
    else:
        n_images = request.nprocs or request.omp_nthreads or n_cores()
        total = request.mem or free_memory()
    return max(LEAST, min(MOST, total // n_images - OVERHEAD))


def inputs(
    job: Job, request: Request, folder: Path, metadata: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Return the inputs of the node of a job, except device, threads and memory.

    Without `rescale` the whole image is divided by its field, so that corrected × field = input.
    With `rescale` a mask file has the same effect as in the ANTs program.

    Parameters
    ----------
    job : the image
    request : the run
    folder : where the outputs are written, absolute or relative to the node's current folder
    metadata : of the image, from its sidecars

    Raises
    ------
    OSError, ValueError
        If the image cannot be corrected; one line that names it.
    """
    from n4ax_bids.image.demand import axes

    if job.problem:
        raise ValueError(f"{job.source}: {job.problem}")
    if METHODS[request.method].streams:
        return _of_stack(job, request, folder, metadata)
    given: dict[str, Any] = {
        "input_image": str(job.source),
        "output_image": str(folder / "corrected.nii.gz"),
        "lattice_image": str(folder / "lattice.nii.gz"),
        "options": request.options,
        "dimension": axes(job.source),
        "rescale_intensities": request.rescale,
        "output_dtype": request.output_dtype,
        "field_scale": request.field_scale,
    }
    if job.outputs.field:
        given["bias_image"] = str(folder / "field.nii.gz")
    if request.mask in (*MASK_WORDS, *MASK_PROGRAMS):
        given["auto_mask"] = request.mask
    if job.outputs.masks:
        given["found_mask_image"] = str(folder / "mask.nii.gz")
    if job.outputs.further:
        given["method_images"] = {
            label: str(folder / f"{label}.nii.gz") for label in job.outputs.further
        }
    if job.mask:
        given["mask_image"] = str(job.mask)
        given["correct_outside"] = not request.rescale
    if job.weight:
        given["weight_image"] = str(job.weight)
    for name in ("mask_transform", "weight_transform"):
        if getattr(job, name):
            given[name] = str(getattr(job, name))
    return given


def _of_stack(
    job: Job, request: Request, folder: Path, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inputs of `StackImageCorrection`."""
    ending = endings.split(job.outputs.corrected.name)[1]
    given: dict[str, Any] = {
        "input_image": str(job.source),
        "output_image": str(folder / f"corrected{ending}"),
        "lattice_image": str(folder / f"lattice{endings.LATTICES}"),
        "mask": "none" if request.mask == "none" else "tissue",
        "options": request.options,
    }
    if job.outputs.field:
        given["bias_image"] = str(folder / f"field{ending}")
    zooms = pixel_size(job, metadata)
    if zooms is not None:
        given["voxel_size_mm"] = zooms
    return given


def pixel_size(job: Job, metadata: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return distances of planes, rows and columns in mm from a sidecar; None if it has none.

    An OME-Zarr image has its own, which are used. One plane has no distance to the next.

    Raises
    ------
    ValueError
        If the sidecar's PixelSize or its unit cannot be understood.
    """
    if "PixelSize" not in metadata or job.source.name.endswith(".ome.zarr"):
        return None
    sizes, unit = metadata["PixelSize"], metadata.get("PixelSizeUnits", "mm")
    numbers = isinstance(sizes, list) and all(
        isinstance(size, int | float) and not isinstance(size, bool) and size > 0 for size in sizes
    )
    if unit not in MM or not numbers or len(sizes) not in (2, 3):
        raise ValueError(
            f"{job.source}: PixelSize is {sizes!r} with PixelSizeUnits {unit!r} in its sidecar; "
            "expected 2 or 3 positive numbers and mm, um or nm"
        )
    x, y, z = (MM[unit] * size for size in (*sizes, sizes[0])[:3])
    return z, y, x
