"""The mask that suits an image: the brain if one is found, else the head or Otsu's mask.

Otsu's mask is kept whenever it is as good, so that weak fields are never corrected worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from n4ax_bids.core.mask import brain_mask, head_mask
from n4ax_bids.core.mask.brain_mask import SURE, Brain, find_brain
from n4ax_bids.core.mask.head_mask import Head, checked, find_head
from n4ax_bids.core.mask.mask_choice import COVERED, choose
from n4ax_bids.core.threshold import otsu_mask

SPECK = 0.5
"""share of Otsu's mask; a smaller head mask is not a head"""
CUT = 0.06
"""share of directions in which the image may end with the brain without a note"""

Kind = Literal["brain", "head", "otsu"]
NO_BRAIN = "no plausible brain was found; expected mask 'auto' or 'head' then"


class AutoMask(NamedTuple):
    """A mask, what it covers, and how it was found."""

    mask: np.ndarray
    """bool, like the image"""
    kind: Kind
    """"brain", whole or without its rim; "head"; "otsu" if neither was found, or if it is better
    for the field in the brain"""
    share: float
    """share of the image's voxels that are in the mask"""
    rounds: int
    """rounds of mask and field in turn; 0 if the image is too thin or flat"""
    confidence: float
    """0 to 1, confidence that there is a brain and that it was found"""
    otsu_covers: float
    """share of the mask that Otsu's threshold of the image alone finds"""
    notes: tuple[str, ...]
    """sentences for the user"""


def auto_mask(image: np.ndarray, zooms: Sequence[float] | None = None) -> AutoMask:
    """Find the mask for an estimate of the field.

    Parameters
    ----------
    image : array (I, J) or (I, J, K), finite intensities
    zooms : voxel size per axis, mm; 1 where not given

    Returns
    -------
    AutoMask

    Raises
    ------
    ValueError
        As `head_mask`.
    """
    image, zooms = checked(image, zooms)
    head = find_head(image, zooms)
    brain = find_brain(head)
    confidence = 0.0 if brain is None else brain.confidence
    if brain is not None and confidence >= SURE:
        choice = choose(head, brain, image.shape, zooms)
        if choice.kind == "otsu":
            return _otsu(image, head, confidence, *filter(None, [choice.note]))
        mask = brain_mask.on_image(image.shape, head, brain, choice.inner)
        return _result(mask, "brain", head, confidence, _doubtful_brain(brain))
    why = _why_no_brain(head, brain)
    found = _usable(head)
    if found is not None:
        return _otsu(image, head, confidence, why, found)
    return _result(head_mask.on_image(image, head), "head", head, confidence, (why,))


def named_mask(
    word: Literal["auto", "head", "brain"],
    image: np.ndarray,
    zooms: Sequence[float] | None = None,
) -> AutoMask:
    """Find the mask that a word names, and record how it was found.

    Parameters
    ----------
    word : "auto" as `auto_mask`, or "head" or "brain" for exactly that mask
    image : array (I, J) or (I, J, K), finite intensities
    zooms : voxel size per axis, mm; 1 where not given

    Returns
    -------
    AutoMask; the confidence of "head" is 0, because no brain is searched for

    Raises
    ------
    ValueError
        As `head_mask`, and for "brain" if no plausible brain is found.
    """
    if word == "auto":
        return auto_mask(image, zooms)
    image, zooms = checked(image, zooms)
    head = find_head(image, zooms)
    if word == "head":
        mask = head_mask.on_image(image, head)
        return _result(mask, "head", head, 0.0, _doubtful_head(head))
    brain = find_brain(head)
    if brain is None or brain.confidence < SURE:
        raise ValueError(NO_BRAIN)
    mask = brain_mask.on_image(image.shape, head, brain)
    return _result(mask, "brain", head, brain.confidence, _doubtful_brain(brain))


def found_mask(
    word: str, image: Any, zooms: Sequence[float] | None = None
) -> jax.Array | np.ndarray:
    """Return the mask that "auto", "head" or "brain" names, on the device of the image.

    Raises
    ------
    ValueError
        As `named_mask`.
    """
    named: Any = word
    mask = named_mask(named, np.asarray(image), zooms).mask
    return jax.numpy.asarray(mask) if isinstance(image, jax.Array) else mask


def _usable(head: Head) -> str | None:
    """Return why a head mask is not used; None if it is."""
    if not head.rounds:
        return "The image is too thin or too flat for mask and field in turn: Otsu's mask."
    if not head.settled:
        return f"The head mask still changed after {head.rounds} rounds: Otsu's mask is kept."
    size = np.count_nonzero(head.mask)
    if size < SPECK * np.count_nonzero(head.otsu):
        return "The head mask is less than half as large as Otsu's, which is kept."
    if np.count_nonzero(head.otsu & head.mask) >= COVERED * size:
        return "Otsu's mask covers most of what the head mask does, and is kept."
    return None


def _doubtful_brain(brain: Brain) -> tuple[str, ...]:
    """Return notes on a brain that may be incomplete."""
    if brain.cut <= CUT:
        return ()
    return (
        f"The image ends with the brain in {brain.cut:.0%} of the directions from its centre: a "
        "part of it may lie outside.",
    )


def _doubtful_head(head: Head) -> tuple[str, ...]:
    """Return notes on a head mask that was requested by name and may be wrong."""
    if not head.rounds:
        return ("The image is too thin or too flat for mask and field in turn: Otsu's mask.",)
    if not head.settled:
        return (f"The head mask still changed after {head.rounds} rounds.",)
    return ()


def _why_no_brain(head: Head, brain: Brain | None) -> str:
    if head.copy.values.ndim < 3:
        return "An image with two axes is not searched for a brain."
    if brain is None:
        return "No candidate for a brain was found in the image."
    worst = min(brain.checks, key=brain.checks.__getitem__)
    return (
        f"What was found is no plausible brain ({brain.volume:.3g} ml, confidence "
        f"{brain.confidence:.2f}; what speaks most against it: {worst})."
    )


def _otsu(image: Any, head: Head, confidence: float, *notes: str) -> AutoMask:
    """Return Otsu's mask; clip the image first if hot spots would leave only a speck."""
    mask = np.asarray(otsu_mask(image))
    if np.count_nonzero(mask) / mask.size < SPECK * np.count_nonzero(head.otsu) / head.otsu.size:
        mask = np.asarray(otsu_mask(np.minimum(image, image.dtype.type(head.copy.ceiling))))
        notes += ("A few voxels are far brighter than the rest: they were clipped for the mask.",)
    return _result(mask, "otsu", head, confidence, notes)


def _result(
    mask: np.ndarray, kind: Kind, head: Head, confidence: float, notes: Sequence[str]
) -> AutoMask:
    inside = _on_copy(mask, head)
    covers = np.count_nonzero(head.otsu & inside) / max(1, int(np.count_nonzero(inside)))
    share = np.count_nonzero(mask) / mask.size
    return AutoMask(mask, kind, share, head.rounds, confidence, covers, tuple(notes))


def _on_copy(mask: np.ndarray, head: Head) -> np.ndarray:
    """Return the mask at the middle voxel of each block of the copy."""
    factors, shape = head.copy.factors, head.copy.values.shape
    middle = (
        slice(f // 2, f // 2 + f * (n - 1) + 1, f) for f, n in zip(factors, shape, strict=True)
    )
    return mask[tuple(middle)]
