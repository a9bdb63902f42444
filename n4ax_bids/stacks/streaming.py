"""Correct a stack that need not fit into memory: thin it, estimate, correct it slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.core.stack.correction import StackCorrection
from n4ax_bids.options import StackOptions
from n4ax_bids.planes.base import Sink, Source
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices
from n4ax_bids.runtime.timing import timed
from n4ax_bids.stacks.files import (
    close,
    is_inside,
    is_path,
    load_correction,
    open_sink,
    require_apart,
    require_buffer,
    require_free,
)
from n4ax_bids.stacks.journal import Journal
from n4ax_bids.stacks.lazy import corrected_lazily, is_lazy
from n4ax_bids.stacks.steps import (
    Progress,
    StreamPlan,
    correct_slabs,
    estimated,
    limit_chunks,
    plan_stream,
    trim,
)


class Streamed(NamedTuple):
    """What a call of `stream` made."""

    corrected: Any
    """the buffer that was passed, or the path"""
    bias: Any
    """the same for the field; None if it was not asked for"""
    correction: StackCorrection
    seconds: dict[str, float]
    """time of each step"""
    notes: tuple[str, ...]
    zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """distance of planes, rows and columns, mm"""


def stream(
    vol: Any,
    out: Any = None,
    *,
    bias_out: Any = None,
    mask: Any = "tissue",
    voxel_size_mm: Sequence[float] | None = None,
    options: StackOptions | None = None,
    memory_gb: float = 4.0,
    device: str = "auto",
    resume: bool = False,
    correction: str | Path | StackCorrection | None = None,
    planes: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Correct a stack a few planes at a time; the answer does not depend on how many.

    The stack is read twice: once to thin its planes, and once to correct them. In between, the
    field is estimated from the thinned planes alone. If an OME-Zarr image has a pyramid, the
    thinned planes come from the level nearest to the wanted distance of samples, and the finest
    level is read only once.

    Parameters
    ----------
    vol : array (planes, rows, columns) of numpy, zarr or HDF5, or a path: a .nii, .nii.gz or .tif
        file, a folder of .tif or .png planes, an OME-Zarr folder
    out : float32 array of the same shape, which is filled and may be `vol` itself, or a path that
        ends in .nii, .nii.gz, .tif or .zarr, or has no ending for a folder of planes. A path
        appears when it is complete; until then its name ends in .partial. For a dask array, None:
        the answers are dask arrays, whose chunks are corrected when they are asked for.
    bias_out : the same for the field, or None
    mask : "tissue" to find it in the thinned planes, None for every voxel, or an array or path
        like `vol`, not 0 = inside
    voxel_size_mm : size of a voxel on these axes; None: as the file says, else 1
    options : StackOptions
    memory_gb : budget of memory in 10^9 bytes, besides what Python and JAX take
    device : "auto", "cpu", "gpu" or "gpu:N"
    resume : go on with an interrupted run of the same call. Only outputs that are uncompressed
        NIfTI files, folders of planes or OME-Zarr can be resumed; a run in place cannot, because
        nothing tells which of its planes are corrected.
    correction : correct with what an earlier call returned or `save_correction` wrote, instead of
        estimating anew. Of the options, only `zero_outside` is then used.
    planes : correct only these planes (start, stop), for sharing the work out: `out` must be an
        array, which several processes fill
    progress : called while the work goes on

    Returns
    -------
    Streamed

    Raises
    ------
    OSError, TypeError, ValueError
        If an argument does not fit or a file cannot be read or written; one line that names it.
        No output then has its final name.
    """
    lazy = out is None and bias_out is None and is_lazy(vol)
    plan = plan_stream(vol, mask, voxel_size_mm, options, memory_gb)
    if not lazy:
        _require_outputs(vol, out, bias_out, plan.source)
    _require_span(planes, out, bias_out, plan.source.shape[0])
    tell = progress or (lambda step, done, of: None)
    seconds: dict[str, float] = {}
    source = plan.source
    same: list[Any] = [
        source.name,
        source.shape,
        str(source.dtype),
        plan.zooms,
        asdict(plan.options),
        *(str(each) if each is None or is_path(each) else "array" for each in (mask, bias_out)),
    ]
    journal = None if lazy else Journal.of(out, bias_out, same, resume)
    where = devices.resolve(device)
    done = journal.correction() if journal else None
    if done is None:
        done = load_correction(correction) if isinstance(correction, str | Path) else correction
    if done is None:
        done = estimated(plan, where, tell, seconds)
    elif done.shape != plan.source.shape:
        raise ValueError(f"correction is for shape {done.shape}; expected {plan.source.shape}")
    if lazy:
        if plan.mask is not None and plan.options.zero_outside:
            raise ValueError("zero_outside with a mask needs `out`; expected out or no mask")
        made = corrected_lazily(vol, done, zero_outside=plan.options.zero_outside)
        return Streamed(*made, done, seconds, done.notes, plan.zooms)
    with _naming(out, bias_out):
        first = journal.begin(done) if journal else 0
    with _naming(out, bias_out), sinks_of(out, bias_out, plan, first) as sinks:
        with timed(seconds, "correct"), devices.use(where), compilation.kept():
            correct_slabs(
                plan, done, sinks, journal, planes or (first, plan.source.shape[0]), tell
            )
        for sink in sinks:
            if sink is not None:
                sink.close()
                trim()
    if journal:
        journal.end()
    read = [each for each in (source, plan.level) if each is not None]
    missing = [note for each in read for note in getattr(each, "notes", tuple)()]
    notes = (*missing, *done.notes)
    return Streamed(out, bias_out, done, seconds, notes, plan.zooms)


