"""Which settings differ between a record or another run and this run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST_TOLD = 4
"""settings that are named"""


def differences(had: Any, wanted: Any, verb: str = "was") -> str:
    """Return names and values of the settings that differ, of many the first few.

    Parameters
    ----------
    had, wanted : settings of a record or of another run, and those of this run
    verb : verb for the first ones: "was" for a record, "is" for another run
    """
    found = list(_differing(had, wanted))
    now = "here" if verb == "is" else "is"
    told = [f"{name} {verb} {old}, {now} {new}" for name, old, new in found[:MOST_TOLD]]
    if len(found) > MOST_TOLD:
        told.append(f"{len(found) - MOST_TOLD} more")
    return "; ".join(told)


def _differing(had: Any, wanted: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield name, old and new value of each setting that differs, also of those within others."""
    if isinstance(had, dict) and isinstance(wanted, dict):
        for key in sorted(set(had) | set(wanted)):
            if had.get(key) != wanted.get(key):
                yield from _differing(had.get(key), wanted.get(key), key)
    else:
        yield name, had, wanted
