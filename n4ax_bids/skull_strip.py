"""Brain masks by programs of others that are installed: SynthStrip and HD-BET.

A further program is one more entry in `TOOLS`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from n4ax_bids import programs
from n4ax_bids.io.canonical import write_canonical
from n4ax_bids.io.grids import REMEDY, on_grid
from n4ax_bids.io.volume import Volume, load

IMAGE = "image.nii.gz"
"""the image that a program reads, in a folder of its own"""
_turn = threading.Lock()
_PLAIN = re.compile(r"[\w./+@=-]+", re.ASCII)


class Call(NamedTuple):
    """What follows a program's name, and the mask that it writes."""

    words: tuple[str, ...]
    mask: str


class Program(NamedTuple):
    """A program and how it is called."""

    command: str
    """as it is looked for on PATH"""
    call: Callable[[str, bool], Call]
    """(version, on a GPU) → Call"""
    version: Callable[[Path], str]
    """of the program at a path; "" where that cannot be told"""
    lacks: Callable[[], str] = lambda: ""
    """what else it needs and does not find here"""
    has_gpu: bool = True
    """whether it can be told to compute on a GPU"""
    by_shell: bool = False
    """whether it hands paths to a shell, which reads some characters as its own"""


class Tool(NamedTuple):
    """A method, and the programs that compute it; the first one that is there is taken."""

    name: str
    programs: tuple[Program, ...]
    remedy: str


class Installed(NamedTuple):
    """A program that is there."""

    tool: Tool
    program: Program
    path: str
    version: str

    @property
    def label(self) -> str:
        """Name and version for a record."""
        return f"{self.program.command} {self.version or '(version not known)'}"


class Means(NamedTuple):
    """What a program may take, and when it has to end."""

    gpu: int | None = None
    """number of the GPU; None for the CPU"""
    n_threads: int | None = None
    folder: Path | None = None
    """where its files are while it runs; default: that of the system for such files"""
    stopped: Callable[[], bool] = programs.never


class Brain(NamedTuple):
    """A mask that a program has found."""

    mask: np.ndarray
    """bool, of the image's shape"""
    program: str
    version: str
    notes: tuple[str, ...]


def installed(word: str) -> Installed:
    """Return the program that computes a mask.

    Parameters
    ----------
    word : "synthstrip" or "hd-bet"

    Raises
    ------
    FileNotFoundError
        If there is none; one line that says what was looked for and how to install it.
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


def brain(image: Volume, word: str, means: Means | None = None) -> Brain:
    """Let a program find the brain in an image.

    It gets a copy of the image: float32, in mm, its axes turned to right, anterior, superior. One
    program runs at a time in each process, whatever it computes on. Where it fails on a GPU it is
    run once more on the CPU.

    Parameters
    ----------
    image : Volume of three axes, its voxels finite
    word : "synthstrip" or "hd-bet"
    means : what the program may take; default: the CPU

    Raises
    ------
    FileNotFoundError
        If the program is not there.
    ChildProcessError
        If it fails, or writes no mask that fits; one line that names the image, and a note with
        the last lines of what it printed.
    ValueError
        If the image has no three axes.
    KeyboardInterrupt
        If `means` say that the run is to end.
    """
    means = means or Means()
    found = installed(word)
    if image.data.ndim != 3:
        raise ValueError(
            f"{image.path}: shape {image.data.shape}; {found.tool.name} expects three axes"
        )
    gpu = means.gpu is not None and found.program.has_gpu
    notes: tuple[str, ...] = ()
    with _in_turn(means), _folder(found.program, means.folder) as folder:
        write_canonical(folder / IMAGE, image)
        ended, call = _run(found, folder, means, gpu=gpu)
        if ended.status and gpu:
            notes = (
                f"{found.program.command} failed on the GPU ({_why(ended)}); its mask was "
                "computed on the CPU",
            )
            ended, call = _run(found, folder, means, gpu=False)
        mask = _read(folder / call.mask, image, found, ended)
    return Brain(mask, found.program.command, found.version, notes)


def _run(
    found: Installed, folder: Path, means: Means, *, gpu: bool
) -> tuple[programs.Ended, Call]:
    call = found.program.call(found.version, gpu)
    words = [found.path, *call.words]
    environment = os.environ | _variables(means, gpu=gpu)
    return programs.run(words, folder, environment=environment, stopped=means.stopped), call


def _variables(means: Means, *, gpu: bool) -> dict[str, str]:
    """Return what tells a program, usually one of PyTorch, its threads and its GPU."""
    given = {}
    if means.n_threads:
        names = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHON_CPU_COUNT"
        given = dict.fromkeys(names, str(means.n_threads))
    if gpu:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        given["CUDA_VISIBLE_DEVICES"] = dict(enumerate(visible)).get(means.gpu, str(means.gpu))
    return given


def _read(path: Path, image: Volume, found: Installed, ended: programs.Ended) -> np.ndarray:
    """Read the mask that a program has written, and lay it on the image's grid."""
    if ended.status:
        raise _failure(image, found, f"failed with {_why(ended)}", ended)
    if not path.is_file():
        raise _failure(image, found, "ended well but wrote no mask", ended)
    try:
        written = load(path)
        values = on_grid(written, image).data
    except (OSError, ValueError) as error:
        why = str(error).removeprefix(f"{path}: ").removesuffix(f"; {REMEDY}")
        what = f"wrote a mask that does not fit: {why}"
        raise _failure(image, found, what, ended) from error
    mask = np.isfinite(values) & (values != 0)
    if not mask.any():
        raise _failure(image, found, "found no brain: every voxel of its mask is 0", ended)
    return mask


