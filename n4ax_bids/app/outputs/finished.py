"""Decides whether an image is finished: it has complete outputs and a record that matches.

The record is in `logs/images` under the name of the source, and says from what the outputs were
made. It is removed before the first output is put in place and written after the last one. So if
there is a record, it describes the outputs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n4ax_bids import __version__
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.app.outputs.changed import differences
from n4ax_bids.app.outputs.fingerprint import fingerprint
from n4ax_bids.app.request import Request, deciding
from n4ax_bids.io import endings, trees
from n4ax_bids.io.text import read_json

if TYPE_CHECKING:
    from n4ax_bids.app.job import Job

FOLDER = Path("logs", "images")

OTHER_OPTIONS = "made with other options"
"""beginning of the reason if the settings of an image's record differ from those of the run"""
APPLIED = "applied"
"""key of a record that only images with the field of another image have"""
COMMAND = "command"
"""key of a record that only those of n4ax-files have"""
TOLD = ("preset", "sloppy", "jax", COMMAND)
"""Further keys of a record, for the methods text."""


@dataclass(frozen=True)
class Inputs:
    """The files from which an image is made, as they were before they were read."""

    files: Mapping[str, dict[str, Any]]
    """for each role: size, mtime_ns, fingerprint and, if the file is not an image, sha256"""

    @classmethod
    def of(cls, job: Job) -> Inputs:
        """Look at the files of a job.

        Raises
        ------
        OSError
            If one of them does not exist.
        """
        images = {role: _look(path) for role, path in _images(job).items()}
        texts = {role: _look(path) | _digest(path) for role, path in _texts(job).items()}
        return cls(images | texts)

    def with_digests(self, digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the files with the digests of images, by the names of `correct`'s inputs."""
        return {
            role: facts | ({"sha256": digests[role]} if role in digests else {})
            for role, facts in self.files.items()
        }


def require_unchanged(job: Job, inputs: Inputs, digests: Mapping[str, str]) -> None:
    """Refuse to publish an image whose input files have been replaced in the meantime.

    Parameters
    ----------
    job : the image
    inputs : its files as they were before they were read
    digests : digests of the images as they were read, by the names of `correct`'s inputs

    Raises
    ------
    OSError, ValueError
        If a file has gone or changed; one line that names it.
    """
    for role, path in (_images(job) | _texts(job)).items():
        known, now = inputs.files[role], _look(path)
        if all(now[key] == known[key] for key in ("size", "mtime_ns", "fingerprint")):
            continue
        read = digests.get(role) or known.get("sha256")
        if read is None or _digest(path)["sha256"] != read:
            raise ValueError(
                f"{path}: was replaced while it was corrected; expected a file that stays "
                "(run again when the dataset is complete)"
            )


def text(
    job: Job,
    request: Request,
    *,
    inputs: Inputs,
    correction: Mapping[str, Any],
    sizes: Mapping[Path, int],
    started: datetime,
) -> str:
    """Return the record of an image, which is put in place after its outputs.

    Parameters
    ----------
    job, request : the image and the run
    inputs : the files as they were before they were read
    correction : the node's output `correction`
    sizes : bytes of each output
    started : when the run began the image
    """
    seconds = (datetime.now(UTC) - started).total_seconds()
    content = {
        "source": job.relative,
        "version": __version__,
        "settings": settings(request),
        "preset": request.preset,
        "sloppy": request.sloppy,
        "jax": packages.version("jax"),
        "inputs": inputs.with_digests(correction.get("sha256", {})),
        "outputs": {
            path.relative_to(request.output_dir).as_posix(): size for path, size in sizes.items()
        },
        "run": request.run_id,
        "host": platform.node(),
        "device": correction.get("device"),
        "started": started.isoformat(timespec="seconds"),
        "seconds": {"total": seconds, **correction.get("seconds", {})},
        **({} if request.is_bids else {COMMAND: "n4ax-files"}),
        **({APPLIED: _applied(correction)} if job.reference else {}),
    }
    return derivatives.encode(content)


def _applied(correction: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of an image that got the field of another one."""
    return {key: correction[key] for key in ("reference", "n_voxels", "n_outside", "n_volumes")}


def forget(job: Job, output_dir: Path) -> None:
    """Remove the record of an image, before its outputs change."""
    path_of(job, output_dir).unlink(missing_ok=True)


def why_not_finished(job: Job, request: Request) -> str | None:
    """Return why an image is not finished, or None if it is.

    Its inputs are compared by size, time and fingerprint. If one of these differs, or with
    `request.verify_inputs`, the whole file is read and its digest decides. If only the time has
    changed, the new time is written to the record, except in a dry run.
    """
    path = path_of(job, request.output_dir)
    try:
        content = read_json(path)
    except FileNotFoundError:
        return "not done yet"
    except (OSError, ValueError) as error:
        return f"its record cannot be read: {error}"
    try:
        reason = _compare(content, job, request)
        if reason is None:
            reason, now = _compare_inputs(content["inputs"], job, verify=request.verify_inputs)
    except (OSError, ValueError) as error:
        return str(error)
    except (LookupError, TypeError, AttributeError) as error:
        return f"its record is damaged ({type(error).__name__}: {error})"
    if reason is None and now != content["inputs"] and not request.dry_run:
        with suppress(OSError):  # the output folder may be read-only
            derivatives.write_text(path, derivatives.encode({**content, "inputs": now}))
    return reason


def path_of(job: Job, output_dir: Path) -> Path:
    """Return the path of an image's record."""
    return (output_dir / FOLDER / job.relative).with_name(f"{job.outputs.stem}.json")


def outputs(job: Job) -> list[Path]:
    """Return every output of an image except the mask, whose name depends on its kind."""
    images = list(job.outputs.images)
    sidecars = [derivatives.sidecar_path(image) for image in images]
    return images + sidecars + list(copies(job).values())


def copies(job: Job) -> dict[Path, Path]:
    """Return the texts that are copied beside an output, such as b-values, with their new names.

    An image that gets the field of another one stays the same series, so they hold for it too.
    """
    if job.reference is None:
        return {}
    stem = endings.stem(job.outputs.corrected.name)
    return {text: job.outputs.corrected.with_name(stem + text.suffix) for text in job.texts}


def _possible(job: Job) -> list[Path]:
    """Return every output that an image may have, with all kinds of mask."""
    masks = list(job.outputs.masks.values())
    return outputs(job) + masks + [derivatives.sidecar_path(mask) for mask in masks]


def settings(request: Request) -> dict[str, Any]:
    """Return the part of a request that affects the content of outputs, as plain JSON values."""
    chosen = {name: getattr(request, name) for name in sorted(deciding("content"))}
    # Only the names are kept, which the sidecars repeat; the files themselves count as inputs.
    used = request.mask == "derivatives" or request.weight
    chosen["derivatives"] = sorted(request.derivatives) if used else []
    if request.mask_program is None:  # most records have no such key
        del chosen["mask_program"]
    plain = chosen | {"options": dataclasses.asdict(request.options)}
    return json.loads(derivatives.encode(plain))


def _compare(content: Mapping[str, Any], job: Job, request: Request) -> str | None:
    if content["version"] != __version__:
        return f"made by version {content['version']}"
    wanted = settings(request)
    if content["settings"] != wanted:
        return f"{OTHER_OPTIONS}: {differences(content['settings'], wanted)}"
    names = {each: each.relative_to(request.output_dir).as_posix() for each in _possible(job)}
    masks = [path for path in job.outputs.masks.values() if names[path] in content["outputs"]]
    if job.outputs.masks and len(masks) != 1:
        return "it had other outputs"
    paths = outputs(job) + masks + [derivatives.sidecar_path(mask) for mask in masks]
    made = {names[path]: path for path in paths}
    if set(made) != set(content["outputs"]):
        return "it had other outputs"
    for name, size in content["outputs"].items():
        try:
            if trees.size(made[name]) != size:
                return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
    return None


def _compare_inputs(
    known: Mapping[str, Any], job: Job, *, verify: bool
) -> tuple[str | None, dict[str, Any]]:
    """Return how the inputs differ from the record (None if they do not), and their new facts."""
    now: dict[str, Any] = {}
    paths = _images(job) | _texts(job)
    if set(known) != set(paths):
        return "made of other files", now
    for role, facts in known.items():
        now[role] = facts | _look(paths[role])
        if verify or now[role] != facts:
            now[role] |= _digest(paths[role])
        if any(now[role][key] != facts[key] for key in ("size", "sha256")):
            return f"{paths[role]} has changed", now
    return None, now


def _images(job: Job) -> dict[str, Path]:
    """Return the images of a job by the names of `correct`'s inputs."""
    images = {"input_image": job.source, "mask_image": job.mask, "weight_image": job.weight}
    if job.reference:
        images["field_image"] = job.reference.outputs.lattice
    return {role: path for role, path in images.items() if path}


def _texts(job: Job) -> dict[str, Path]:
    """Return the sidecars and transforms of a job by their paths relative to the image."""
    transforms = [path for path in (job.mask_transform, job.weight_transform) if path]
    paths = (*job.sidecars, *transforms, *job.texts)
    return {os.path.relpath(path, job.source.parent): path for path in paths}


def _look(path: Path) -> dict[str, Any]:
    size, time = trees.size_and_time(path)
    return {"size": size, "mtime_ns": time, "fingerprint": fingerprint(path)}


def _digest(path: Path) -> dict[str, Any]:
    return {"sha256": trees.sha256(path)}
