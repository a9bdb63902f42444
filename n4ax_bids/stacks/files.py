"""A stack's sources and outputs by name, and its correction in one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.arguments import shown
from n4ax_bids.core.field import LogField, Section
from n4ax_bids.core.stack.call import require_stack_shape
from n4ax_bids.core.stack.correction import StackCorrection
from n4ax_bids.core.stack.matching import Matching
from n4ax_bids.core.stack.samples import Along, Thinning
from n4ax_bids.io.atomic import require_writable, same_place
from n4ax_bids.io.lattices import load_lattices, save_lattices
from n4ax_bids.planes import ome_zarr, pictures
from n4ax_bids.planes.base import ArraySink, ArraySource, Sink, Source
from n4ax_bids.planes.nifti import NiftiSink, NiftiSource
from n4ax_bids.planes.ome_zarr import ZarrSource
from n4ax_bids.planes.ome_zarr_sink import ZarrSink
from n4ax_bids.planes.pictures import PicturesSource, TiffSink, TiffSource

KINDS = (
    "a .nii, .nii.gz, .tif or .png file, a folder of .tif or .png planes, or an OME-Zarr folder"
)


def is_path(value: Any) -> bool:
    """Return whether a value names a file or folder."""
    return isinstance(value, str | Path)


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Return whether a path lies in a folder, which may be named by a link."""
    return Path(folder).resolve() in Path(path).resolve().parents


def open_source(given: Any, name: str = "vol") -> Source:
    """Return the source that a path or an array stands for.

    Raises
    ------
    OSError, TypeError, ValueError
        If it cannot be read or is no stack; one line that names it.
    """
    if not is_path(given):
        shape = getattr(given, "shape", None)
        if shape is None or not hasattr(given, "__getitem__") or not hasattr(given, "dtype"):
            raise TypeError(f"{name} is {shown(given)}; expected an array or a path")
        require_stack_shape(name, shape)
        if np.dtype(given.dtype).kind not in "biuf":
            raise ValueError(f"{name} has the type {given.dtype}; expected real numbers")
        return ArraySource(given, name)
    source = _open_path(Path(given))
    if 0 in source.shape:
        raise ValueError(f"{given}: shape {source.shape}; expected at least one voxel")
    return source


@contextmanager
def opened(*given: Any) -> Iterator[list[Source]]:
    """Open the sources that paths or arrays stand for, and close them in the end."""
    sources: list[Source] = []
    with ExitStack() as stack:
        for each in given:
            sources.append(open_source(each))
            stack.callback(close, sources[-1])
        yield sources


def close(source: Source | None) -> None:
    """Close a source that keeps a file open; others have nothing to close."""
    getattr(source, "close", lambda: None)()


def _open_path(path: Path) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected {KINDS}")
    if path.is_dir():
        return ZarrSource(path) if ome_zarr.is_zarr(path) else PicturesSource(path)
    if path.suffix.lower() in pictures.TIFF:
        return TiffSource(path)
    if path.suffix.lower() in pictures.PNG:
        return PicturesSource(path)
    if path.name.endswith((".nii", ".nii.gz")):
        return NiftiSource(path)
    raise ValueError(f"{path}: unknown kind of stack; expected {KINDS}")


def open_sink(
    given: Any,
    source: Source,
    zooms: tuple[float, float, float],
    *,
    name: str,
    resume_at: int = 0,
) -> Sink:
    """Return the sink that a path or an array stands for.

    Raises
    ------
    OSError, ValueError
        If it cannot be written, exists already, or is an array of another shape or type.
    """
    if not is_path(given):
        require_buffer(given, source.shape, name)
        return ArraySink(given)
    path = Path(given)
    require_free(path)
    if path.name.endswith((".nii", ".nii.gz")):
        header = source.header if isinstance(source, NiftiSource) else None
        return NiftiSink(path, source.shape, zooms, header, resume_at=resume_at)
    if path.suffix == ".zarr":
        like = source if isinstance(source, ZarrSource) else None
        return ZarrSink(path, source.shape, zooms, like, resume_at=resume_at)
    if path.suffix.lower() in pictures.TIFF or not path.suffix:
        return TiffSink(path, source.shape, zooms, resume_at=resume_at)
    raise ValueError(
        f"{path}: cannot be written; expected a name that ends in .nii, .nii.gz, .tif or .zarr, "
        "or has no ending for a folder of planes"
    )


