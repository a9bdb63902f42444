"""Where a field is estimated: mask and weight of an image, from files or found in the image."""

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
from n4ax_bids.options import MASK_PROGRAMS, MASK_WORDS
from n4ax_bids.skull_strip import Means, brain

_log = logging.getLogger(__name__)

LEAVE_OUT = "set such voxels to 0, or give a mask file that leaves them out"
SET_TO_0 = "set such voxels to 0"
"""remedies for voxels that are NaN"""
CHANGED = 0.7
"""share of a mask below which what Otsu's threshold alone finds of it is told in a note"""
_MOST_KEPT = 16
"""masks that are kept, packed, for the figures that follow a correction"""
_kept: OrderedDict[tuple[Any, ...], tuple[np.ndarray, Found]] = OrderedDict()
_keeping = threading.Lock()


class Found(NamedTuple):
    """An automatic mask and how it came about."""

    mask: np.ndarray
    """bool"""
    facts: Mapping[str, Any]
    """kind, share, rounds, confidence and otsu_covers; kind, share, program, version and
    otsu_covers for a mask of another program; empty for Otsu's mask"""
    notes: tuple[str, ...]
    """what a person should know, each a sentence"""


class Region(NamedTuple):
    """The voxels that take part in an estimate."""

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
    """the file whose header decides which voxels of the mask are sampled; None: the image"""
    weight_header: Path | None
    """the same for the weight"""
    notes: tuple[str, ...]
    """what a person should know about the files"""
    sha256: dict[str, str]
    """of the files"""
    facts: Mapping[str, Any] = {}
    """how a mask that was found came about, as in `Found`"""


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
    """Read or make the mask of an image, and read its weight.

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
    means : what a program of others may take

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
    digests = {"mask_image": mask_file.sha256, "weight_image": weight_file.sha256}
    mask, name, found = None, "none", None
    if mask_file.values is not None:
        require_finite(cast(Path, mask_image), mask_file.values.data, None, SET_TO_0)
        mask, name = mask_file.values.data != 0, str(mask_image)
        if not mask.any():
            raise ValueError(f"{mask_image}: every voxel of the mask is 0; expected some inside")
    elif auto_mask is not None:
        by_program = auto_mask in MASK_PROGRAMS
        found = _by_program(image, auto_mask, means) if by_program else automatic(image, auto_mask)
        mask, name = found.mask, auto_mask
    inside, weight = mask, None
    if weight_file.values is not None:
        require_finite(cast(Path, weight_image), weight_file.values.data, mask, SET_TO_0)
        weight = weight_file.values.data
        positive = weight > 0
        if not positive.any():
            raise ValueError(f"{weight_image}: no weight is above 0; expected some")
        inside = positive if mask is None else mask & positive
        if not inside.any():
            raise ValueError(f"{weight_image}: no weight above 0 inside the mask ({name})")
    if found is None:  # else it was required before the mask was made
        require_finite(image.path, image.data, inside, LEAVE_OUT)
    notes = mask_file.notes + weight_file.notes
    for note in notes:
        _log.info(note)
    notes += found.notes if found else ()
    return Region(
        name,
        mask,
        weight,
        inside,
        None if mask_file.values is None else mask_file.values.data,
        mask_file.header,
        weight_file.header,
        notes=notes,
        sha256={name: digest for name, digest in digests.items() if digest},
        facts=found.facts if found else {},
    )


def automatic(image: Volume, word: str) -> Found:
    """Find the mask that a word names.

    The last few masks are kept, because the report on an image asks for the same one again.

    Parameters
    ----------
    image : Volume
    word : "otsu", "auto", "head" or "brain"

    Raises
    ------
    ValueError
        If a voxel is NaN or infinite, or no plausible brain is found although the word asks for
        one; one line that names the file.
    """
    require_finite(image.path, image.data, None, LEAVE_OUT)
    try:
        if word == "otsu":
            return Found(cast(np.ndarray, otsu_mask(image.data)), {}, ())
        return _named(image, word)
    except ValueError as error:  # the functions on arrays know no file
        raise ValueError(f"{image.path}: {error}") from error


def _named(image: Volume, word: str) -> Found:
    """Find the mask "auto", "head" or "brain", or take it from those that are kept."""
    from n4ax_bids.core.mask.auto_mask import named_mask  # scipy's share takes a while to import

    # A lifted image has its file's digest and other values.
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
    """Let a program of others find the mask."""
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
    """Return a note where Otsu's threshold alone would have found another mask."""
    if facts["kind"] == "otsu" or facts["otsu_covers"] >= CHANGED:
        return ()
    return (
        f"Otsu's threshold alone finds {100 * facts['otsu_covers']:.0f} % of the {facts['kind']} "
        "mask: the field differs much from the one that --mask otsu gives.",
    )


def _file(
    path: str | Path | None, image: Volume, transform: str | Path | None, *, labels: bool
) -> _File:
    """Read a mask or weight and lay it on the image's grid."""
    if path is None:
        return _File(None, None, (), "")
    other = load(path)
    if transform is None:
        found = on_grid(other, image)
    else:
        found = through(other, image, transform, labels=labels)
    # Where ANTs would refuse the file, it is sampled as if it had the image's header.
    header = other.path if found.itk_agrees else None
    values = replace(other, data=found.data)
    return _File(values, header, other.notes + found.notes, other.sha256)
