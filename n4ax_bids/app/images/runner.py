"""nipype's engines, made to outlive nodes and workers that end without a result."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future
from typing import Any

LOCAL = frozenset({"Linear", "MultiProc", "LegacyMultiProc"})
"""engines whose nodes run on the machine of the run: what ends a node may end the run as well"""
DIED = BrokenExecutor
"""what is raised when a worker of an engine has been killed, and the others with it"""


class _Ended(BaseException):
    """A worker has been killed. nipype catches every Exception, and would wait for ever."""


def run(workflow: Any, name: str, arguments: Mapping[str, Any]) -> None:
    """Run a workflow by an engine of nipype.

    Parameters
    ----------
    workflow : of nipype
    name : of the engine
    arguments : of the engine

    Raises
    ------
    BrokenExecutor
        If a worker on this machine was killed. None of the engine's goes on then.
    Exception
        What the engine raises, also where it has done all nodes but those that failed.
    """
    try:
        workflow.run(plugin=_runner(name, arguments))
    except _Ended as error:
        raise DIED("a worker was killed") from error


def _runner(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return a nipype plugin.

    nipype reports a node without a result by adding a list to its traceback, which is a string
    then: the TypeError would end all others. And where a worker is killed, nipype waits for its
    result for ever.
    """
    from nipype.pipeline import plugins

    class Runner(getattr(plugins, f"{name}Plugin")):  # type: ignore[misc]  # chosen at run time
        def _report_crash(self, node: Any, result: Any = None) -> str:
            if result is not None and isinstance(result["traceback"], str):
                result = {**result, "traceback": result["traceback"].splitlines(keepends=True)}
            return super()._report_crash(node, result=result)

        def _async_callback(self, args: Any) -> None:
            if not _is_lost(args):  # else it raises, and the futures' log prints the traceback
                super()._async_callback(args)

        def _get_result(self, taskid: Any) -> Any:
            if _is_lost(getattr(self, "_task_obj", {}).get(taskid)):
                self.pool.shutdown(wait=False, cancel_futures=True)
                raise _Ended
            return super()._get_result(taskid)

    Runner.__name__ = f"{name}Plugin"  # nipype reads the plugin's name there
    return Runner(plugin_args=dict(arguments))


def _is_lost(task: Any) -> bool:
    return isinstance(task, Future) and task.done() and isinstance(task.exception(), DIED)
