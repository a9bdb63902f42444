"""N4 as a part of a larger Nipype workflow."""

from __future__ import annotations

from typing import Literal

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.interfaces.spec import node_inputs
from n4ax_bids.options import N4Options


def init_n4_wf(
    *,
    options: N4Options | None = None,
    auto_mask: Literal["otsu", "auto", "head", "brain", "synthstrip", "hd-bet"] | None = None,
    per_image: tuple[Literal["in_mask", "in_weight"], ...] = (),
    dimension: Literal[2, 3] = 3,
    copy_header: bool = True,
    device: str | None = None,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "n4_wf",
) -> pe.Workflow:
    """Build a workflow that corrects the bias field of each image of a list.

    Workflow graph: ``inputnode`` → ``n4`` (a MapNode over ``in_files``) → ``outputnode``. Voxels
    are used and rescaled as in the ANTs program: without a mask all of them are used; with a mask,
    those outside keep their values.

    Parameters
    ----------
    options : N4Options, by default the ANTs program's; ``n4ax_bids.preset(name)`` returns others
    auto_mask : "otsu" to estimate inside Otsu's mask of each image and correct the whole image;
        "head", "brain", or "auto" for the brain where one is found, else the head; "synthstrip"
        or "hd-bet" for the brain that this program finds
    per_image : which of ``in_mask`` and ``in_weight`` are lists with a file for each image; the
        others are one file for all images, or not set
    dimension : axes of the images
    copy_header : write corrected images in the type of the input, with its header texts
    device : "auto", "cpu", "gpu" or "gpu:N"; by default the node's
    omp_nthreads : threads that nipype reserves for each image; its GPU queue needs as many GPUs,
        or ``raise_insufficient=False``
    mem_gb : memory in GB that nipype reserves for each image
    name : name of the workflow

    Inputs
    ------
    in_files : list of images
    in_mask : file, or list with ``per_image``; not 0 = inside; may be undefined
    in_weight : file, or list with ``per_image``; confidence > 0; may be undefined

    Outputs
    -------
    bias_corrected : list of corrected images
    bias_image : list of fields, input / field = corrected
    lattice_image : list of fields as control points
    correction : list of dictionaries, the record of what was done

    Examples
    --------
    >>> from n4ax_bids import preset
    >>> from n4ax_bids.workflows import init_n4_wf
    >>> wf = init_n4_wf(options=preset("fmriprep"), per_image=("in_weight",))
    >>> wf.inputs.inputnode.in_files = ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    """
    traits_of = {"in_mask": "mask_image", "in_weight": "weight_image"}
    unknown = set(per_image) - set(traits_of)
    if unknown:
        raise ValueError(f"per_image has {sorted(unknown)}; expected some of {list(traits_of)}")
    inputs = node_inputs(options or N4Options(), dimension)
    for trait, value in (("auto_mask", auto_mask), ("device", device)):
        if value is not None:
            inputs[trait] = value

    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(IdentityInterface(fields=["in_files", *traits_of]), name="inputnode")
    n4 = pe.MapNode(
        N4BiasFieldCorrection(
            dimension=dimension, save_bias=True, copy_header=copy_header, **inputs
        ),
        iterfield=["input_image", *(traits_of[field] for field in per_image)],
        n_procs=omp_nthreads,
        mem_gb=mem_gb,
        name="n4",
    )
    outputs = {
        "bias_corrected": "output_image",
        "bias_image": "bias_image",
        "lattice_image": "lattice_image",
        "correction": "correction",
    }
    outputnode = pe.Node(IdentityInterface(fields=list(outputs)), name="outputnode")
    workflow.connect(
        [
            (inputnode, n4, [("in_files", "input_image"), *traits_of.items()]),
            (n4, outputnode, [(trait, field) for field, trait in outputs.items()]),
        ]
    )
    return workflow
