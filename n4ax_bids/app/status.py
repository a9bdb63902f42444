"""The exit statuses of the program, and the error that ends a run with one of them."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Exit statuses, from the draft of the BIDS execution specification and from NiPreps."""

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


MEANINGS: dict[Status, str] = {
    Status.OK: "every image is corrected, or another run is working on it",
    Status.SOME_FAILED: "some image failed, or has no report; the others are done, and the log "
    "and `logs/` say why",
    Status.USAGE: "wrong use: an unknown flag, label or option, filters that contradict each "
    "other, or an output folder that would spoil a dataset, holds outputs of another one, or is "
    "in use by a run with other options",
    Status.INVALID_INPUT: "the input is no BIDS dataset, the validator finds errors in it, or "
    "two images would share an output (also on a file system that ignores case)",
    Status.UNKNOWN_LEVEL: "unknown analysis level",
    Status.NOTHING_SELECTED: "no image passes the filters",
    Status.NO_IMAGES: "the dataset has no image of the modalities that were asked for, or the "
    "level `group` finds no report of an image",
    Status.INTERNAL: "an error in the program",
    Status.CANNOT_WRITE: "the output folder cannot be written, or each image that failed did so "
    "because the disk is full",
    Status.TRY_AGAIN: "each image that failed did so because the device was out of memory or "
    "lost: try again",
    Status.INTERRUPTED: "interrupted (Ctrl+C)",
}
"""The meaning of each status, for the documentation and the descriptor."""


class Refusal(Exception):
    """The run cannot begin; has one line for the user and the exit status.

    Parameters
    ----------
    status : Status
    message : str, one line that says what is wrong and what was expected
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