def require_free(path: Path) -> None:
    """Refuse an output that exists, or that cannot be written."""
    if path.exists():
        raise FileExistsError(f"{path}: exists already; expected a new name (or remove it)")
    require_writable(path)


def require_buffer(given: Any, shape: tuple[int, ...], name: str) -> None:
    """Refuse a caller's buffer of another shape or type."""
    found = getattr(given, "shape", None), getattr(given, "dtype", None)
    if found[0] is None or tuple(found[0]) != tuple(shape) or found[1] != np.float32:
        what = f"shape {found[0]} and type {found[1]}" if found[0] is not None else shown(given)
        raise ValueError(f"{name} must be a float32 array of shape {tuple(shape)}; it has {what}")


def require_apart(vol: Any, out: Any, bias_out: Any) -> None:
    """Refuse buffers that share memory in part: a slab would be overwritten before it is read.

    `out` may be `vol` itself, as slabs are read before they are written. Two outputs of one name
    are refused as well.
    """
    if is_path(out) and is_path(bias_out) and same_place(out, bias_out):
        raise ValueError(
            f"bias_out is {bias_out}, the name of the corrected stack; expected another"
        )
    given = {"vol": vol, "out": out, "bias_out": bias_out}
    arrays = {name: None if is_path(each) else each for name, each in given.items()}
    real = {name: each for name, each in arrays.items() if isinstance(each, np.ndarray)}
    names = list(arrays)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            a, b = arrays[one], arrays[other]
            if a is None or b is None:
                continue
            same = a is b or (one in real and other in real and _same(a, b))
            if same and (one, other) == ("vol", "out"):
                continue
            if same or (one in real and other in real and np.shares_memory(a, b)):
                raise ValueError(
                    f"{other} must be an array of its own; it shares memory with {one}"
                )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays are the same elements in the same order."""
    return (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
    )


def save_correction(path: str | Path, done: StackCorrection) -> None:
    """Write what corrects a stack: each section's lattice with the planes it holds.

    Parameters
    ----------
    path : final name, .npz
    done : StackCorrection
    """
    arrays = {"scales": done.scales, "thin_mask": done.thin_mask}
    fields = []
    for i, each in enumerate(done.sections):
        arrays[f"section_{i}"] = np.asarray(each.log_field.lattice)
        fields.append({"start": each.start, "stop": each.stop, **_numbers(each.log_field)})
    if done.whole is not None:
        arrays["whole"] = np.asarray(done.whole.lattice)
    if done.matching is not None:
        arrays["tables"] = done.matching.tables
    if done.gains is not None:
        arrays["gains"] = done.gains
    numbers = {
        "shape": done.shape,
        "sections": fields,
        "whole": None if done.whole is None else _numbers(done.whole),
        "matching": None if done.matching is None else done.matching[:2],
        "threshold": done.threshold,
        "strength": done.strength,
        "thinning": done.how,
        "notes": done.notes,
    }
    save_lattices(path, numbers, arrays)


def load_correction(path: str | Path) -> StackCorrection:
    """Read what `save_correction` wrote; errors as `n4ax_bids.io.lattices.load_lattices`."""
    numbers, arrays = load_lattices(path)
    try:
        sections = tuple(
            Section(_field(each, arrays[f"section_{i}"]), each["start"], each["stop"])
            for i, each in enumerate(numbers["sections"])
        )
        whole, ends = numbers["whole"], numbers["matching"]
        sampled, blocks, means = numbers["thinning"]
        pairs = ((Along(*a), Along(*b)) for a, b in (sampled, blocks))
        return StackCorrection(
            tuple(numbers["shape"]),
            sections,
            None if whole is None else _field(whole, arrays["whole"]),
            arrays["scales"],
            None if ends is None else Matching(ends[0], ends[1], arrays["tables"]),
            arrays.get("gains"),
            numbers["threshold"],
            numbers["strength"],
            arrays["thin_mask"],
            Thinning(next(pairs), next(pairs), means),
            tuple(numbers["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: holds no correction of a stack ({error!r})") from error


def _numbers(field: LogField) -> dict[str, Any]:
    names = ("order", "first", "step", "clamp")
    return {name: getattr(field, name) for name in names}


def _field(numbers: dict[str, Any], lattice: np.ndarray) -> LogField:
    places = (tuple(numbers[name]) for name in ("first", "step", "clamp"))
    return LogField(lattice, numbers["order"], *places)
