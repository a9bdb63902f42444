"""The content of the JSON sidecars of an image's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import CORRECTED, DESCRIPTIONS, FIELD, LATTICE, MASKS, Job
from n4ax_bids.app.outputs.derivatives import LINK, NAME, finite, sidecar_path
from n4ax_bids.app.request import Request
from n4ax_bids.methods import METHODS, outputs_of

APPLIED = "applied"
"""`Method` of an image that got the field of another one"""
KEY, MOTION_KEY = "BiasCorrection", "MotionCorrection"
"""keys of a sidecar for the options and the results of a correction or of a realignment"""
_NOT_PROPAGATED = ("ConversionSoftware", "dcmmeta_")


def of(
    job: Job,
    metadata: Mapping[str, Any],
    correction: Mapping[str, Any],
    request: Request,
) -> dict[Path, dict[str, Any]]:
    """Return the content of the sidecar of each output; no part of it depends on the time.

    Parameters
    ----------
    job : the image
    metadata : metadata of the image in the raw dataset
    correction : the node's output `correction` (`dataclasses.asdict` of a `Correction`)
    request : the run
    """
    own = outputs_of(request.method)
    if own:
        return own.sidecars(job, metadata, correction, request)
    if job.reference:
        return _of_applied(job, metadata, correction, request)
    outputs = job.outputs
    used = (job.mask, job.weight, job.mask_transform, job.weight_transform)
    links = {path: _link(path, request) for path in used if path}
    common = {
        "Sources": [_source(job, request), *links.values()],
        "SkullStripped": metadata.get("SkullStripped") is True,
        KEY: {"Weight": links[job.weight] if job.weight else "none"}
        | _record(correction, request, {str(path): link for path, link in links.items()}),
    }
    meanings: dict[Path | None, str] = {
        outputs.corrected: CORRECTED,
        outputs.field: DESCRIPTIONS[FIELD],
        outputs.lattice: DESCRIPTIONS[LATTICE],
    }
    for output in METHODS[request.method].outputs:
        if output.label in outputs.further:
            meanings[outputs.further[output.label]] = output.meaning
    contents = {
        path: common | {"Description": _described(job, meanings[path], request)}
        for path in outputs.images
    }
    contents[outputs.corrected] = propagated(metadata) | contents[outputs.corrected]
    if outputs.field:
        contents[outputs.field]["Units"] = "arbitrary"
    if outputs.lattice:
        contents[outputs.lattice]["Lattice"] = correction["lattice"]
    kind = kind_of_mask(job, correction)
    if kind:
        contents[outputs.masks[kind]] = common | {
            "Description": _described(job, MASKS[kind], request),
            "Type": "Brain" if kind == "brain" else "ROI",
            "SpatialReference": _source(job, request),
        }
    return {sidecar_path(path): content for path, content in contents.items()}


def _of_applied(
    job: Job, metadata: Mapping[str, Any], correction: Mapping[str, Any], request: Request
) -> dict[Path, dict[str, Any]]:
    """Return the sidecar of an image that got the field of another one."""
    assert job.reference is not None and job.reference.outputs.lattice is not None
    lattice = job.reference.outputs.lattice
    reference = job.reference.outputs.stem
    content = propagated(metadata) | {
        "Sources": [
            f"bids:{LINK}:{job.relative}",
            f"bids::{lattice.relative_to(request.output_dir).as_posix()}",
        ],
        "SkullStripped": metadata.get("SkullStripped") is True,
        "Description": f"{job.entities['suffix']}: image divided by the bias field of {reference}",
        KEY: {
            "Method": APPLIED,
            "FieldOf": f"bids:{LINK}:{job.reference.relative}",
            "Voxels": correction["n_voxels"],
            "VoxelsOutside": correction["n_outside"],
            "Volumes": correction["n_volumes"],
            "Notes": [each.removeprefix(f"{job.source}: ") for each in correction["notes"]],
            "Versions": {NAME: __version__},
        },
    }
    return {sidecar_path(job.outputs.corrected): content}


def _source(job: Job, request: Request) -> str:
    """Return the BIDS URI of the image, or its path below the folder where it was found."""
    return f"bids:{LINK}:{job.relative}" if request.is_bids else job.relative


def _described(job: Job, meaning: str, request: Request) -> str:
    return f"{job.entities['suffix']}: {meaning}" if request.is_bids else meaning


def facts_of(sidecar: Mapping[str, Any]) -> Any:
    """Return what the sidecar of a corrected or realigned image says of how it was made."""
    return sidecar.get(KEY) or sidecar.get(MOTION_KEY)


def propagated(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an image that also hold for its corrected version."""
    return {
        key: value
        for key, value in metadata.items()
        if finite(value) is not None and not key.startswith(_NOT_PROPAGATED)
    }


def kind_of_mask(job: Job, correction: Mapping[str, Any]) -> str | None:
    """Return the kind of the mask that is written for an image, or None if none is written.

    Parameters
    ----------
    job : the image
    correction : the node's output `correction`
    """
    if not job.outputs.masks:
        return None
    found = correction.get("mask_found") or {}
    return found.get("kind", correction["mask"])


def how_found(facts: Mapping[str, Any]) -> list[str]:
    """Return in words how a mask was found: the rounds and the confidence, or the program.

    Parameters
    ----------
    facts : `MaskFound` of a sidecar, or `mask_found` of a node's output `correction`
    """
    facts = {key.lower(): value for key, value in facts.items()}
    if "program" in facts:
        return [f"by {facts['program']} {facts['version'] or '(version not known)'}"]
    sure = facts["confidence"]
    return [f"{facts['rounds']} rounds"] + ([] if sure is None else [f"confidence {sure:.2f}"])


def _link(path: Path, request: Request) -> str:
    """Return the BIDS URI of a file of another pipeline."""
    for name, folder in request.derivatives.items():
        if folder in path.parents:
            return f"bids:{name}:{path.relative_to(folder).as_posix()}"
    return path.name


def _record(
    correction: Mapping[str, Any], request: Request, links: Mapping[str, str]
) -> dict[str, Any]:
    """Return the options, the results and the versions of a correction."""
    # Files, digests and lattice are recorded elsewhere. Times differ between runs, and folders
    # between machines.
    files = ("output_image", "bias_image", "lattice_image", "found_mask_image", "method_images")
    elsewhere = (*files, "method", "details", "lattice", "sha256", "seconds")
    happened = {key: value for key, value in correction.items() if key not in elsewhere}
    if not happened.get("mask_found"):
        happened.pop("mask_found", None)
    happened["mask"] = links.get(correction["mask"], correction["mask"])
    happened["notes"] = list(correction.get("notes", ()))
    for path, link in links.items():
        happened["notes"] = [note.replace(path, link) for note in happened["notes"]]
    versions = {name: version_of(name) for name in ("jax", "numpy")}
    return {
        "Method": request.method,
        "Options": asdict(request.options),
        "Details": correction["details"],
        **({} if METHODS[request.method].streams else {"FieldScale": request.field_scale}),
        **camel_case(happened),
        "Versions": {NAME: __version__, **versions},
    }


def camel_case(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with their names in the form of BIDS keys: field_min becomes FieldMin."""
    return {
        "".join(part.capitalize() for part in key.split("_")): (
            camel_case(value) if isinstance(value, Mapping) else value
        )
        for key, value in facts.items()
    }


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package; the file that has it is read once."""
    return packages.version(package)
