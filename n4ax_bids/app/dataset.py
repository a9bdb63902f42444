"""A BIDS dataset in, the list of jobs out."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n4ax_bids.app.derivatives import Outputs
from n4ax_bids.app.status import Refusal, Status

QUERIES = Path(__file__).parents[1] / "data" / "queries.json"
"""pybids filters, one set for each kind of image; null means that the entity is absent."""


@dataclass(frozen=True)
class Job:
    """One image to correct.

    Parameters
    ----------
    source : the image, absolute
    relative : the same from the dataset's root, with "/", as in a BIDS URI
    outputs : final names of what is made of it, absolute
    entities : BIDS entities of the source's name
    sidecars : JSON files that describe the source, from the dataset's root downwards
    mask, weight : files of other pipelines, absolute
    """

    source: Path
    relative: str
    outputs: Outputs
    entities: Mapping[str, Any]
    sidecars: tuple[Path, ...]
    mask: Path | None = None
    weight: Path | None = None

    @property
    def name(self) -> str:
        """The source's name without extension."""
        return self.outputs.stem


@dataclass(frozen=True)
class Selection:
    """What a query found: the jobs, and (file, reason) for each image that was left out."""

    jobs: tuple[Job, ...]
    skipped: tuple[tuple[str, str], ...]


def read_description(bids_dir: Path) -> dict[str, Any]:
    """Return the dataset's description; refuse a folder that is no BIDS dataset."""
    path = bids_dir / "dataset_description.json"
    if not bids_dir.is_dir():
        raise Refusal(Status.INVALID_INPUT, f"{bids_dir}: no such folder; expected a BIDS dataset")
    if not path.is_file():
        raise Refusal(Status.INVALID_INPUT, f"{bids_dir}: no BIDS dataset: it has no {path.name}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(Status.INVALID_INPUT, f"{path}: not readable as JSON: {error}") from error
    if not isinstance(description, dict):
        raise Refusal(Status.INVALID_INPUT, f"{path}: holds no JSON object")
    return description


def select(
    bids_dir: Path,
    output_dir: Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
) -> Selection:
    """Return one job for each T1w and T2w image of the chosen participants and sessions.

    Parameters
    ----------
    bids_dir, output_dir : absolute paths
    participants, sessions : labels with or without "sub-" and "ses-"; none means all

    Raises
    ------
    Refusal
        For a label that is not there, an empty selection, or two images that would share
        an output.
    """
    participants = [label.removeprefix("sub-") for label in participants]
    sessions = [label.removeprefix("ses-") for label in sessions]
    subject_dirs = _labelled(bids_dir, "sub-")
    _require_known("participant", participants, subject_dirs)
    chosen = [subject_dirs[label] for label in participants or subject_dirs]
    _require_known("session", sessions, [s for d in chosen for s in _labelled(d, "ses-")])

    layout = _index(bids_dir, participants, sessions)
    limits = {"session": sessions} if sessions else {}
    jobs, skipped = [], []
    for filters in json.loads(QUERIES.read_text(encoding="utf-8")).values():
        taken, left = _query(layout, filters, limits)
        sidecars = _by_folder(layout.get(suffix=filters["suffix"], extension=".json"))
        jobs += [_job(bids_dir, output_dir, image, sidecars) for image in taken]
        skipped += left
    if not jobs:
        _refuse_empty(bids_dir, filtered=bool(participants or sessions), skipped=skipped)
    jobs.sort(key=lambda job: job.relative)
    _require_distinct(jobs)
    return Selection(tuple(jobs), tuple(sorted(skipped)))


def read_metadata(job: Job) -> dict[str, Any]:
    """Merge the job's sidecars, the nearest to the image last, as BIDS inheritance asks.

    pybids can do this too, but there one broken sidecar ends the whole index; here it ends
    one image.
    """
    metadata: dict[str, Any] = {}
    for path in job.sidecars:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not readable as JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: holds no JSON object")
        metadata.update(content)
    return metadata


def _labelled(folder: Path, prefix: str) -> dict[str, Path]:
    found = sorted(path for path in folder.glob(f"{prefix}*") if path.is_dir())
    return {path.name.removeprefix(prefix): path for path in found}


def _require_known(kind: str, labels: Sequence[str], known: Iterable[str]) -> None:
    known = sorted(set(known))
    unknown = [label for label in labels if label not in known]
    if unknown:
        there = ", ".join(known[:50]) + (f" and {len(known) - 50} more" if known[50:] else "")
        raise Refusal(
            Status.USAGE,
            f"no {kind} {', '.join(unknown)} in the dataset; there are: {there or 'none'}",
        )


def _index(bids_dir: Path, participants: Sequence[str], sessions: Sequence[str]) -> Any:
    """Index the anatomical folders of the chosen participants and sessions, names only."""
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignore = [
        re.compile(r"^/(?!sub-)[^/.]+$"),  # sourcedata, derivatives, code, …
        re.compile(r"^/sub-[^/]+/(ses-[^/]+/)?(?!anat$|ses-)[^/.]+$"),  # func, fmap, dwi, …
    ]
    for prefix, labels in (("^/sub-", participants), ("^/sub-[^/]+/ses-", sessions)):
        if labels:
            ignore.append(re.compile(f"{prefix}(?!({'|'.join(map(re.escape, labels))})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    return BIDSLayout(
        bids_dir,
        validate=False,
        derivatives=False,
        config=["bids", "derivatives"],
        indexer=indexer,
    )


def _query(layout: Any, filters: Mapping[str, Any], limits: Mapping[str, Any]) -> tuple:
    """Return the images that pass the filters, and (file, reason) for those of their kind."""
    from bids.layout import Query

    def decode(value: Any) -> Any:
        return Query.NONE if value is None else value

    kind = {key: filters[key] for key in ("datatype", "suffix", "extension")} | dict(limits)
    extra = {key: value for key, value in filters.items() if key not in kind}
    wanted = {
        key: [decode(v) for v in value] if isinstance(value, list) else decode(value)
        for key, value in extra.items()
    }
    taken = layout.get(**kind, **wanted)
    names = {image.path for image in taken}
    left = [image for image in layout.get(**kind) if image.path not in names]
    return taken, [(image.relpath, _reason(image.entities, extra)) for image in left]


def _reason(entities: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
    for key, value in filters.items():
        allowed = value if isinstance(value, list) else [value]
        if entities.get(key) not in allowed:
            names = " or ".join("none" if v is None else str(v) for v in allowed)
            return f"{key} is {entities.get(key)}; taken are images with {key} {names}"
    return "outside the filters"


def _job(bids_dir: Path, output_dir: Path, image: Any, sidecars: Mapping[Path, list]) -> Job:
    relative = Path(image.relpath)
    return Job(
        source=bids_dir / relative,
        relative=relative.as_posix(),
        outputs=Outputs.of(relative, output_dir),
        entities=dict(image.entities),
        sidecars=_inherited(bids_dir, relative, image.entities, sidecars),
    )


def _by_folder(sidecars: Iterable[Any]) -> dict[Path, list]:
    folders = defaultdict(list)
    for sidecar in sidecars:
        entities = {key: value for key, value in sidecar.entities.items() if key != "extension"}
        path = Path(sidecar.relpath)
        folders[path.parent].append((path, entities.items()))
    return folders


def _inherited(
    bids_dir: Path, relative: Path, entities: Mapping[str, Any], sidecars: Mapping[Path, list]
) -> tuple[Path, ...]:
    """Return the sidecars in folders above the image whose entities the image has too."""
    found = [
        (len(folder.parts), len(own), path)
        for folder in relative.parents
        for path, own in sidecars.get(folder, ())
        if own <= entities.items()
    ]
    return tuple(bids_dir / path for *_, path in sorted(found))


def _refuse_empty(bids_dir: Path, *, filtered: bool, skipped: Sequence) -> None:
    if filtered or skipped:
        why = f"; left out {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise Refusal(
            Status.NOTHING_SELECTED, f"{bids_dir}: no T1w or T2w image passes the filters{why}"
        )
    raise Refusal(Status.NO_IMAGES, f"{bids_dir}: the dataset has no T1w and no T2w image")


def _require_distinct(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.outputs.corrected, job)
        if other is not job:
            raise Refusal(
                Status.INVALID_INPUT,
                f"{other.relative} and {job.relative} would share the output "
                f"{job.outputs.corrected.name}; remove one of them",
            )
