"""What runs that were killed have left in their output folder."""

from __future__ import annotations

import json
from pathlib import Path


def done(out: Path) -> list[str]:
    """Return the participants whose images have a record."""
    return sorted(path.name[:6] for path in out.glob("logs/images/sub-*/anat/*.json"))


def marks(out: Path) -> dict[str, tuple[int, bool]]:
    """Return how often each participant's image was begun, and whether alone the last time."""
    found = {}
    for path in out.glob("logs/attempts/*.json"):
        content = json.loads(path.read_text())
        found[content["source"][:6]] = content["n_begun"], content["alone"]
    return found
