"""An image under an engine of nipype: one node corrects it, another puts its files in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n4ax_bids.app.images import quarantine
from n4ax_bids.app.images.attempt import CLAIMS
from n4ax_bids.app.images.node import node_of
from n4ax_bids.app.images.outcome import Outcome, State, crash_file, failed
from n4ax_bids.app.images.publish import MADE, Begun, wanted
from n4ax_bids.app.job import Job
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.claims import Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.request import Request
from n4ax_bids.io.text import read_text

DONE = "_done"
"""end of the name of the node that puts an image's outputs in place"""


class NodeFailed(ValueError):
    """The message of an error in a node that ran in another process."""


@dataclass(frozen=True)
class Held:
    """A job in progress, and the function that releases the claim on it."""

    begun: Begun
    release: Callable[[], None]

    @property
    def job(self) -> Job:
        """The image."""
        return self.begun.job

    @classmethod
    @contextmanager
    def of(cls, job: Job, request: Request, here: Presence) -> Iterator[Held]:
        """Hold a job until it is released, or until the block ends."""
        with ExitStack() as stack:
            claim = stack.enter_context(
                claims.claimed(request.output_dir / CLAIMS, job.relative, here)
            )
            yield cls(Begun.now(job, request, claim), stack.close)

    def corrected(self, request: Request, correction: Mapping[str, Any]) -> Outcome:
        """Release a job that is done, and return its outcome."""
        crash_file(self.job, request).unlink(missing_ok=True)  # from an earlier run
        quarantine.forget(self.job, request.output_dir)
        self.release()
        seconds = (datetime.now(UTC) - self.begun.started).total_seconds()
        return Outcome(self.job, seconds, correction)

    def failed(self, request: Request, text: str, reason: str = "") -> Outcome:
        """Release a job that has failed, and return its outcome.

        Parameters
        ----------
        request : the run
        text : traceback that nipype has written, or ""
        reason : why it failed, if there is no traceback of its own
        """
        kind, message = _last_error(text)
        if kind == Taken.__name__ or not self.begun.claim.holds():
            outcome = Outcome(self.job, state=State.LEFT)
        else:
            error = NodeFailed(reason or message or kind or "no reason is known")
            again = kind == "DeviceError"
            outcome = failed(self.job, request, error, text, try_again=again)
            quarantine.forget(self.job, request.output_dir)
        self.release()
        return outcome


def _last_error(text: str) -> tuple[str, str]:
    """Return type and message of the last error in a traceback, or "" if there is none."""
    for behind in ("When creating this crashfile", "During the creation of this crashfile"):
        text = text.partition(behind)[0]  # nipype adds errors about its own files
    found = re.findall(r"^\s*(?:[\w.]+\.)?(\w+(?:Error|Exception)|Taken)(?:: (.*))?$", text, re.M)
    return found[-1] if found else ("", "")


def nodes(name: str, held: Held, request: Request) -> list[tuple[Any, Any, list[tuple[str, str]]]]:
    """Return the connection between an image's node and the node that puts its files in place."""
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine as pe

    solving = pe.Node(
        node_of(held.job, request, Path(), held.begun.metadata),
        name=name,
        n_procs=request.omp_nthreads or 1,
    )
    done = pe.Node(
        Function(
            function=_put_in_place,
            input_names=["begun", "correction", *MADE],
            output_names=["correction"],
        ),
        name=name + DONE,
        run_without_submitting=True,  # it takes almost no time
    )
    done.inputs.begun = held.begun
    outputs = ("correction", *wanted(held.job))
    return [(solving, done, [(output, output) for output in outputs])]


def _put_in_place(  # type: ignore[no-untyped-def]
    begun,
    correction,
    output_image,
    lattice_image=None,
    bias_image=None,
    found_mask_image=None,
    method_images=None,
):
    """Publish what a node has made.

    nipype runs only the text of this function, without the imports of this module. So it imports
    what it uses, and has no annotations.
    """
    from pathlib import Path

    from n4ax_bids.app.images.publish import publish

    made = {
        "output_image": output_image,
        "bias_image": bias_image,
        "lattice_image": lattice_image,
        "found_mask_image": found_mask_image,
    }
    files = {name: Path(path) for name, path in (made | (method_images or {})).items() if path}
    return publish(begun, correction, files, Path.cwd())


def crash_text(crashes: Path, name: str) -> str:
    """Return the text of nipype's crash file for a node, or "" if there is none."""
    for named in (name, name + DONE):
        for path in crashes.glob(f"crash-*-{named}-*.txt"):
            return read_text(path, replace=True)
    return ""
