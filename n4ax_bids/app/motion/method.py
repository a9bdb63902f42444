"""What the BIDS-App asks of a method that makes outputs of its own; here, of realignment.

Each function below stands in for one of a correction by a bias field. The registry names this
module (`Method.app`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n4ax_bids import methods
from n4ax_bids.app.job import Job
from n4ax_bids.app.motion.chosen import chosen as chosen
from n4ax_bids.app.motion.figures import report as report
from n4ax_bids.app.motion.names import B_VALUES, B_VECTORS
from n4ax_bids.app.motion.names import ignored as ignored
from n4ax_bids.app.motion.names import meanings as meanings
from n4ax_bids.app.motion.names import names as names
from n4ax_bids.app.motion.sidecars import sidecars as sidecars
from n4ax_bids.app.outputs.derivatives import NAME
from n4ax_bids.app.outputs.provenance import Way
from n4ax_bids.app.request import Request
from n4ax_bids.arguments import listed


def node(job: Job, request: Request, folder: Path, **means: Any) -> Any:
    """Return the node that realigns a series; the parameters are those of `node_of`.

    Raises
    ------
    ValueError
        If the series cannot be realigned; one line that names it.
    """
    from n4ax_bids.interfaces.series import RealignSeries

    if job.problem:
        raise ValueError(f"{job.source}: {job.problem}")
    given: dict[str, Any] = {
        "input_image": str(job.source),
        "output_image": str(folder / "realigned.nii.gz"),
        "options": request.options,
        "output_dtype": request.output_dtype,
        "method_images": {
            label: str(folder / f"{label}{''.join(path.suffixes[-2:])}")
            for label, path in job.outputs.further.items()
        },
    }
    if job.outputs.field:
        given["bias_image"] = str(folder / "field.nii.gz")
    if job.volumes is not None:
        given["volumes"] = list(job.volumes)
    for path in job.texts:
        given[B_VALUES if path.suffix == ".bval" else B_VECTORS] = str(path)
    return RealignSeries(**means, **given)


def paragraphs(way: Way) -> Iterator[str]:
    """Yield the paragraphs of the methods text about one way; [@key] is a citation."""
    request, method = way.request, methods.METHODS[way.request.method]
    suffixes = listed(request.modalities)
    text = (
        f"The volumes of the {suffixes} series were realigned by a rigid motion [@{method.cited}] "
        f"with {NAME} {way.version} on JAX {way.jax} [@jax]."
    )
    if "dwi" in request.modalities:
        text += " Of DWI series, only the volumes with b = 0 were realigned and written."
    if request.options.bias != "none":
        text += (
            " The motion was estimated on the uncorrected series. Then all volumes were divided "
            f"by one bias field, which N4 [@n4] found in the {request.options.bias} image of the "
            f"series (mask: {request.options.bias_mask})."
        )
    stored = "in the type of the source" if request.output_dtype == "source" else "as float32"
    text += f" Each volume was resampled once and stored {stored}."
    if request.sloppy:
        text += " Few steps were made, to try the program out: these series are no result."
    yield text
    changed = request.options != method.presets[request.preset]
    yield methods.load(method.paragraph)(request.options, request.preset, changed)
    yield (
        "Series were found in the BIDS [@bids] dataset by PyBIDS [@pybids] and realigned by a "
        "node of Nipype [@nipype]."
    )
