"""Decides whether an output folder was made from this dataset.

The path of a dataset proves nothing: in a container every dataset is `/data`. The description
alone proves too little: it may be edited, and two studies may start from the same template. So
images are compared if possible, and otherwise the descriptions.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.outputs import derivatives, finished
from n4ax_bids.app.outputs.fingerprint import fingerprint
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io import trees
from n4ax_bids.io.text import read_bytes, read_json

log = logging.getLogger("n4ax_bids")

TITLE = f"{derivatives.NAME}: bias field correction of "
"""beginning of the name of an output dataset; the name of its source follows"""
VERSION = "sha256:{} (dataset_description.json)"
"""version of the source in the description of the outputs"""
MOST = 64
"""largest number of images that are compared"""


@dataclass(frozen=True)
class Identity:
    """The parts of a description that identify its dataset."""

    name: str
    version: str
    """digest of the description"""
    doi: str = ""
    authors: tuple[str, ...] = ()
    is_named: bool = True
    """whether the name is from the description; the name of a folder, such as `/data`, proves
    nothing"""

    @classmethod
    def of(cls, bids_dir: Path, raw: Mapping[str, Any]) -> Identity:
        """Return the identity of a raw dataset, from its folder and its description."""
        text = read_bytes(bids_dir / "dataset_description.json", what="JSON")
        digest = hashlib.sha256(text).hexdigest()
        return cls(
            name_of(bids_dir, raw),
            VERSION.format(digest),
            _doi(raw),
            _authors(raw),
            is_named=bool(raw.get("Name")),
        )

    @classmethod
    def of_request(cls, request: Request, raw: Mapping[str, Any]) -> Identity:
        """Return the identity of what a run reads; all plain folders have the same one."""
        if request.is_bids:
            return cls.of(request.bids_dir, raw)
        return cls(request.bids_dir.name, "n4ax-files", is_named=False)

    @classmethod
    def in_outputs(cls, output_dir: Path) -> Identity | None:
        """Return the identity of the dataset from which outputs were made, if it is recorded."""
        try:
            made = read_json(output_dir / "dataset_description.json")
            (source,) = made["SourceDatasets"]
            name = str(made["Name"]).removeprefix(TITLE)
            return cls(
                name,
                str(source["Version"]),
                _doi({"DatasetDOI": source.get("DOI")}),
                _authors(made),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def agrees(self, other: Identity) -> bool:
        """Return whether two descriptions seem to describe the same dataset."""
        if self.version == other.version:
            return True
        if self.doi and other.doi:
            return self.doi == other.doi
        return self.is_named and (self.name, self.authors) == (other.name, other.authors)


def name_of(bids_dir: Path, raw: Mapping[str, Any]) -> str:
    """Return the name of a dataset, or the name of its folder if it has none."""
    return str(raw.get("Name") or bids_dir.name)


def check(request: Request, raw: Mapping[str, Any]) -> None:
    """Refuse to run if the output folder was made from another dataset.

    Parameters
    ----------
    request : the run
    raw : description of the raw dataset

    Raises
    ------
    Refusal
        One line that names both datasets and the remedy.
    """
    before, now = Identity.in_outputs(request.output_dir), Identity.of_request(request, raw)
    n_same, others = _compare_images(request)
    if n_same and n_same >= len(others):
        return
    if not others and (before is None or now.agrees(before)):
        return
    what = f"holds outputs of the dataset {before.name!r}" if before else "holds outputs"
    dataset = "dataset" if request.is_bids else "folder"
    if others:
        n = n_same + len(others)
        what += f", and {len(others)} of {n} images compared have another content: {others[0]}"
    if request.accept_new_source:
        log.warning(
            "%s: %s; continuing with the %s %r (--accept-new-source). Outputs of images that "
            "it does not have stay",
            request.output_dir,
            what,
            dataset,
            now.name,
        )
        return
    raise Refusal(
        Status.USAGE,
        f"{request.output_dir}: {what}; {request.bids_dir} is {now.name!r}. Expected the same "
        f"{dataset}, another output folder, or --accept-new-source",
    )


def sample(images: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """Return the fingerprints of up to 64 images of a dataset, by their names.

    Parameters
    ----------
    images : (path in the dataset, file) of each image; images that cannot be read are ignored
    """
    found = {}
    step = -(-len(images) // MOST) or 1
    for name, path in images[::step]:
        with suppress(OSError, ValueError):
            found[name] = fingerprint(path)
    return found


def why_other(sampled: Mapping[str, str], bids_dir: Path) -> str | None:
    """Return the first image with another content in this dataset, if most images differ.

    Parameters
    ----------
    sampled : fingerprints of the images of another dataset, by their names
    bids_dir : root of this dataset; images that it does not have are ignored
    """
    n_same, others = 0, []
    for name, known in sampled.items():
        if ".." in PurePath(name).parts or PurePath(name).is_absolute():
            continue
        with suppress(OSError, ValueError):  # this dataset does not have it
            if fingerprint(bids_dir / name) == known:
                n_same += 1
            else:
                others.append(name)
    return others[0] if len(others) > n_same else None


def _compare_images(request: Request) -> tuple[int, list[str]]:
    """Compare images with those from which outputs were made.

    Returns
    -------
    number of images with the same content, and names of those with another content. Images that
    are not in the dataset do not count, because it may be a part of the whole dataset.
    """
    n_same, others = 0, []
    for path in _records(request):
        try:
            made = read_json(path)
            name, known = made["source"], made["inputs"]["input_image"]
            image = request.bids_dir / name
            if trees.size(image) == known["size"] and _same_content(image, known):
                n_same += 1
            else:
                others.append(name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # no evidence: the image is missing or the record is damaged
    return n_same, others


def _same_content(image: Path, known: Mapping[str, Any]) -> bool:
    if "fingerprint" in known:
        return fingerprint(image) == known["fingerprint"]
    return bool(trees.sha256(image, what="an image") == known["sha256"])


def _records(request: Request) -> list[Path]:
    """Return records of images whose participants are in the dataset, the run's own first."""
    folder = request.output_dir / finished.FOLDER
    if not request.is_bids:
        every = sorted(folder.rglob("*.json"))
        return every[:: max(1, -(-len(every) // MOST))]
    known = _subjects(folder) & _subjects(request.bids_dir)
    chosen = {f"sub-{label}" for label in request.participants} & known
    found = list(_some(sorted(chosen), folder, MOST))
    return found + list(_some(sorted(known - chosen), folder, MOST - len(found)))


def _some(subjects: Sequence[str], folder: Path, most: int) -> Iterator[Path]:
    """Yield at most `most` records, evenly spread over the participants."""
    if most <= 0:
        return
    step = max(1, len(subjects) // most)
    for subject in subjects[::step][:most]:
        each = sorted((folder / subject).rglob("*.json"))
        yield from each[: max(1, most // len(subjects[::step][:most]))]


def _subjects(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir() if path.name.startswith("sub-")}
    except OSError:  # there is no such folder
        return set()


def _doi(raw: Mapping[str, Any]) -> str:
    """Return a DOI without the version at its end, as in DOIs of OpenNeuro."""
    doi = str(raw.get("DatasetDOI") or "").lower().removeprefix("doi:")
    return re.sub(r"\.v\d+(\.\d+)*$", "", doi)


def _authors(raw: Mapping[str, Any]) -> tuple[str, ...]:
    found = raw.get("Authors")
    return tuple(map(str, found)) if isinstance(found, list) else ()