def _require_outputs(vol: Any, out: Any, bias_out: Any, source: Source) -> None:
    """Refuse outputs that do not fit before any work is done."""
    for name, each in (("out", out), ("bias_out", bias_out)):
        if is_path(each):
            require_free(Path(each))
        elif each is not None or name == "out":
            require_buffer(each, source.shape, name)
    require_apart(vol, out, bias_out)
    for each in (out, bias_out):
        if is_path(vol) and is_path(each) and is_inside(each, vol):
            raise ValueError(f"{each}: lies inside the input {vol}; expected another folder")


def _require_span(planes: tuple[int, int] | None, out: Any, bias_out: Any, n_planes: int) -> None:
    """Refuse a range of planes that the stack or an output does not have."""
    if planes is None:
        return
    first, last = planes
    if not 0 <= first <= last <= n_planes:
        raise ValueError(f"planes is {planes}; expected 0 to {n_planes}, ascending")
    if out is None or is_path(out) or is_path(bias_out):
        raise ValueError(
            f"planes is {planes}; expected arrays as outputs, because a file would get its final "
            "name with these planes alone"
        )


@contextmanager
def _naming(*outputs: Any) -> Iterator[None]:
    """Name the outputs in an error that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        names = " or ".join(str(each) for each in outputs if is_path(each))
        if error.errno is None or error.filename is not None or not names:
            raise
        raise OSError(error.errno, error.strerror, names) from error


@contextmanager
def sinks_of(
    out: Any, bias_out: Any, plan: StreamPlan, first: int
) -> Iterator[tuple[Sink, Sink | None]]:
    """Open the outputs, and close the inputs in the end.

    After an error, outputs keep their unfinished names.
    """
    opened: list[Sink] = []
    try:
        for name, each in (("out", out), ("bias_out", bias_out)):
            if each is not None:
                more: dict[str, Any] = {"name": name, "resume_at": first}
                opened.append(open_sink(each, plan.source, plan.zooms, **more))
                limit_chunks(opened[-1], plan.budget)
        yield opened[0], opened[1] if len(opened) > 1 else None
    except BaseException:
        for sink in opened:
            with suppress(OSError, ValueError):
                sink.stop()
        raise
    finally:
        for source in (plan.source, plan.mask):
            close(source)