def _failure(
    image: Volume, found: Installed, what: str, ended: programs.Ended
) -> ChildProcessError:
    error = ChildProcessError(f"{image.path}: {found.program.command} {what}")
    # The bar keeps lines of another traceback from being read as the end of ours.
    said = "".join(f"\n| {line}" for line in ended.said) or " nothing"
    error.add_note(f"{found.path} ({found.label}) printed, last:{said}")
    return error


def _why(ended: programs.Ended) -> str:
    return f"{ended.how}: {ended.said[-1]}" if ended.said else ended.how


@contextmanager
def _in_turn(means: Means) -> Iterator[None]:
    """Wait until no other image of this process has a program at work."""
    while not _turn.acquire(timeout=programs.POLL):
        if means.stopped():
            raise KeyboardInterrupt
    try:
        yield
    finally:
        _turn.release()


@contextmanager
def _folder(program: Program, parent: Path | None) -> Iterator[Path]:
    """Make a folder for a program, where its path means to a shell what it says."""
    if parent and program.by_shell and not _PLAIN.fullmatch(os.path.realpath(parent)):
        parent = None
    with tempfile.TemporaryDirectory(prefix="skull_strip-", dir=parent) as folder:
        path = os.path.realpath(folder)
        if program.by_shell and not _PLAIN.fullmatch(path):
            raise OSError(
                f"{path}: {program.command} hands this path to a shell; expected letters, digits "
                "and . / _ + @ = - alone (set TMPDIR to such a folder)"
            )
        yield Path(path)


# How the programs are called


def _synthstrip(version: str, gpu: bool) -> Call:
    # The containers' scripts know the paths behind the short flags alone.
    words = ("-i", IMAGE, "-m", "mask.nii.gz")
    return Call((*words, "-g") if gpu else words, "mask.nii.gz")


def _nipreps(version: str, gpu: bool) -> Call:
    words, mask = _synthstrip(version, gpu)
    return Call((*words, "--model", str(_model())), mask)


def _hd_bet(version: str, gpu: bool) -> Call:
    """Call HD-BET without test-time augmentation, so that GPU and CPU do the same.

    Its documentation advises that for the CPU, where it takes eight times as long with it.
    """
    start = ("-i", IMAGE, "-o", "brain.nii.gz", "-device")
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


# How their versions are told, without starting what takes seconds to start


@cache
def _version(program: Program, path: str, mtime_ns: int) -> str:
    return program.version(Path(path))


def _of_freesurfer(path: Path) -> str:
    """Return FreeSurfer's version from the stamp of its build."""
    homes = [path.resolve().parents[1], Path(os.environ.get("FREESURFER_HOME", "/"))]
    for stamp in (home / "build-stamp.txt" for home in homes):
        if stamp.is_file():
            text = stamp.read_text(encoding="utf-8", errors="replace")[:200].strip()
            number = re.search(r"-(\d+\.\d+[.\w]*)", text)
            return number[1] if number else " ".join(text.split())
    return ""


def _of_script(path: Path) -> str:
    """Return the version that a container's script names in its text."""
    text = _start(path)
    found = re.search(r"^version\s*=\s*['\"]([\w.]+)['\"]", text, re.MULTILINE)
    found = found or re.search(r"^image_path\s*=.*?(\d+(?:\.\d+)+)", text, re.MULTILINE)
    return found[1] if found else ""


def _of_package(name: str) -> Callable[[Path], str]:
    """Return what asks the Python of a script for the version of its package."""

    def version(path: Path) -> str:
        python = re.match(r"#!\s*(?:/usr/bin/env\s+)?(\S*python\S*)\s*\n", _start(path))
        if not python:
            return ""
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        said = _said([python[1], "-c", code], seconds=30)
        return said if re.fullmatch(r"[\w.+!-]+", said) else ""

    return version


def _of_hd_bet(path: Path) -> str:
    """Return HD-BET's version, or at least its first number, for which its help is asked."""
    version = _of_package("hd-bet")(path)
    if version:
        return version
    text = _said([str(path), "-h"], seconds=300)
    return "1" if "-mode" in text and "save_bet_mask" not in text else "2"


def _start(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(1 << 14).decode("utf-8", errors="replace")


def _said(words: list[str], *, seconds: float) -> str:
    """Return what a program prints; "" where it fails."""
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
"""Methods by their words; what each program is called with is from its own documentation."""
