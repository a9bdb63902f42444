"""Programs of other packages that find a brain: how each is called, and which are installed.

Another program is one more entry in `TOOLS`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

IMAGE = "image.nii.gz"
"""name of the image that a program reads, in the folder where it runs"""


class Call(NamedTuple):
    """The arguments of a program, and the name of the mask that it writes."""

    words: tuple[str, ...]
    mask: str


class Program(NamedTuple):
    """A program and how it is called."""

    command: str
    """its name on PATH"""
    call: Callable[[str, bool], Call]
    """(version, whether it runs on a GPU) → Call"""
    version: Callable[[Path], str]
    """version of the program at a path; "" if it cannot be determined"""
    lacks: Callable[[], str] = lambda: ""
    """what else it needs and is missing here; "" if nothing is missing"""
    has_gpu: bool = True
    """whether it can compute on a GPU"""
    by_shell: bool = False
    """whether it passes paths to a shell, which gives some characters a meaning of their own"""


class Tool(NamedTuple):
    """A method and the programs that compute it; the first installed one is used."""

    name: str
    programs: tuple[Program, ...]
    remedy: str


class Installed(NamedTuple):
    """A program that is installed."""

    tool: Tool
    program: Program
    path: str
    version: str

    @property
    def label(self) -> str:
        """Name and version, for records."""
        return f"{self.program.command} {self.version or '(version not known)'}"


def installed(word: str) -> Installed:
    """Return the installed program that computes a mask.

    Parameters
    ----------
    word : "synthstrip" or "hd-bet"

    Raises
    ------
    FileNotFoundError
        If none is installed; one line that says what was looked for and how to install it.
    """
    tool, missing = TOOLS[word], []
    for program in tool.programs:
        found = shutil.which(program.command)
        if found is None:
            continue
        if lack := program.lacks():
            missing.append(f"{found} needs {lack}")
            continue
        path = os.path.abspath(found)
        version = _version(program, path, os.stat(path).st_mtime_ns)
        return Installed(tool, program, path, version)
    names = [program.command for program in tool.programs]
    raise FileNotFoundError(
        f"{tool.name} is not installed: {' or '.join(names)} was looked for on PATH"
        f"{''.join(f'; {each}' for each in missing)}; {tool.remedy}"
    )


# How the programs are called


def _synthstrip(version: str, gpu: bool) -> Call:
    # The containers' scripts recognise only the paths that follow short flags.
    words = ("-i", IMAGE, "-m", "mask.nii.gz")
    return Call((*words, "-g") if gpu else words, "mask.nii.gz")


def _nipreps(version: str, gpu: bool) -> Call:
    words, mask = _synthstrip(version, gpu)
    return Call((*words, "--model", str(_model())), mask)


def _hd_bet(version: str, gpu: bool) -> Call:
    """Call HD-BET without test-time augmentation, so that GPU and CPU compute the same.

    Its documentation recommends that on a CPU, where the augmentation takes eight times as long.
    """
    start = ("-i", IMAGE, "-o", "brain.nii.gz", "-device")
    more: tuple[str, ...]
    if version.startswith("1"):
        where = "0" if gpu else "cpu"
        more = ("-mode", "fast", "-tta", "0", "-s", "1")
        return Call((*start, where, *more), "brain_mask.nii.gz")
    more = ("--disable_tta", "--save_bet_mask", "--no_bet_image")
    return Call((*start, "cuda" if gpu else "cpu", *more), "brain_bet.nii.gz")


def _model() -> Path:
    return Path(os.environ.get("FREESURFER_HOME", "/"), "models", "synthstrip.1.pt")


def _lacks_model() -> str:
    if _model().is_file():
        return ""
    return "its model in the folder that FREESURFER_HOME names, as models/synthstrip.1.pt"


# How their versions are found, without starting programs that take seconds to start


@cache
def _version(program: Program, path: str, mtime_ns: int) -> str:
    return program.version(Path(path))


def _of_freesurfer(path: Path) -> str:
    """Return FreeSurfer's version from its build stamp."""
    homes = [path.resolve().parents[1], Path(os.environ.get("FREESURFER_HOME", "/"))]
    for stamp in (home / "build-stamp.txt" for home in homes):
        if stamp.is_file():
            text = stamp.read_text(encoding="utf-8", errors="replace")[:200].strip()
            number = re.search(r"-(\d+\.\d+[.\w]*)", text)
            return number[1] if number else " ".join(text.split())
    return ""


def _of_script(path: Path) -> str:
    """Return the version that the text of a container's script contains."""
    text = _start(path)
    found = re.search(r"^version\s*=\s*['\"]([\w.]+)['\"]", text, re.MULTILINE)
    found = found or re.search(r"^image_path\s*=.*?(\d+(?:\.\d+)+)", text, re.MULTILINE)
    return found[1] if found else ""


def _of_package(name: str) -> Callable[[Path], str]:
    """Return a function that asks the Python of a script for the version of its package."""

    def version(path: Path) -> str:
        python = re.match(r"#!\s*(?:/usr/bin/env\s+)?(\S*python\S*)\s*\n", _start(path))
        if not python:
            return ""
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        said = _said([python[1], "-c", code], seconds=30)
        return said if re.fullmatch(r"[\w.+!-]+", said) else ""

    return version


def _of_hd_bet(path: Path) -> str:
    """Return HD-BET's version, or only its first number, which the text of its help reveals."""
    version = _of_package("hd-bet")(path)
    if version:
        return version
    text = _said([str(path), "-h"], seconds=300)
    return "1" if "-mode" in text and "save_bet_mask" not in text else "2"


def _start(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(1 << 14).decode("utf-8", errors="replace")


def _said(words: list[str], *, seconds: float) -> str:
    """Return what a program prints; "" if it fails."""
    try:
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace").strip()


TOOLS = {
    "synthstrip": Tool(
        "SynthStrip",
        (
            Program("mri_synthstrip", _synthstrip, _of_freesurfer),
            Program(
                "nipreps-synthstrip", _nipreps, _of_package("nipreps-synthstrip"), _lacks_model
            ),
            Program("synthstrip-singularity", _synthstrip, _of_script, by_shell=True),
            # Its script gives the container no GPU.
            Program("synthstrip-docker", _synthstrip, _of_script, has_gpu=False, by_shell=True),
        ),
        "expected FreeSurfer 7.3 or newer, or a script from "
        "https://surfer.nmr.mgh.harvard.edu/docs/synthstrip",
    ),
    "hd-bet": Tool(
        "HD-BET",
        (Program("hd-bet", _hd_bet, _of_hd_bet),),
        "expected it in an environment of its own (pip install hd-bet) whose hd-bet is on PATH",
    ),
}
"""Methods by the words of `auto_mask`; the arguments follow each program's documentation."""
