"""The journal of a streamed run: which planes of its output are written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from n4ax_bids.core.stack.correction import StackCorrection
from n4ax_bids.planes.base import partial_name
from n4ax_bids.stacks.files import is_path, load_correction, save_correction

NOT_RESUMED = (".gz", ".tif", ".tiff", ".btf")
"""endings of outputs that are written in one go"""


class Journal:
    """Which planes of an output are written, beside it, so that a run can be resumed."""

    def __init__(self, out: Path, call: str) -> None:
        part = partial_name(out)
        self._lattices = part.with_name(part.name + ".npz")
        self._planes = part.with_name(part.name + ".json")
        self._call = call
        self._first = 0

    @classmethod
    def of(cls, out: Any, bias_out: Any, call: Any, resume: bool) -> Journal | None:
        """Return the journal of an output; None for an array.

        Parameters
        ----------
        out, bias_out : the outputs as they were passed
        call : what must be the same when the run is resumed
        resume : go on where an interrupted run stopped

        Raises
        ------
        ValueError
            If a run with such outputs cannot be resumed, or the interrupted run was another call.
        """
        outputs = [each for each in (out, bias_out) if each is not None]
        for each in outputs if resume else ():
            _require_resumable(each)
        if not is_path(out):
            return None
        digest = hashlib.sha256(json.dumps(call, default=str).encode()).hexdigest()
        journal = cls(Path(out), digest)
        if resume and journal._is_complete(outputs):
            call, journal._first = journal._noted()
            if call != digest:
                raise ValueError(
                    f"{journal._planes}: the interrupted run had another input or other options; "
                    "repeat its call, or start anew without resuming"
                )
        return journal

    def _noted(self) -> tuple[str, int]:
        """Return the call of the interrupted run, and how many planes it has written."""
        try:
            found = json.loads(self._planes.read_text(encoding="utf-8"))
            return str(found["call"]), int(found["planes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self._planes}: is damaged; expected what an interrupted run has written (start "
                "anew without resuming)"
            ) from error

    def _is_complete(self, outputs: list[Any]) -> bool:
        """Return whether the interrupted run has left all that is needed to go on with it."""
        parts = (partial_name(Path(each)) for each in outputs)
        return all(each.exists() for each in (self._planes, self._lattices, *parts))

    def correction(self) -> StackCorrection | None:
        """Return the correction of the interrupted run; None if there is none to go on with."""
        return load_correction(self._lattices) if self._first > 0 else None

    def begin(self, done: StackCorrection) -> int:
        """Keep the correction; return the first plane that is not written yet."""
        if self._first == 0:
            self._planes.unlink(missing_ok=True)  # of an earlier run, whose planes are overwritten
            save_correction(self._lattices, done)
        return self._first

    def note(self, planes: int) -> None:
        """Note how many planes are written."""
        new = self._planes.with_name(self._planes.name + ".new")
        new.write_text(json.dumps({"call": self._call, "planes": planes}), encoding="utf-8")
        new.replace(self._planes)

    def end(self) -> None:
        """Remove the journal of a finished run."""
        self._lattices.unlink(missing_ok=True)
        self._planes.unlink(missing_ok=True)


def _require_resumable(output: Any) -> None:
    if not is_path(output):
        raise ValueError(
            "a run that fills an array cannot be resumed: nothing tells which planes are "
            "corrected; restore the array and start anew"
        )
    if Path(output).suffix.lower() in NOT_RESUMED:
        raise ValueError(
            f"{output}: a compressed file or one of many pages cannot be resumed; start anew, or "
            "write .nii, .zarr or a folder of planes"
        )
