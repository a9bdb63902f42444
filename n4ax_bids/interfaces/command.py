"""What scripts use of nipype's interface for the ANTs program besides its inputs and outputs.

Our node starts no program. Scripts nevertheless print or run `cmdline`, set `terminal_output`, and
read `runtime.stdout` or `runtime.returncode` of the results, so these must exist.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nipype.interfaces.ants.base import ANTSCommand
from nipype.interfaces.ants.segmentation import N4BiasFieldCorrection as AntsN4
from nipype.interfaces.base import CommandLine, SimpleInterface, isdefined
from nipype.utils.filemanip import split_filename

FILES = {
    "file": ("output.nipype", None),
    "file_split": ("stdout.nipype", "stderr.nipype"),
    "file_stdout": ("stdout.nipype", None),
    "file_stderr": (None, "stderr.nipype"),
}
"""Files in which nipype keeps a program's output, by `terminal_output`."""


def output_name(inputs: Any) -> str:
    """Name the corrected image as nipype does for the ANTs program.

    The last part of `output_image` is a template: `%s` is replaced by the input's name without its
    extension, and `%%` by a percent sign if there is a `%s`. Folders are not changed.
    """
    given = inputs.output_image
    template: str = given if isdefined(given) else inputs.trait("output_image").name_template
    place = template[: template.rfind("/") + 1]
    name = template.removeprefix(place)
    if "%s" not in name:
        return template
    _, base, extension = split_filename(inputs.input_image)
    name = re.sub("%[s%]", lambda found: base if found[0] == "%s" else "%", name)
    return place + (name if name.endswith((".nii", ".nii.gz")) else name + extension)


class _Words(AntsN4):
    """nipype's own class, which writes the command line of the same inputs."""

    version = None  # nipype would start antsRegistration to find it

    def __init__(self, inputs: Any):
        super().__init__()
        self.inputs = inputs

    def _filename_from_source(self, name: str, chain: Any = None) -> str:
        return output_name(self.inputs)  # the only trait that has a name_source


class _DefaultOf:
    """An attribute with the default of a nipype class, which may change at any time."""

    def __init__(self, owner: type, name: str):
        self._owner, self._name = owner, name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return getattr(self._owner, self._name)


class AntsCommand(SimpleInterface):
    """The interface of nipype's `CommandLine` and `ANTSCommand`, for a node without a program.

    There is no `_cmd`, because fMRIPrep and others check that a program of that name is installed.
    """

    _program = "N4BiasFieldCorrection"
    _num_threads = _DefaultOf(ANTSCommand, "_num_threads")
    _terminal_output = _DefaultOf(CommandLine, "_terminal_output")
    _write_cmdline = CommandLine._write_cmdline

    terminal_output = CommandLine.terminal_output
    write_cmdline = CommandLine.write_cmdline
    raise_exception = CommandLine.raise_exception
    version_from_command = CommandLine.version_from_command
    _get_environ = CommandLine._get_environ
    _num_threads_update = ANTSCommand._num_threads_update
    set_default_num_threads: Any = classmethod(ANTSCommand.set_default_num_threads.__func__)
    set_default_terminal_output: Any = classmethod(
        CommandLine.set_default_terminal_output.__func__
    )

    def __init__(
        self,
        from_file: str | Path | None = None,
        resource_monitor: bool | None = None,
        *,
        command: str | None = None,
        terminal_output: str | None = None,
        write_cmdline: bool = False,
        **inputs: Any,
    ):
        super().__init__(from_file=from_file, resource_monitor=resource_monitor, **inputs)
        if command is not None:
            self._program = command
        if terminal_output is not None:
            self.terminal_output = terminal_output
        self.write_cmdline = write_cmdline
        if from_file is None and "num_threads" not in inputs:
            self.inputs.num_threads = self._num_threads
        self._num_threads_update()
        self._listen()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the listeners again, which copies of inputs lose."""
        self.__dict__.update(state)
        self._listen()

    def _listen(self) -> None:
        self.inputs.on_trait_change(self._num_threads_update, "num_threads")

    @property
    def cmd(self) -> str:
        """Name of the program that nipype's own class starts."""
        return self._program

    @property
    def cmdline(self) -> str:
        """The command line that nipype's own class returns for the same inputs.

        It does not contain the inputs that only this class has.
        """
        self._check_mandatory_inputs()
        return " ".join([self.cmd, *_Words(self.inputs)._parse_inputs()])

    @contextmanager
    def _as_a_program(self, runtime: Any) -> Iterator[list[str]]:
        """Fill `runtime` as if a program ran in the block and printed the lines of the list.

        An exception that ends the block becomes the program's stderr, with return code 1.
        """
        runtime.cmdline = self.cmdline
        runtime.command_path, runtime.dependencies = sys.executable, "<skipped>"
        runtime.environ.update(self._get_environ())
        runtime.success_codes, runtime.returncode = (0,), 1
        runtime.stdout = runtime.stderr = runtime.merged = ""
        if self.write_cmdline:
            Path(runtime.cwd, "command.txt").write_text(runtime.cmdline, encoding="utf-8")
        printed: list[str] = []
        try:
            yield printed
            runtime.returncode = 0
        except Exception as error:
            self._keep(runtime, "\n".join(printed), str(error))
            raise
        self._keep(runtime, "\n".join(printed), "")

    def _keep(self, runtime: Any, stdout: str, stderr: str) -> None:
        """Write output as `terminal_output` says, as in `nipype.utils.subprocess`."""
        mode = self.terminal_output
        merged = "\n".join(filter(None, (stdout, stderr)))
        if mode == "file":
            stdout, stderr = merged, ""
        texts = zip(FILES.get(mode, ()), (stdout, stderr), strict=False)
        for name, text in texts:
            if name is not None:
                Path(runtime.cwd, name).write_text(text and text + "\n", encoding="utf-8")
        if mode in ("stream", "file"):
            runtime.merged = merged
        if mode in ("stream", "allatonce", "file_split", "file_stdout"):
            runtime.stdout = stdout
        if mode in ("stream", "allatonce", "file_split", "file_stderr"):
            runtime.stderr = stderr
