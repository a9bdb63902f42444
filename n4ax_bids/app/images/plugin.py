"""The same nodes as a nipype workflow, under an engine that nipype has: MultiProc, SLURM, SGE …"""

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
    """Work on jobs as a nipype workflow; tell of each as it ends.

    Parameters
    ----------
    jobs, request : images, and the run that they belong to
    tell : called for each job
    engine : of nipype
    here : the run's presence in the output folder
    work : folder for unfinished files, seen by all machines that take part
    """
    # The SLURM plugin asks for it, and containers often have none.
    os.environ.setdefault("LOGNAME", os.environ.get("USER", "root"))
    again, in_flight = _run(jobs, request, tell, engine=engine, here=here, work=work)
    # As without an engine: who may have killed a worker comes last and alone.
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
    """Run a workflow of jobs; parameters as `work_on`.

    Returns
    -------
    jobs that have not been begun, and jobs that were in flight, when a worker was killed. A job
    that was in flight alone has failed, and the caller has been told so.
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
        reason, text = f"nipype's {engine.plugin} plugin has ended without a word of it", ""
        try:
            # A process that has started JAX must not be forked.
            arguments = {"mp_context": "forkserver", **engine.plugin_args}
            arguments["status_callback"] = watch.follow
            runner.run(workflow, engine.plugin, arguments)
        except StoppedEarly:
            raise
        except runner.DIED:
            if len(jobs) > 1:
                return watch.broken_off()
            reason = KILLED
        except Exception as error:  # also where a node has failed, which the others outlive
            reason = f"nipype's {engine.plugin} plugin has failed: {type(error).__name__}: {error}"
            text = traceback.format_exc()
        watch.close(reason, text)
    return [], []


def _held(
    job: Job, request: Request, here: Presence, tell: Tell, stack: ExitStack, *, local: bool
) -> Held | None:
    """Hold a job; None where it has ended already, which is told."""
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
    """Add the nodes of a job to a workflow; tell where the job fails at that."""
    try:
        workflow.connect(nodes(name, held, request))
    except (OSError, ValueError) as error:
        tell(failed(held.job, request, error, traceback.format_exc()))
        return False
    return True


class _Watch:
    """Follows the nodes of a workflow and tells how each job has ended.

    Parameters
    ----------
    request, tell : the run, and what is called for each job
    marks : of jobs that are in flight
    crashes : folder where nipype writes what has failed
    on_the_way : jobs by the names of their nodes
    local : whether nodes run on this machine, so that their deaths can be known
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
        """Take note of what nipype says of a node."""
        name = node.name.removesuffix(DONE)
        if name in self._on_the_way:
            if status == "start" and self._local:
                self._marks.add(self._on_the_way[name].job)
            elif status == "exception":
                self._failed[name] = self._on_the_way.pop(name)
            elif status == "end" and node.name.endswith(DONE):
                held = self._on_the_way.pop(name)
                self._end(held, held.corrected(self._request, node.result.outputs.correction))
        for name, held in tuple(self._failed.items()):  # nipype writes its file after it tells us
            text = crash_text(self._crashes, name)
            if text:
                del self._failed[name]
                self._end(held, held.failed(self._request, text))

    def broken_off(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs that were waiting and those in flight when a worker was killed."""
        left = [held.job for held in self._on_the_way.values()]
        in_flight = [job for job in left if job in self._marks]
        self._marks.keep()
        for name, held in self._failed.items():
            self._end(held, held.failed(self._request, crash_text(self._crashes, name)))
        return [job for job in left if job not in in_flight], in_flight

    def close(self, reason: str, text: str) -> None:
        """End what is left: by what nipype has written of it, else by a reason and a traceback."""
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
    """Keep nipype's own log off the screen: it shows tracebacks, and we tell how images end."""
    loggers = [logging.getLogger(f"nipype.{part}") for part in ("workflow", "interface", "utils")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
