"""Runs the images as a nipype workflow under an engine of nipype: MultiProc, SLURM, SGE, …"""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from n4ax_bids.app.images import quarantine, runner
from n4ax_bids.app.images.engine import Engine
from n4ax_bids.app.images.nodes import DONE, Held, crash_text, nodes
from n4ax_bids.app.images.outcome import Outcome, State, failed
from n4ax_bids.app.images.progress import StoppedEarly
from n4ax_bids.app.images.runner import LOCAL
from n4ax_bids.app.job import Job
from n4ax_bids.app.machine.claims import Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import finished
from n4ax_bids.app.request import Request

log = logging.getLogger("n4ax_bids")

Tell = Callable[[Outcome], None]

KILLED = "its process was killed twice, the second time alone (out of memory?)"


def work_on(
    jobs: Sequence[Job],
    request: Request,
    tell: Tell,
    *,
    engine: Engine,
    here: Presence,
    work: Path,
) -> None:
    """Process jobs as a nipype workflow, and report each one when it ends.

    Parameters
    ----------
    jobs, request : the images and the run
    tell : called with the outcome of each job
    engine : engine of nipype
    here : the run's presence in the output folder
    work : folder for unfinished files that all machines of the engine can see
    """
    # The SLURM plugin reads this variable, which containers often lack.
    os.environ.setdefault("LOGNAME", os.environ.get("USER", "root"))
    again, in_flight = _run(jobs, request, tell, engine=engine, here=here, work=work)
    # As without an engine, images that may have killed a worker come last and alone.
    for part in (again, *([job] for job in in_flight)):
        if part:
            work_on(part, request, tell, engine=engine, here=here, work=work)


def _run(
    jobs: Sequence[Job],
    request: Request,
    tell: Tell,
    *,
    engine: Engine,
    here: Presence,
    work: Path,
) -> tuple[list[Job], list[Job]]:
    """Run a workflow of jobs; the parameters are those of `work_on`.

    Returns
    -------
    If a worker was killed: the jobs that had not been begun, and the jobs that were in flight. If
    the workflow had only one job, this job has failed and is reported instead.
    """
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=work))
    workflow, local = _workflow(folder), engine.plugin in LOCAL
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        on_the_way: dict[str, Held] = {}
        for number, job in enumerate(jobs):
            name = f"image_{number}"
            held = _held(job, request, here, tell, stack, local=local)
            if held is not None and _connected(workflow, name, held, request, tell):
                on_the_way[name] = held
        if not on_the_way:
            return [], []
        marks = stack.enter_context(quarantine.Marks(request, alone=len(jobs) == 1))
        watch = _Watch(request, tell, marks, folder / "crashes", on_the_way, local=local)
        reason, text = f"nipype's {engine.plugin} plugin has ended without reporting it", ""
        try:
            # A process that has started JAX must not be forked.
            # Arguments in the engine's file have precedence.
            arguments = {"mp_context": "forkserver", **engine.plugin_args}
            arguments["status_callback"] = watch.follow
            runner.run(workflow, engine.plugin, arguments)
        except StoppedEarly:
            raise
        except runner.DIED:
            if len(jobs) > 1:
                return watch.broken_off()
            reason = KILLED
        except Exception as error:  # also raised at the end of a workflow with a failed node
            reason = f"nipype's {engine.plugin} plugin has failed: {type(error).__name__}: {error}"
            text = traceback.format_exc()
        watch.close(reason, text)
    return [], []


def _held(
    job: Job, request: Request, here: Presence, tell: Tell, stack: ExitStack, *, local: bool
) -> Held | None:
    """Hold a job, or report its outcome and return None if it need not or cannot begin."""
    try:
        held = stack.enter_context(Held.of(job, request, here))
        if not request.overwrite and finished.why_not_finished(job, request) is None:
            tell(Outcome(job, state=State.FINISHED))
            return None
        if local:
            quarantine.require_allowed(job, request)
        return held
    except Taken:
        tell(Outcome(job, state=State.LEFT))
    except (OSError, ValueError) as error:
        tell(failed(job, request, error, traceback.format_exc()))
    return None


def _connected(workflow: Any, name: str, held: Held, request: Request, tell: Tell) -> bool:
    """Add the nodes of a job to a workflow; if this fails, report the job as failed."""
    try:
        workflow.connect(nodes(name, held, request))
    except (OSError, ValueError) as error:
        tell(failed(held.job, request, error, traceback.format_exc()))
        return False
    return True


class _Watch:
    """Follows the nodes of a workflow and reports how each job ended.

    Parameters
    ----------
    request, tell : the run, and the function that is called for each job
    marks : marks of the jobs in flight
    crashes : folder of nipype's crash files
    on_the_way : jobs by the names of their nodes
    local : whether nodes run on this machine, so that we notice if one is killed
    """

    def __init__(
        self,
        request: Request,
        tell: Tell,
        marks: quarantine.Marks,
        crashes: Path,
        on_the_way: dict[str, Held],
        *,
        local: bool,
    ) -> None:
        self._request, self._tell, self._marks, self._crashes = request, tell, marks, crashes
        self._on_the_way, self._local = on_the_way, local
        self._failed: dict[str, Held] = {}

    def follow(self, node: Any, status: str) -> None:
        """React to a status that nipype reports for a node."""
        name = node.name.removesuffix(DONE)
        if name in self._on_the_way:
            if status == "start" and self._local:
                self._marks.add(self._on_the_way[name].job)
            elif status == "exception":
                self._failed[name] = self._on_the_way.pop(name)
            elif status == "end" and node.name.endswith(DONE):
                held = self._on_the_way.pop(name)
                self._end(held, held.corrected(self._request, node.result.outputs.correction))
        for name, held in tuple(self._failed.items()):  # nipype writes its file after this call
            text = crash_text(self._crashes, name)
            if text:
                del self._failed[name]
                self._end(held, held.failed(self._request, text))

    def broken_off(self) -> tuple[list[Job], list[Job]]:
        """Return the waiting jobs and the jobs in flight, after a worker was killed."""
        left = [held.job for held in self._on_the_way.values()]
        in_flight = [job for job in left if job in self._marks]
        self._marks.keep()
        for name, held in self._failed.items():
            self._end(held, held.failed(self._request, crash_text(self._crashes, name)))
        return [job for job in left if job not in in_flight], in_flight

    def close(self, reason: str, text: str) -> None:
        """Report the remaining jobs as failed, by nipype's crash file or the given reason."""
        for name, held in (self._failed | self._on_the_way).items():
            crash = crash_text(self._crashes, name)
            self._end(held, held.failed(self._request, crash or text, "" if crash else reason))

    def _end(self, held: Held, outcome: Outcome) -> None:
        self._marks.drop(held.job)
        self._tell(outcome)


def _workflow(folder: Path) -> Any:
    from nipype.pipeline import engine as pe

    workflow = pe.Workflow(name="n4ax_bids_wf", base_dir=str(folder))
    workflow.config["execution"] = {
        "crashdump_dir": str(folder / "crashes"),
        "crashfile_format": "txt",
        "create_report": "false",
        "remove_unnecessary_outputs": "false",
        "stop_on_first_crash": "false",
    }
    return workflow


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence nipype's log, which shows tracebacks; the run reports how images end."""
    loggers = [logging.getLogger(f"nipype.{part}") for part in ("workflow", "interface", "utils")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
