"""The JSON files beside the outputs of a realigned series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import FIELD, Job
from n4ax_bids.app.motion.names import B_VALUES, B_VECTORS, CONFOUNDS, REFERENCE, TRANSFORMS
from n4ax_bids.app.outputs.derivatives import LINK, NAME, sidecar_path
from n4ax_bids.app.outputs.sidecars import MOTION_KEY, camel_case, propagated
from n4ax_bids.app.request import Request

DESCRIPTIONS = {
    "series": "series whose volumes were realigned, each resampled once",
    FIELD: "estimated bias field, by which all volumes were divided",
    REFERENCE: "image to which the volumes were realigned",
    TRANSFORMS: "rigid transforms from the reference to each volume, as ITK reads them",
    CONFOUNDS: "estimated motion: a row for each volume",
}
COLUMNS = {
    **{
        f"trans_{axis}": {
            "Description": f"translation along {axis}, of the centre of the grid",
            "Units": "mm",
        }
        for axis in "xyz"
    },
    **{
        f"rot_{axis}": {
            "Description": f"rotation about {axis} and the centre of the grid, with SPM's sign",
            "Units": "rad",
        }
        for axis in "xyz"
    },
    "framewise_displacement": {
        "Description": "sum of the absolute changes of the six parameters since the volume "
        "before, rotations as arcs on a sphere of 50 mm (Power et al., 2012)",
        "Units": "mm",
    },
    "rmsd": {
        "Description": "root mean square displacement since the volume before, in a sphere of 80 "
        "mm (Jenkinson et al., 1999)",
        "Units": "mm",
    },
    "scale": {"Description": "intensity of the volume, as a multiple of the reference's"},
    "residual": {"Description": "mean squared difference to the reference after realignment"},
}
"""of the table with the motion"""
ELSEWHERE = ("output_image", "bias_image", "method", "details", "sha256", "seconds")
"""keys of the record that files, digests and times belong to; they are written elsewhere"""


def sidecars(
    job: Job,
    metadata: Mapping[str, Any],
    correction: Mapping[str, Any],
    request: Request,
) -> dict[Path, dict[str, Any]]:
    """Return the content of the sidecar of each output; no part of it depends on the time.

    The parameters are those of `n4ax_bids.app.outputs.sidecars.of`.
    """
    outputs, suffix = job.outputs, job.entities["suffix"]
    common: dict[str, Any] = {
        "Sources": [f"bids:{LINK}:{job.relative}"],
        "SkullStripped": metadata.get("SkullStripped") is True,
        MOTION_KEY: _facts(job, correction, request),
    }
    paths = {"series": outputs.corrected, FIELD: outputs.field, **outputs.further}
    for label in (B_VALUES, B_VECTORS):  # BIDS has no JSON file for these
        paths.pop(label, None)
    contents = {
        path: common | {"Description": f"{suffix}: {DESCRIPTIONS[label]}"}
        for label, path in paths.items()
        if path is not None
    }
    contents[outputs.corrected] = propagated(metadata) | contents[outputs.corrected]
    if outputs.field:
        contents[outputs.field]["Units"] = "arbitrary"
    contents[outputs.further[CONFOUNDS]] |= COLUMNS
    return {sidecar_path(path): content for path, content in contents.items()}


def _facts(job: Job, correction: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Return the options, the results and the versions of a realignment."""
    happened = {key: value for key, value in correction.items() if key not in ELSEWHERE}
    facts: dict[str, Any] = {
        "Method": request.method,
        "Options": asdict(request.options),
        "Details": correction["details"],
        **camel_case({**happened, "notes": list(correction.get("notes", ()))}),
        "Versions": {
            NAME: __version__,
            **{name: packages.version(name) for name in ("jax", "numpy")},
        },
    }
    if job.volumes is not None:
        facts["Volumes"] = list(job.volumes)
        facts["VolumesAre"] = "numbers of the volumes with b = 0 in the source; no other was taken"
    return facts
