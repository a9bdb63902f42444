"""The derivative dataset: output names, JSON sidecars, the files at its root."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata as packages
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from n4ax_bids import __version__
from n4ax_bids.app import presence
from n4ax_bids.options import N4Options

if TYPE_CHECKING:
    from n4ax_bids.app.dataset import Job

NAME = "n4ax_bids"
BIDS_VERSION = "1.11.1"
LINK = "raw"
IGNORED = ("*.html", "figures", "group_*.tsv")
"""Lines of `.bidsignore`; "figures" has no slash because the validator takes no other form."""

DESCRIPTIONS = {
    "biascorr": "image divided by its estimated bias field",
    "biasfield": "estimated bias field; 1 where the image is left as it is",
    "biaslattice": "B-spline control points of the natural logarithm of the bias field",
}
"""Labels of the desc entity, and what they mean."""

_NOT_PROPAGATED = ("ConversionSoftware", "dcmmeta_")


@dataclass(frozen=True)
class Outputs:
    """Final names of what is made of one source image, absolute."""

    stem: str
    corrected: Path
    field: Path
    lattice: Path

    @property
    def images(self) -> tuple[Path, Path, Path]:
        """The images, in the order of `DESCRIPTIONS`."""
        return self.corrected, self.field, self.lattice

    @classmethod
    def of(cls, relative: PurePath, output_dir: Path) -> Outputs:
        """Build the names from the source's own name, so that every entity is kept."""
        stem = relative.name.removesuffix(".gz").removesuffix(".nii")
        entities, _, suffix = stem.rpartition("_")
        names = (f"{entities}_desc-{label}_{suffix}.nii.gz" for label in DESCRIPTIONS)
        return cls(stem, *(output_dir / relative.parent / name for name in names))


def sidecars(
    job: Job,
    metadata: Mapping[str, Any],
    correction: Mapping[str, Any],
    options: N4Options,
) -> dict[Path, dict[str, Any]]:
    """Return the content of the sidecar of each output; nothing in it depends on the clock.

    Parameters
    ----------
    job : the image
    metadata : what the raw dataset says of the image
    correction : the node's record of the run (`dataclasses.asdict` of a `Correction`)
    options : the options used
    """
    outputs = job.outputs
    common = {
        "Sources": [f"bids:{LINK}:{job.relative}"],
        "SkullStripped": metadata.get("SkullStripped") is True,
        "N4": _record(correction, options),
    }
    contents = {
        path: common | {"Description": f"{job.entities['suffix']}: {meaning}"}
        for path, meaning in zip(outputs.images, DESCRIPTIONS.values(), strict=True)
    }
    raw = {
        key: value
        for key, value in metadata.items()
        if _finite(value) is not None and not key.startswith(_NOT_PROPAGATED)
    }
    contents[outputs.corrected] = raw | contents[outputs.corrected]
    contents[outputs.field]["Units"] = "arbitrary"
    contents[outputs.lattice]["Lattice"] = correction["lattice"]
    return {sidecar_path(path): content for path, content in contents.items()}


def _record(correction: Mapping[str, Any], options: N4Options) -> dict[str, Any]:
    """Return what was asked for, what happened, and by which versions."""
    # Files, their digests and the lattice are told elsewhere; times change from run to run.
    elsewhere = ("output_image", "bias_image", "lattice_image", "lattice", "sha256", "seconds")
    happened = {key: value for key, value in correction.items() if key not in elsewhere}
    versions = {name: packages.version(name) for name in ("jax", "numpy")}
    return {
        "options": asdict(options),
        **happened,
        "versions": {NAME: __version__, **versions},
    }


def sidecar_path(image: Path) -> Path:
    """Return the name of the JSON file that describes an image."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def write_dataset_files(bids_dir: Path, output_dir: Path, raw: Mapping[str, Any]) -> None:
    """Write the files at the root of the derivative dataset, each of them whole or not at all.

    Parameters
    ----------
    bids_dir, output_dir : absolute paths
    raw : the raw dataset's description
    """
    ignored = output_dir / ".bidsignore"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    lines += [line for line in IGNORED if line not in lines]
    rows = [f"desc-{label}\t{meaning}" for label, meaning in DESCRIPTIONS.items()]
    description = dataset_description(bids_dir, output_dir, raw)
    write_text(output_dir / "dataset_description.json", encode(description))
    write_text(ignored, "\n".join(lines) + "\n")
    write_text(output_dir / "descriptions.tsv", "\n".join(["desc_id\tdescription", *rows, ""]))


def dataset_description(
    bids_dir: Path, output_dir: Path, raw: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the description of the derivative dataset."""
    digest = hashlib.sha256((bids_dir / "dataset_description.json").read_bytes()).hexdigest()
    source = {"Version": f"sha256:{digest} (dataset_description.json)"}
    if raw.get("DatasetDOI"):
        source["DOI"] = raw["DatasetDOI"]
    link = os.path.relpath(bids_dir.resolve(), output_dir.resolve())
    maker = {"Name": NAME, "Version": __version__, **_code_url()}
    inherited = {key: raw[key] for key in ("Authors", "License") if raw.get(key)}
    return inherited | {
        "Name": f"{NAME}: bias field correction of {raw.get('Name') or bids_dir.name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [maker],
        "SourceDatasets": [source],
        "DatasetLinks": {LINK: quote(Path(link).as_posix())},
    }


def _code_url() -> dict[str, str]:
    """Return where the code is, as the installed package says; nothing where it does not."""
    try:
        urls = packages.metadata("n4ax-bids").get_all("Project-URL") or ()
    except packages.PackageNotFoundError:
        return {}
    known = dict(url.split(", ", 1) for url in urls)
    address = known.get("Source") or known.get("Homepage")
    return {"CodeURL": address} if address else {}


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
