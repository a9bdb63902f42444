"""The region where a field is estimated: mask and weight, from files or found in the image."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.io.finite import require_finite
from n4ax_bids.io.grids import on_grid
from n4ax_bids.io.resample import through
from n4ax_bids.io.volume import Volume, load
from n4ax_bids.masks.skull_strip import Means, brain
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS

_log = logging.getLogger(__name__)

LEAVE_OUT = "set such voxels to 0, or give a mask file that leaves them out"
SET_TO_0 = "set such voxels to 0"
"""remedies for voxels that are NaN or infinite"""
CHANGED = 0.7
"""a note says so if Otsu's threshold alone finds a smaller share than this of a mask"""
_MOST_KEPT = 16
"""packed masks that are kept for the figures that follow a correction"""
_kept: OrderedDict[tuple[Any, ...], tuple[np.ndarray, Found]] = OrderedDict()
_keeping = threading.Lock()


class Found(NamedTuple):
    """An automatic mask and how it was found."""

    mask: np.ndarray
    """bool"""
    facts: Mapping[str, Any]
    """kind, share, rounds, confidence and otsu_covers; for a mask of another program kind, share,
    program, version and otsu_covers; empty for Otsu's mask"""
    notes: tuple[str, ...]
    """sentences for the user"""


class Region(NamedTuple):
    """The voxels that an estimate uses."""

    name: str
    """"none", the word of an automatic mask, or the mask's path"""
    mask: np.ndarray | None
    """bool; None for every voxel"""
    weight: np.ndarray | None
    """float32 values of a weight file"""
    inside: np.ndarray | None
    """bool, mask and positive weight; None for every voxel"""
    mask_values: np.ndarray | None
    """float32 values of a mask file"""
    mask_header: Path | None
    """the file whose header decides which voxels of the mask are sampled; None: the image's"""
    weight_header: Path | None
    """the same for the weight"""
    notes: tuple[str, ...]
    """what a user should know about the files and the mask"""
    sha256: dict[str, str]
    """digests of the files"""
    facts: Mapping[str, Any] = {}
    """how an automatic mask was found, as in `Found`"""


class _File(NamedTuple):
    """A mask or weight file on the image's grid."""

    values: Volume | None
    header: Path | None
    """the file whose header decides which voxels are sampled; None: the image's"""
    notes: tuple[str, ...]
    sha256: str


def region(
    image: Volume,
    *,
    mask_image: str | Path | None = None,
    auto_mask: str | None = None,
    weight_image: str | Path | None = None,
    mask_transform: str | Path | None = None,
    weight_transform: str | Path | None = None,
    means: Means | None = None,
) -> Region:
    """Read or find the mask of an image, and read its weight.

    Parameters
    ----------
    image : Volume
    mask_image : NIfTI file on the image's voxels, in any order of the axes; not 0 = inside
    auto_mask : "otsu" for the voxels above Otsu's threshold; "head", "brain", or "auto" for the
        brain where one is found, else the head, else Otsu's mask; "synthstrip" or "hd-bet" for
        the brain that this program finds
    weight_image : NIfTI file on the image's voxels, in any order of the axes; > 0 = inside
    mask_transform, weight_transform : ITK transform file that takes images from the image's
        space to that of the mask or weight, which is then resampled onto the image's grid
    means : the resources that a program of another package may use

    Returns
    -------
    Region

    Raises
    ------
    OSError, ValueError
        If a file does not fit the image, no voxel is left, or a voxel that is used is NaN or
        infinite; one line that names the file.
    """
    if mask_image is not None and auto_mask is not None:
        raise ValueError(f"{mask_image}: a mask file and auto_mask {auto_mask!r}; expected one")
    if auto_mask not in (None, *MASK_WORDS, *MASK_PROGRAMS):
        words = ", ".join((*MASK_WORDS, *MASK_PROGRAMS))
        raise ValueError(f"auto_mask is {auto_mask!r}; expected one of {words}, or None")
    mask_file = _file(mask_image, image, mask_transform, labels=True)
    weight_file = _file(weight_image, image, weight_transform, labels=False)
    mask, name, found = None, "none", None
    if mask_file.values is not None:
        mask, name = _inside(cast(Path, mask_image), mask_file.values), str(mask_image)
    elif auto_mask is not None:
        by_program = auto_mask in MASK_PROGRAMS
        found = _by_program(image, auto_mask, means) if by_program else automatic(image, auto_mask)
        mask, name = found.mask, auto_mask
    inside, weight = mask, None
    if weight_file.values is not None:
        weight = weight_file.values.data
        inside = _weighted(cast(Path, weight_image), weight, mask, name)
    # An automatic mask was checked before it was made.
    if found is None and image.finite is not image.data:
        require_finite(image.path, image.data, inside, LEAVE_OUT)
    notes = mask_file.notes + weight_file.notes
    for note in notes:
        _log.info(note)
    digests = {"mask_image": mask_file.sha256, "weight_image": weight_file.sha256}
    return Region(
        name,
        mask,
        weight,
        inside,
        None if mask_file.values is None else mask_file.values.data,
        mask_file.header,
        weight_file.header,
        notes=notes + (found.notes if found else ()),
        sha256={name: digest for name, digest in digests.items() if digest},
        facts=found.facts if found else {},
    )


