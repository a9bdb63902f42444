"""What the node is given for a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import Job
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS


def inputs(job: Job, request: Request, folder: Path) -> dict[str, Any]:
    """Return the inputs of `N4BiasFieldCorrection`, save those of the machine.

    Without `rescale` the whole image is divided by its field, so that corrected × field = input;
    with it a mask file means what it means to the ANTs program.

    Parameters
    ----------
    job : the image
    request : the run
    folder : where the outputs are written, absolute or from where the node runs

    Raises
    ------
    OSError, ValueError
        If the image cannot be corrected; one line that names it.
    """
    from n4ax_bids.correct import axes
    from n4ax_bids.interfaces.spec import node_inputs

    if job.problem:
        raise ValueError(f"{job.source}: {job.problem}")
    n_axes = axes(job.source)
    given: dict[str, Any] = node_inputs(request.options, n_axes)
    given |= {
        "input_image": str(job.source),
        "output_image": str(folder / "corrected.nii.gz"),
        "lattice_image": str(folder / "lattice.nii.gz"),
    }
    if job.outputs.field:
        given["bias_image"] = str(folder / "field.nii.gz")
    if n_axes != 3:
        given["dimension"] = n_axes
    if request.mask in (*MASK_WORDS, *MASK_PROGRAMS):
        given["auto_mask"] = request.mask
    if job.outputs.masks:
        given["found_mask_image"] = str(folder / "mask.nii.gz")
    if job.mask:
        given["mask_image"] = str(job.mask)
        given["correct_outside"] = not request.rescale
    if job.weight:
        given["weight_image"] = str(job.weight)
    for name in ("mask_transform", "weight_transform"):
        if getattr(job, name):
            given[name] = str(getattr(job, name))
    if not request.rescale:
        given["args"] = f"-r 0 {given.get('args', '')}".strip()
    if request.output_dtype == "source":
        given["output_dtype"] = "source"
    return given
