"""Python's search for garbage, which waits while a command starts.

A start makes some hundred thousand objects, nearly all of which stay. Python would look at all of
them many times over to find those that refer to one another and that nothing else needs.
"""

from __future__ import annotations

import gc

_waits = False


def begin() -> None:
    """Search for nothing until `end`. Only for commands, which have the process to themselves."""
    global _waits
    _waits = _waits or gc.isenabled()
    gc.disable()


def end() -> None:
    """Search again, but not among the objects that are there now; without `begin`, do nothing."""
    global _waits
    if _waits:
        gc.freeze()
        gc.enable()
    _waits = False