def _inside(path: Path, values: Volume) -> np.ndarray:
    """Return the voxels inside a mask file, on the image's grid."""
    require_finite(path, values.data, None, SET_TO_0)
    mask = values.data != 0
    if not mask.any():
        raise ValueError(f"{path}: every voxel of the mask is 0; expected some inside")
    return mask


def _weighted(
    path: Path, weight: np.ndarray, mask: np.ndarray | None, mask_name: str
) -> np.ndarray:
    """Return the voxels of the mask whose weight is above 0."""
    require_finite(path, weight, mask, SET_TO_0)
    positive = weight > 0
    if not positive.any():
        raise ValueError(f"{path}: no weight is above 0; expected some")
    inside = positive if mask is None else mask & positive
    if not inside.any():
        raise ValueError(f"{path}: no weight above 0 inside the mask ({mask_name})")
    return inside


def automatic(image: Volume, word: str) -> Found:
    """Find the mask that a word names.

    The last few masks are kept, because the report on an image needs the same one again.

    Parameters
    ----------
    image : Volume
    word : "otsu", "auto", "head" or "brain"

    Raises
    ------
    ValueError
        If a voxel is NaN or infinite, or the word is "brain" and no plausible one is found; one
        line that names the file.
    """
    if image.finite is not image.data:
        require_finite(image.path, image.data, None, LEAVE_OUT)
    try:
        if word == "otsu":
            return Found(cast(np.ndarray, otsu_mask(image.data)), {}, ())
        return _named(image, word)
    except ValueError as error:  # the functions on arrays know no file
        raise ValueError(f"{image.path}: {error}") from error


def _named(image: Volume, word: str) -> Found:
    """Find the mask "auto", "head" or "brain", or return the one that was kept."""
    from n4ax_bids.core.mask.auto_mask import named_mask  # it imports scipy, which is slow

    # An image from which its lowest value was subtracted has the digest of its file.
    key = (word, image.sha256, image.data.shape, float(image.data.min()))
    with _keeping:
        packed, known = _kept.get(key, (None, None)) if image.sha256 else (None, None)
    if known is not None:
        mask = np.unpackbits(cast(np.ndarray, packed), count=image.data.size).astype(bool)
        return known._replace(mask=mask.reshape(image.data.shape, order="F"))
    made = named_mask(cast(Any, word), image.data, image.zooms)
    facts = {
        "kind": made.kind,
        "share": float(made.share),
        "rounds": int(made.rounds),
        "confidence": None if word == "head" else float(made.confidence),
        "otsu_covers": float(made.otsu_covers),
    }
    found = Found(np.asarray(made.mask, bool), facts, tuple(made.notes) + _changed(facts))
    if not found.mask.any():
        raise ValueError(f"the {word} mask is empty; expected another mask")
    with _keeping:
        packed = np.packbits(found.mask.ravel(order="F"))
        _kept[key] = packed, found._replace(mask=packed[:0])
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def _by_program(image: Volume, word: str, means: Means | None) -> Found:
    """Let a program of another package find the mask."""
    require_finite(image.path, image.data, None, LEAVE_OUT)
    made = brain(image, word, means)
    n_voxels = np.count_nonzero(made.mask)
    facts = {
        "kind": "brain",
        "share": float(n_voxels / made.mask.size),
        "program": made.program,
        "version": made.version or None,
        "otsu_covers": float(np.count_nonzero(otsu_mask(image.data) & made.mask) / n_voxels),
    }
    return Found(made.mask, facts, made.notes + _changed(facts))


def _changed(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a note if Otsu's threshold alone would have found a very different mask."""
    if facts["kind"] == "otsu" or facts["otsu_covers"] >= CHANGED:
        return ()
    return (
        f"Otsu's threshold alone finds {100 * facts['otsu_covers']:.0f} % of the {facts['kind']} "
        "mask: the field differs much from the one that --mask otsu gives.",
    )


def _file(
    path: str | Path | None, image: Volume, transform: str | Path | None, *, labels: bool
) -> _File:
    """Read a mask or weight and bring it onto the image's grid."""
    if path is None:
        return _File(None, None, (), "")
    other = load(path)
    if transform is None:
        found = on_grid(other, image)
    else:
        found = through(other, image, transform, labels=labels)
    # A file that ANTs would refuse is sampled as if it had the image's header.
    header = other.path if found.itk_agrees else None
    values = replace(other, data=found.data)
    return _File(values, header, other.notes + found.notes, other.sha256)
