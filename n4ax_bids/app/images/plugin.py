"""The same nodes as a nipype workflow, under an engine that nipype has: MultiProc, SLURM, SGE …"""

from __future__ import annotations

import logging
import os
import re
import reprlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n4ax_bids.app.images import attempt, node, quarantine, runner
from n4ax_bids.app.images.attempt import CLAIMS, MADE, Outcome, State
from n4ax_bids.app.images.progress import StoppedEarly
from n4ax_bids.app.images.runner import LOCAL
from n4ax_bids.app.machine import claims
from n4ax_bids.app.machine.claims import Claim, Taken
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import finished
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset
from n4ax_bids.app.select.dataset import Job
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.text import read_text

log = logging.getLogger("n4ax_bids")

DONE = "_done"
"""behind the name of an image's node: the one that puts its outputs in place"""


KILLED = "its process was killed twice, the second time alone (out of memory?)"


@dataclass(frozen=True)
class Engine:
    """A nipype plugin and its arguments."""

    plugin: str
    plugin_args: Mapping[str, Any] = field(default_factory=dict)


class NodeFailed(ValueError):
    """What a node has said, which ran elsewhere."""


def read(path: Path) -> Engine:
    """Read nipype's plugin and its arguments from YAML or JSON, as NiPreps do.

    Raises
    ------
    Refusal
        If the file does not name a plugin that waits for its jobs.
    """
    import yaml
    from nipype.pipeline import plugins

    try:
        text = read_text(path, what="YAML or JSON", skip_mark=True)
    except (OSError, ValueError) as error:
        raise Refusal(Status.USAGE, str(error)) from error
    try:
        content = yaml.safe_load(text)  # JSON is YAML
    except (RecursionError, ValueError, yaml.YAMLError) as error:  # ValueError: 2001-02-30
        why = " ".join(str(error).split())
        raise Refusal(Status.USAGE, f"{path}: not readable as YAML or JSON: {why}") from error
    except (LookupError, AttributeError) as error:  # from PyYAML, for !!int "" or !!bool maybe
        why = "a value does not fit its tag (!!int, !!bool, …)"
        raise Refusal(Status.USAGE, f"{path}: not readable as YAML or JSON: {why}") from error
    known = sorted(name.removesuffix("Plugin") for name in dir(plugins) if name.endswith("Plugin"))
    # Those for whole graphs hand them over and return at once.
    known = [name for name in known if not name.endswith(("Graph", "DAGMan", "Debug"))]
    content = content if isinstance(content, dict) else {}
    name, arguments = content.get("plugin"), content.get("plugin_args") or {}
    if name not in known or not isinstance(arguments, dict):
        raise Refusal(
            Status.USAGE,
            f"{path}: plugin is {reprlib.repr(name)} with arguments {reprlib.repr(arguments)}; "
            f"expected plugin, one of {', '.join(known)}, and plugin_args, a mapping",
        )
    return Engine(name, arguments)


