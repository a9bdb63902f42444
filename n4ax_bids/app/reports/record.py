"""What the record of an image's figures and that of a series' figures have in common."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.app.job import Job
from n4ax_bids.app.outputs.derivatives import sidecar_path
from n4ax_bids.io.text import parse_json, read_bytes
from n4ax_bids.methods import METHODS


class Described(NamedTuple):
    """The sidecar of the main output of an image."""

    path: Path
    text: bytes
    facts: dict[str, Any]
    """how the output was made"""


def described(job: Job, key: str, remedy: str) -> Described:
    """Read the sidecar of the main output of an image.

    Parameters
    ----------
    job : an image whose outputs are in place
    key : the sidecar's key for how the output was made
    remedy : what to do if it has no such key

    Raises
    ------
    OSError, ValueError
        If it cannot be read or has no such key; one line that names it.
    """
    path = sidecar_path(job.outputs.corrected)
    text = read_bytes(path, what="JSON")
    facts = parse_json(path, text).get(key)
    if not isinstance(facts, dict):
        raise ValueError(
            f"{path}: has no {key}; expected a sidecar of this version ({remedy} again)"
        )
    return Described(path, text, facts)


def common(job: Job, output_dir: Path, sidecar: Described) -> dict[str, Any]:
    """Return the part of a record that does not depend on what is drawn.

    Parameters
    ----------
    job : an image whose outputs are in place
    output_dir : root of the derivative dataset
    sidecar : from `described`
    """
    method = METHODS[sidecar.facts["Method"]]
    outputs = (*job.outputs.images, *job.outputs.masks.values(), sidecar.path)
    return {
        "image": job.name,
        "suffix": job.entities["suffix"],
        "source": job.relative,
        "sidecar": sidecar.path.relative_to(output_dir).as_posix(),
        "sidecar_sha256": hashlib.sha256(sidecar.text).hexdigest(),
        "method": method.name,
        "details": [(label, sidecar.facts["Details"][name]) for label, name in method.shown],
        "files": [path.name for path in outputs if path.exists()],
    }
