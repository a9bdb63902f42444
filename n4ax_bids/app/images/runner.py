"""Makes nipype's engines survive nodes and workers that end without a result."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future
from typing import Any

LOCAL = frozenset({"Linear", "MultiProc", "LegacyMultiProc"})
"""engines whose nodes run on the run's own machine, so that a kill may end the run as well"""
DIED = BrokenExecutor
"""the error that is raised if a worker of an engine was killed; its other workers then end too"""


class _Ended(BaseException):
    """A worker was killed. This is not an Exception: nipype would catch that and wait forever."""


def run(workflow: Any, name: str, arguments: Mapping[str, Any]) -> None:
    """Run a workflow under an engine of nipype.

    Parameters
    ----------
    workflow : nipype workflow
    name : name of the engine
    arguments : arguments of the engine

    Raises
    ------
    BrokenExecutor
        If a worker on this machine was killed. Then no worker of the engine is left.
    Exception
        Any error that the engine raises, which it also does at the end if some nodes failed.
    """
    try:
        workflow.run(plugin=_runner(name, arguments))
    except _Ended as error:
        raise DIED("a worker was killed") from error


def _runner(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return a nipype plugin in which two faults are corrected.

    If a node has no result, nipype adds a list to a traceback that is a string, and the TypeError
    would end all other nodes. If a worker is killed, nipype waits for its result forever.
    """
    from nipype.pipeline import plugins

    class Runner(getattr(plugins, f"{name}Plugin")):  # type: ignore[misc]  # chosen at run time
        def _report_crash(self, node: Any, result: Any = None) -> str:
            if result is not None and isinstance(result["traceback"], str):
                result = {**result, "traceback": result["traceback"].splitlines(keepends=True)}
            return super()._report_crash(node, result=result)

        def _async_callback(self, args: Any) -> None:
            if not _is_lost(args):  # nipype would raise, and the traceback would be printed
                super()._async_callback(args)

        def _get_result(self, taskid: Any) -> Any:
            if _is_lost(getattr(self, "_task_obj", {}).get(taskid)):
                self.pool.shutdown(wait=False, cancel_futures=True)
                raise _Ended
            return super()._get_result(taskid)

    Runner.__name__ = f"{name}Plugin"  # nipype reads the name of the plugin here
    return Runner(plugin_args=dict(arguments))


def _is_lost(task: Any) -> bool:
    return isinstance(task, Future) and task.done() and isinstance(task.exception(), DIED)
