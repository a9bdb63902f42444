"""The names of the outputs of a realigned series, as in fMRIPrep, and their meanings."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import PurePath

from n4ax_bids.app.job import FIELD, OutputNames, short_stem, too_long
from n4ax_bids.app.request import Request
from n4ax_bids.io.atomic import n_bytes

REFERENCES = {"bold": "boldref", "cbv": "cbvref", "asl": "aslref", "dwi": "dwiref"}
"""suffixes of reference images, by those of the series; "ref" is the desc label of others"""
REFERENCE, TRANSFORMS, CONFOUNDS = "reference", "transforms", "confounds"
B_VALUES, B_VECTORS = "b_values", "b_vectors"
"""labels of the outputs besides the series"""
MEANINGS = {
    "hmcref": "image to which the volumes of a series were realigned",
    "confounds": "estimated motion of each volume of a series",
}


def names(relative: PurePath, request: Request) -> OutputNames:
    """Return the names of the outputs of a series.

    Parameters
    ----------
    relative : name of the series in its dataset
    request : the run
    """
    stem = relative.name.removesuffix(".gz").removesuffix(".nii")
    problem = too_long(max(_named(stem, request).values(), key=n_bytes), request.output_dir)
    if problem:
        stem = short_stem(stem)
    folder = request.output_dir / relative.parent
    paths = {label: folder / name for label, name in _named(stem, request).items()}
    field = paths.pop(FIELD)
    wanted = request.bias_field and request.options.bias != "none"
    return OutputNames(
        stem,
        paths.pop("series"),
        field if wanted else None,
        None,
        problem,
        further=paths,
        absent=() if wanted else (field,),
    )


def _named(stem: str, request: Request) -> dict[str, str]:
    """Return all names by their labels."""
    entities, _, suffix = stem.rpartition("_")
    reference = REFERENCES.get(suffix)
    shown = f"desc-{request.desc}_{reference}" if reference else f"desc-hmcref_{suffix}"
    # Two anatomical series may differ in the suffix alone, which a table does not have.
    table = "confounds" if reference in ("boldref", "aslref", "dwiref") else f"{suffix}confounds"
    space = reference or f"{suffix}ref"
    return {
        "series": f"{entities}_desc-{request.desc}_{suffix}.nii.gz",
        FIELD: f"{entities}_desc-{FIELD}_{reference or suffix}.nii.gz",
        REFERENCE: f"{entities}_{shown}.nii.gz",
        TRANSFORMS: f"{entities}_from-orig_to-{space}_mode-image_desc-{request.desc}_xfm.txt",
        CONFOUNDS: f"{entities}_desc-{table}_timeseries.tsv",
    }


def with_gradients(outputs: OutputNames, endings: Collection[str]) -> OutputNames:
    """Add the b-values and directions of a DWI series to its outputs.

    Parameters
    ----------
    outputs : of the series
    endings : of the files that the source has, .bval and perhaps .bvec; other ones of an earlier
        run are removed
    """
    series = outputs.corrected
    stem = series.name.removesuffix(".nii.gz")
    paths = {
        label: (ending, series.with_name(stem + ending))
        for label, ending in ((B_VALUES, ".bval"), (B_VECTORS, ".bvec"))
    }
    there = {label: path for label, (ending, path) in paths.items() if ending in endings}
    absent = [path for label, (_, path) in paths.items() if label not in there]
    return dataclasses.replace(
        outputs, further={**outputs.further, **there}, absent=(*outputs.absent, *absent)
    )


def meanings(request: Request) -> dict[str, str]:
    """Return the meanings of the desc labels, for descriptions.tsv."""
    found = {request.desc: "series realigned to correct for the motion of the head", **MEANINGS}
    if request.options.bias != "none":
        found[FIELD] = "estimated bias field"
    return found


def ignored(request: Request) -> list[str]:
    """Return lines for `.bidsignore`: what BIDS does not know yet, as fMRIPrep ignores it.

    DWI series may have no directions (.bvec), and anatomical series are no images of one volume;
    the validator takes both for errors.
    """
    found = ["*_xfm.*", "*_timeseries.*", "*ref.nii.gz", "*ref.json"]
    others = [s for s in request.modalities if s == "dwi" or s not in REFERENCES]
    return found + [f"*_desc-{request.desc}_{suffix}.*" for suffix in others]
