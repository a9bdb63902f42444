"""How the program ends: the exit statuses and the error that carries one."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Exit statuses: those of the BIDS execution specification's draft and of NiPreps."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    INVALID_INPUT = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    NO_IMAGES = 66
    INTERNAL = 70
    CANNOT_WRITE = 73
    TRY_AGAIN = 75
    INTERRUPTED = 130


class Refusal(Exception):
    """The run cannot begin: one line for the person at the screen, and the exit status.

    Parameters
    ----------
    status : Status
    message : str, one line that names what was wrong and what was expected
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
