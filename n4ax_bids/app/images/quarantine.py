"""Images during which a run died: they are tried once more alone, and then set aside.

A mark stands in `logs/attempts` for as long as an image is worked on. Whatever can be caught
removes it; so where it has stayed, the run was killed, often for its memory. Any image that was in
flight may be the cause. The next run does these images last and one by one. An image that a run
has died of twice, the last time alone, is not begun again until its mark is removed, or with
--overwrite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import derivatives
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import Job
from n4ax_bids.io.text import read_json

FOLDER = Path("logs", "attempts")
MOST = 2
"""times that a run may die of an image"""


class SetAside(ValueError):
    """Runs have died of an image, which is therefore not begun."""


@dataclass(frozen=True)
class Mark:
    """How often an image was begun by runs that died then."""

    n_begun: int = 0
    alone: bool = False
    """it was the only one in flight the last time"""

    @classmethod
    def read(cls, path: Path) -> Mark:
        """Read a mark; none is one of no attempt, and what holds anything else of one."""
        try:
            content = read_json(path)
            n_begun, alone = content["n_begun"], content["alone"]
            if type(n_begun) is int and type(alone) is bool and n_begun > 0:
                return cls(n_begun, alone)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return cls(1)


def path_of(job: Job, output_dir: Path) -> Path:
    """Return where the mark of an image is."""
    return output_dir / FOLDER / f"{claims.key(job.relative)}.json"


@contextmanager
def marked(job: Job, request: Request, *, alone: bool) -> Iterator[None]:
    """Have a mark on an image within the block; whose claim one must hold.

    Parameters
    ----------
    job, request : the image and the run
    alone : no other image of the run is in flight

    Raises
    ------
    SetAside
        If runs have died of it too often; one line with the remedy.
    OSError
        If the mark cannot be written.
    """
    path = path_of(job, request.output_dir)
    mark = Mark() if request.overwrite else Mark.read(path)
    if mark.n_begun >= MOST and mark.alone:
        raise SetAside(
            f"{job.source}: set aside, for {mark.n_begun} runs were killed while they worked on "
            f"it (out of memory?); to try again remove {path}, or use --overwrite"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"source": job.relative, "n_begun": mark.n_begun + 1, "alone": alone}
    derivatives.write_text(path, derivatives.encode(content))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def forget(job: Job, output_dir: Path) -> None:
    """Remove the mark of an image that has not ended the run."""
    path_of(job, output_dir).unlink(missing_ok=True)


def suspects(jobs: Sequence[Job], output_dir: Path, here: Presence) -> list[Job]:
    """Return the images that were in flight when a run died.

    Parameters
    ----------
    jobs : that are to be done
    output_dir : root of the derivative dataset
    here : presence of this run; an image that another run works on has a mark and is no suspect
    """
    try:
        marks = {path.name for path in (output_dir / FOLDER).iterdir()}
    except OSError:  # there is none
        return []
    return [
        job
        for job in jobs
        if path_of(job, output_dir).name in marks
        and claims.holder(output_dir / claims.FOLDER, job.relative, here) is None
    ]
