"""Brain masks by programs of other packages: SynthStrip and HD-BET, where they are installed."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from n4ax_bids.io.canonical import write_canonical
from n4ax_bids.io.grids import REMEDY, on_grid
from n4ax_bids.io.volume import Volume, load
from n4ax_bids.masks.brain_programs import IMAGE, Call, Installed, Program, installed
from n4ax_bids.runtime import programs

_turn = threading.Lock()
_PLAIN = re.compile(r"[\w./+@=-]+", re.ASCII)


class Means(NamedTuple):
    """The resources that a program may use, and when it must end."""

    gpu: int | None = None
    """number of the GPU; None for the CPU"""
    n_threads: int | None = None
    folder: Path | None = None
    """where its files are while it runs; default: the system's folder for temporary files"""
    stopped: Callable[[], bool] = programs.never
    """returns whether the run is to end"""


class Brain(NamedTuple):
    """A mask that a program found."""

    mask: np.ndarray
    """bool, of the image's shape"""
    program: str
    version: str
    notes: tuple[str, ...]


def brain(image: Volume, word: str, means: Means | None = None) -> Brain:
    """Let a program find the brain in an image.

    The program gets a copy of the image: float32, in mm, with its axes turned to right, anterior,
    superior. Each process runs one such program at a time, on any device. If it fails on a GPU,
    it is run once more on the CPU.

    Parameters
    ----------
    image : Volume of three axes with finite voxels
    word : "synthstrip" or "hd-bet"
    means : the resources that the program may use; default: the CPU

    Returns
    -------
    Brain

    Raises
    ------
    FileNotFoundError
        If the program is not installed.
    ChildProcessError
        If it fails or writes no mask that fits the image; one line that names the image, with the
        last lines of the program's output as a note.
    ValueError
        If the image does not have three axes.
    KeyboardInterrupt
        If `means.stopped` returns True.
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
    """Return the variables that limit a program, usually one of PyTorch, to threads and a GPU."""
    given: dict[str, str] = {}
    if means.n_threads:
        names = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHON_CPU_COUNT"
        given = dict.fromkeys(names, str(means.n_threads))
    if gpu and means.gpu is not None:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        given["CUDA_VISIBLE_DEVICES"] = dict(enumerate(visible)).get(means.gpu, str(means.gpu))
    return given


def _read(path: Path, image: Volume, found: Installed, ended: programs.Ended) -> np.ndarray:
    """Read the mask that a program has written, and bring it onto the image's grid."""
    if ended.status:
        raise _failure(image, found, f"failed with {_why(ended)}", ended)
    if not path.is_file():
        raise _failure(image, found, "succeeded but wrote no mask", ended)
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
    # The bar distinguishes the program's own traceback from ours.
    said = "".join(f"\n| {line}" for line in ended.said) or " nothing"
    error.add_note(f"{found.path} ({found.label}) printed, last:{said}")
    return error


def _why(ended: programs.Ended) -> str:
    return f"{ended.how}: {ended.said[-1]}" if ended.said else ended.how


@contextmanager
def _in_turn(means: Means) -> Iterator[None]:
    """Wait until no other image of this process has a program running."""
    while not _turn.acquire(timeout=programs.POLL):
        if means.stopped():
            raise KeyboardInterrupt
    try:
        yield
    finally:
        _turn.release()


@contextmanager
def _folder(program: Program, parent: Path | None) -> Iterator[Path]:
    """Create a folder for a program; if that uses a shell, its path has no special characters."""
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
