"""The files of an image in the derivative dataset: output names, JSON sidecars."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata as packages
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from n4ax_bids import __version__
from n4ax_bids.app import presence
from n4ax_bids.app.request import Request

if TYPE_CHECKING:
    from n4ax_bids.app.dataset import Job

NAME = "n4ax_bids"
LINK = "raw"

CORRECTED = "image divided by its estimated bias field"
FIELD, LATTICE = "biasfield", "biaslattice"
DESCRIPTIONS = {
    FIELD: "estimated bias field",
    LATTICE: "B-spline control points of the natural logarithm of the bias field",
}
"""Labels of the desc entity, and what they mean; that of the corrected image can be chosen."""

_NOT_PROPAGATED = ("ConversionSoftware", "dcmmeta_")


@dataclass(frozen=True)
class Outputs:
    """Final names of what is made of one source image, absolute."""

    stem: str
    corrected: Path
    field: Path | None
    """None where it is not wanted"""
    lattice: Path

    @property
    def images(self) -> tuple[Path, ...]:
        """The images; the corrected one, where it is there, says that all others are."""
        return tuple(filter(None, (self.corrected, self.field, self.lattice)))

    @classmethod
    def of(
        cls,
        relative: PurePath,
        output_dir: Path,
        *,
        desc: str = "biascorr",
        bias_field: bool = True,
    ) -> Outputs:
        """Build the names from the source's own name, so that every entity is kept.

        Parameters
        ----------
        relative : name of the source in its dataset
        output_dir : root of the derivative dataset
        desc : label of the corrected image
        bias_field : whether the field is written as an image
        """
        stem = relative.name.removesuffix(".gz").removesuffix(".nii")
        entities, _, suffix = stem.rpartition("_")

        def path(label: str) -> Path:
            return output_dir / relative.parent / f"{entities}_desc-{label}_{suffix}.nii.gz"

        return cls(stem, path(desc), path(FIELD) if bias_field else None, path(LATTICE))


def sidecars(
    job: Job,
    metadata: Mapping[str, Any],
    correction: Mapping[str, Any],
    request: Request,
) -> dict[Path, dict[str, Any]]:
    """Return the content of the sidecar of each output; nothing in it depends on the clock.

    Parameters
    ----------
    job : the image
    metadata : what the raw dataset says of the image
    correction : the node's record of the run (`dataclasses.asdict` of a `Correction`)
    request : the run
    """
    outputs = job.outputs
    links = {path: _link(path, request) for path in (job.mask, job.weight) if path}
    common = {
        "Sources": [f"bids:{LINK}:{job.relative}", *links.values()],
        "SkullStripped": metadata.get("SkullStripped") is True,
        "N4": {"weight": links.get(job.weight, "none")}
        | _record(correction, request, {str(path): link for path, link in links.items()}),
    }
    meanings = {
        outputs.corrected: CORRECTED,
        outputs.field: DESCRIPTIONS[FIELD],
        outputs.lattice: DESCRIPTIONS[LATTICE],
    }
    contents = {
        path: common | {"Description": f"{job.entities['suffix']}: {meanings[path]}"}
        for path in outputs.images
    }
    raw = {
        key: value
        for key, value in metadata.items()
        if _finite(value) is not None and not key.startswith(_NOT_PROPAGATED)
    }
    contents[outputs.corrected] = raw | contents[outputs.corrected]
    if outputs.field:
        contents[outputs.field]["Units"] = "arbitrary"
    contents[outputs.lattice]["Lattice"] = correction["lattice"]
    return {sidecar_path(path): content for path, content in contents.items()}


def _link(path: Path, request: Request) -> str:
    """Return the BIDS URI of a file of another pipeline."""
    for name, folder in request.derivatives.items():
        if folder in path.parents:
            return f"bids:{name}:{path.relative_to(folder).as_posix()}"
    return path.name


def _record(
    correction: Mapping[str, Any], request: Request, links: Mapping[str, str]
) -> dict[str, Any]:
    """Return what was asked for, what happened, and by which versions."""
    # Files, their digests and the lattice are told elsewhere; times change from run to run,
    # folders from machine to machine.
    elsewhere = ("output_image", "bias_image", "lattice_image", "lattice", "sha256", "seconds")
    happened = {key: value for key, value in correction.items() if key not in elsewhere}
    happened["mask"] = links.get(correction["mask"], correction["mask"])
    happened["notes"] = list(correction.get("notes", ()))
    for path, link in links.items():
        happened["notes"] = [note.replace(path, link) for note in happened["notes"]]
    versions = {name: packages.version(name) for name in ("jax", "numpy")}
    return {
        "method": request.method,
        "options": asdict(request.options),
        **happened,
        "versions": {NAME: __version__, **versions},
    }


def sidecar_path(image: Path) -> Path:
    """Return the name of the JSON file that describes an image."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def encode(content: Mapping[str, Any]) -> str:
    """Return JSON text, the same for equal contents; what is not finite becomes null."""
    return json.dumps(_finite(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; leave a file that holds the text already."""
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return
    staged = presence.hidden(path)
    try:
        staged.write_bytes(data)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def publish(files: Iterable[tuple[Path, Path]]) -> None:
    """Move finished files to their final names, in the given order.

    All of them lie on the final file system before the first one gets its name, so a full
    disk leaves none behind.

    Parameters
    ----------
    files : (where the file is, its final name)
    """
    staged = []
    files = list(files)
    for _, target in files:
        if target.is_dir():
            raise IsADirectoryError(f"{target}: cannot be written, a folder has this name")
    try:
        for source, target in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            hidden = presence.hidden(target)
            staged.append((hidden, target))
            shutil.move(source, hidden)
        for hidden, target in staged:
            os.replace(hidden, target)
    finally:
        for hidden, _ in staged:
            hidden.unlink(missing_ok=True)


def remove_unwanted(outputs: Outputs) -> None:
    """Remove an earlier run's field where this one wants none: it would be of another image."""
    if outputs.field is None:
        field = outputs.lattice.with_name(outputs.lattice.name.replace(LATTICE, FIELD))
        field.unlink(missing_ok=True)
        sidecar_path(field).unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    return value