def work_on(
    jobs: Sequence[Job],
    request: Request,
    tell: Callable[[Outcome], None],
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
    tell: Callable[[Outcome], None],
    *,
    engine: Engine,
    here: Presence,
    work: Path,
) -> tuple[list[Job], list[Job]]:
    """Run a workflow of jobs; parameters as `work_on`.

    Returns
    -------
    jobs that have not been begun, and jobs that were in flight, when a worker was killed. One that
    was in flight alone is told of as failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=work))
    workflow, crashes = _workflow(folder), folder / "crashes"
    local = engine.plugin in LOCAL
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        on_the_way: dict[str, _Held] = {}
        for number, job in enumerate(jobs):
            try:
                held = stack.enter_context(_Held.of(job, request, here))
                if not request.overwrite and finished.why_not_finished(job, request) is None:
                    tell(Outcome(job, state=State.FINISHED))
                    continue
                if local:
                    quarantine.require_allowed(job, request)
                workflow.connect(_nodes(f"image_{number}", held, request))
            except Taken:
                tell(Outcome(job, state=State.LEFT))
            except (OSError, ValueError) as error:
                tell(attempt.failed(job, request, error, traceback.format_exc()))
            else:
                on_the_way[f"image_{number}"] = held
        if not on_the_way:
            return [], []
        failed: dict[str, _Held] = {}
        marks = stack.enter_context(quarantine.Marks(request, alone=len(jobs) == 1))

        def end(held: _Held, outcome: Outcome) -> None:
            marks.drop(held.job)
            tell(outcome)

        def follow(node: Any, status: str) -> None:
            name = node.name.removesuffix(DONE)
            if status == "start" and name in on_the_way and local:
                marks.add(on_the_way[name].job)
            elif status == "exception" and name in on_the_way:
                failed[name] = on_the_way.pop(name)
            elif status == "end" and node.name.endswith(DONE) and name in on_the_way:
                correction = node.result.outputs.correction
                held = on_the_way.pop(name)
                end(held, held.corrected(request, correction))
            for name, held in tuple(failed.items()):  # nipype writes its file after it tells us
                text = _crash_text(crashes, name)
                if text:
                    del failed[name]
                    end(held, held.failed(request, text))

        reason, text = f"nipype's {engine.plugin} plugin has ended without a word of it", ""
        try:
            # A process that has started JAX must not be forked.
            arguments = {"mp_context": "forkserver", **engine.plugin_args}
            arguments["status_callback"] = follow
            runner.run(workflow, engine.plugin, arguments)
        except StoppedEarly:
            raise
        except runner.DIED:
            if len(jobs) > 1:
                left = [held.job for held in on_the_way.values()]
                in_flight = [job for job in left if job in marks]
                left = [job for job in left if job not in marks]
                marks.keep()
                for name, held in failed.items():
                    end(held, held.failed(request, _crash_text(crashes, name)))
                return left, in_flight
            reason = KILLED
        except Exception as error:  # also where a node has failed, which the others outlive
            reason = f"nipype's {engine.plugin} plugin has failed: {type(error).__name__}: {error}"
            text = traceback.format_exc()
        for name, held in (failed | on_the_way).items():
            crash = _crash_text(crashes, name)
            end(held, held.failed(request, crash or text, "" if crash else reason))
    return [], []


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


@dataclass(frozen=True)
class _Held:
    """A job on its way, with the claim on it and what was seen when it was begun."""

    job: Job
    claim: Claim
    inputs: finished.Inputs
    metadata: Mapping[str, Any]
    started: datetime
    release: Callable[[], None]

    @classmethod
    @contextmanager
    def of(cls, job: Job, request: Request, here: Presence) -> Iterator[_Held]:
        """Hold a job until its release, at the latest until the block ends."""
        with ExitStack() as stack:
            claim = stack.enter_context(
                claims.claimed(request.output_dir / CLAIMS, job.relative, here)
            )
            yield cls(
                job,
                claim,
                finished.Inputs.of(job),
                dataset.read_metadata(job),
                datetime.now(UTC),
                stack.close,
            )

    def corrected(self, request: Request, correction: Mapping[str, Any]) -> Outcome:
        attempt.crash_file(self.job, request).unlink(missing_ok=True)  # an earlier run's
        quarantine.forget(self.job, request.output_dir)
        self.release()
        seconds = (datetime.now(UTC) - self.started).total_seconds()
        return Outcome(self.job, seconds, correction)

    def failed(self, request: Request, text: str, reason: str = "") -> Outcome:
        kind, message = _last_error(text)
        if kind == Taken.__name__ or not self.claim.holds():
            outcome = Outcome(self.job, state=State.LEFT)
        else:
            error = NodeFailed(reason or message or kind or "no reason is known")
            again = kind == "DeviceError"
            outcome = attempt.failed(self.job, request, error, text, try_again=again)
            quarantine.forget(self.job, request.output_dir)
        self.release()
        return outcome


def _last_error(text: str) -> tuple[str, str]:
    """Return type and message of the error that a traceback ends with; "" where there is none."""
    for behind in ("When creating this crashfile", "During the creation of this crashfile"):
        text = text.partition(behind)[0]  # nipype's own, about its own files
    found = re.findall(r"^\s*(?:[\w.]+\.)?(\w+(?:Error|Exception)|Taken)(?:: (.*))?$", text, re.M)
    return found[-1] if found else ("", "")


def _nodes(name: str, held: _Held, request: Request) -> list[tuple]:
    """Return a connection: the node of an image, and one that puts its outputs in place."""
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine as pe

    from n4ax_bids.interfaces import BiasFieldCorrection

    given = node.inputs(held.job, request, Path())
    solving = pe.Node(
        BiasFieldCorrection(**given, device=request.device),
        name=name,
        n_procs=request.omp_nthreads or 1,
    )
    facts = ("job", "request", "claim", "inputs", "metadata", "started")
    done = pe.Node(
        Function(
            function=_put_in_place,
            input_names=[*facts, "correction", *MADE],
            output_names=["correction"],
        ),
        name=name + DONE,
        run_without_submitting=True,  # it is over in no time
    )
    for fact in facts:
        setattr(done.inputs, fact, request if fact == "request" else getattr(held, fact))
    outputs = ("correction", *attempt.wanted(held.job))
    return [(solving, done, [(output, output) for output in outputs])]


def _put_in_place(
    job,
    request,
    claim,
    inputs,
    metadata,
    started,
    correction,
    output_image,
    lattice_image,
    bias_image=None,
    found_mask_image=None,
    method_images=None,
):
    """Publish what a node has made; nipype runs the text of this function by itself."""
    from pathlib import Path

    from n4ax_bids.app.images.attempt import publish

    made = {
        "output_image": output_image,
        "bias_image": bias_image,
        "lattice_image": lattice_image,
        "found_mask_image": found_mask_image,
    }
    return publish(
        job,
        request,
        claim=claim,
        inputs=inputs,
        metadata=metadata,
        started=started,
        correction=correction,
        made={name: Path(path) for name, path in (made | (method_images or {})).items() if path},
        folder=Path.cwd(),
    )


def _crash_text(crashes: Path, name: str) -> str:
    """Return what nipype has written of the failure of a node, if anything."""
    for named in (name, name + DONE):
        for path in crashes.glob(f"crash-*-{named}-*.txt"):
            return read_text(path, replace=True)
    return ""


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
