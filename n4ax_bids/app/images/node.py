"""The node for a job, and its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n4ax_bids.app.job import Job
from n4ax_bids.app.request import Request
from n4ax_bids.methods import outputs_of
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS


def node_of(job: Job, request: Request, folder: Path, **means: Any) -> Any:
    """Return the node that makes the outputs of an image.

    Parameters
    ----------
    job, request, folder : as `inputs`
    means : inputs that say what the node may use: device and num_threads
    """
    own = outputs_of(request.method)
    if own:
        return own.node(job, request, folder, **means)
    from n4ax_bids.interfaces import BiasFieldCorrection

    return BiasFieldCorrection(**means, **inputs(job, request, folder))


def inputs(job: Job, request: Request, folder: Path) -> dict[str, Any]:
    """Return the inputs of `BiasFieldCorrection`, except device and threads.

    Without `rescale` the whole image is divided by its field, so that corrected × field = input.
    With `rescale` a mask file has the same effect as in the ANTs program.

    Parameters
    ----------
    job : the image
    request : the run
    folder : where the outputs are written, absolute or relative to the node's current folder

    Raises
    ------
    OSError, ValueError
        If the image cannot be corrected; one line that names it.
    """
    from n4ax_bids.demand import axes

    if job.problem:
        raise ValueError(f"{job.source}: {job.problem}")
    given: dict[str, Any] = {
        "input_image": str(job.source),
        "output_image": str(folder / "corrected.nii.gz"),
        "lattice_image": str(folder / "lattice.nii.gz"),
        "options": request.options,
        "dimension": axes(job.source),
        "rescale_intensities": request.rescale,
        "output_dtype": request.output_dtype,
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
