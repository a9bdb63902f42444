"""Puts the files that a node has made in place, with the record that the image is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n4ax_bids.app.job import Job
from n4ax_bids.app.machine.claims import Claim, Taken
from n4ax_bids.app.outputs import derivatives, finished, sidecars
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.io import trees

FURTHER = "method_images"
"""output of the node with the further images of the method, by their labels"""
MADE = {
    "output_image": "corrected",
    "bias_image": "field",
    "lattice_image": "lattice",
    "found_mask_image": "masks",
    "method_images": "further",
}
"""Outputs of the node, and their names in `OutputNames`."""


@dataclass(frozen=True)
class Begun:
    """An image that is being processed, with the state of its files at the beginning."""

    job: Job
    request: Request
    claim: Claim
    inputs: finished.Inputs
    """its files as they were before they were read"""
    metadata: Mapping[str, Any]
    """its metadata in the raw dataset"""
    started: datetime

    @classmethod
    def now(cls, job: Job, request: Request, claim: Claim) -> Begun:
        """Look at the files of an image at the beginning of its processing.

        Raises
        ------
        OSError, ValueError
            If one of them does not exist or cannot be read; one line that names it.
        """
        started = datetime.now(UTC)
        dataset.read_metadata(job)  # first, because it reports damaged sidecars most clearly
        inputs = finished.Inputs.of(job)
        return cls(job, request, claim, inputs, dataset.read_metadata(job), started)


def wanted(job: Job) -> list[str]:
    """Return the node's outputs that are published for a job."""
    return [name for name, label in MADE.items() if getattr(job.outputs, label)]


def files_of(outputs: Any, job: Job) -> dict[str, Path]:
    """Return the node's files by the names of its outputs; further images by their labels."""
    files = {name: Path(getattr(outputs, name)) for name in wanted(job) if name != FURTHER}
    if job.outputs.further:
        files |= {label: Path(path) for label, path in outputs.method_images.items()}
    return files


def publish(
    begun: Begun, correction: Mapping[str, Any], made: Mapping[str, Path], folder: Path
) -> dict[str, Any]:
    """Put the outputs of an image in place, and record that it is finished.

    Parameters
    ----------
    begun : the image
    correction : the node's output `correction`
    made : the node's files by the names of its outputs; they are moved
    folder : folder for unfinished files

    Returns
    -------
    dict, `correction` with additional notes for the user from the metadata of the image

    Raises
    ------
    Taken
        If another run has taken the image over.
    """
    job, request = begun.job, begun.request
    notes = [*dataset.notes(job, begun.metadata, request), *correction.get("notes", ())]
    correction = {**correction, "notes": notes}
    kind = sidecars.kind_of_mask(job, correction)
    files = _written(sidecars.of(job, begun.metadata, correction, request), folder)
    files += [(made[target.name], target) for target in finished.copies(job).values()]
    # The corrected image comes last, except for the record: if it exists, all others exist.
    files += [(made[name], target) for name, target in reversed(_targets(job, kind).items())]
    files.append(_record(begun, correction, files, folder))
    finished.require_unchanged(job, begun.inputs, correction.get("sha256", {}))
    derivatives.require_inside(request.output_dir, [target for _, target in files])
    if not begun.claim.holds():
        raise Taken
    finished.forget(job, request.output_dir)
    derivatives.remove_unwanted(job.outputs, kind)
    derivatives.publish(files)
    return correction


def _targets(job: Job, kind: str | None) -> dict[str, Path]:
    """Return the final paths of the node's files, by the names of its outputs or by labels."""
    targets = {name: getattr(job.outputs, MADE[name]) for name in wanted(job) if name != FURTHER}
    targets |= job.outputs.further
    if kind:
        targets["found_mask_image"] = job.outputs.masks[kind]
    return targets


def _written(contents: Mapping[Path, Any], folder: Path) -> list[tuple[Path, Path]]:
    """Write sidecars under temporary names; return (current path, final path) of each."""
    files = []
    for number, (path, content) in enumerate(contents.items()):
        written = folder / f"{number}.json"
        written.write_text(derivatives.encode(content), encoding="utf-8")
        files.append((written, path))
    return files


def _record(
    begun: Begun,
    correction: Mapping[str, Any],
    files: Sequence[tuple[Path, Path]],
    folder: Path,
) -> tuple[Path, Path]:
    """Write the record of an image; return its current path and its final path."""
    text = finished.text(
        begun.job,
        begun.request,
        inputs=begun.inputs,
        correction=correction,
        sizes={path: trees.size(source) for source, path in files},
        started=begun.started,
    )
    written = folder / "record.json"
    written.write_text(text, encoding="utf-8")
    return written, finished.path_of(begun.job, begun.request.output_dir)
