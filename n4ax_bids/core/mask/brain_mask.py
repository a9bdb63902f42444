"""The brain in an image of a head of any contrast, from its own intensities and shape.

No atlas and no trained model is used. The median deep in the head gives the brightness of tissue,
erosion finds a first piece, and a closed surface around it stops at the dark skull; the connected
tissue inside is the brain. Its size, shape and intensities show whether it can be one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from n4ax_bids.core.mask import morphology
from n4ax_bids.core.mask.brain_checks import TISSUE, filled, like_brain, shape_checks
from n4ax_bids.core.mask.coarse import enlarged
from n4ax_bids.core.mask.head_mask import BLOCK, Head, checked, find_head
from n4ax_bids.core.mask.star_surface import Surface, depth, fit_surface

RIM = 1.25
"""depth of the rim below the edge of the brain mask, in voxels; its intensities are those of
meninges, fluid and partial volume, not of a tissue"""
WIDER = 1.4
"""mm beyond the connected tissue, so that cortex is inside the mask"""
SURE = 0.5
"""smallest confidence of a mask that is accepted as a brain"""
MOST_PIECES = 3
"""largest number of pieces of an erosion that are tried as seeds"""
CERTAIN = 0.8
"""confidence at which no other seed is tried"""
SMALLEST_PIECE = 0.05
"""smallest share of the largest piece for a seed"""
ROUNDS = 4
"""surfaces fitted from one seed"""


class Brain(NamedTuple):
    """A candidate for a brain, on a box of the head's coarse copy."""

    edge: np.ndarray
    """float32 on the box, signed distance to the mask's edge in mm, positive inside"""
    box: tuple[slice, ...]
    """part of the copy"""
    median: float
    """median intensity of its tissue after correction"""
    volume: float
    """ml"""
    confidence: float
    """0 to 1, the product of `checks`"""
    rim: float
    """mm, depth of the rim; see `RIM`"""
    checks: dict[str, float]
    """scores of the checks by name, each 0 to 1"""
    cut: float
    """share of directions from its centre in which the image ends with the brain"""


def brain_mask(
    image: np.ndarray, zooms: Sequence[float] | None = None, *, inner: float = 0.0
) -> np.ndarray:
    """Return which voxels belong to the brain; none if no plausible brain is found.

    Parameters
    ----------
    image : array (I, J, K), finite intensities; T1w, T2w, FLAIR or PDw, with or without a bias
        field, a whole head or one that another tool has cropped or stripped
    zooms : voxel size per axis, mm; 1 where not given
    inner : mm by which the mask is made smaller

    Returns
    -------
    bool array like `image`; all False if there is no brain, and for an image with two axes

    Raises
    ------
    ValueError
        As `head_mask`.
    """
    image, zooms = checked(image, zooms)
    head = find_head(image, zooms)
    brain = find_brain(head)
    if brain is None or brain.confidence < SURE:
        return np.zeros(image.shape, bool)
    return on_image(image.shape, head, brain, inner)


def on_image(shape: Sequence[int], head: Head, brain: Brain, inner: float = 0.0) -> np.ndarray:
    """Return the brain, made smaller by `inner` mm, on the voxels of the image."""
    start = [part.start for part in brain.box]
    return enlarged(brain.edge - inner, start, head.copy.factors, shape)


def find_brain(head: Head) -> Brain | None:
    """Search for a brain in a head; return None if there is no candidate."""
    copy = head.copy
    extents = [n * zoom for n, zoom in zip(copy.values.shape, copy.zooms, strict=True)]
    unit = _unit(extents)
    if not head.rounds or unit is None or not head.mask.any():
        return None
    place = _Place(head, unit)
    if min(place.rough.shape) < 4:
        return None
    best = None
    for seed in _seeds(place):
        found = _grown(place, *seed)
        if found is not None and (best is None or found.confidence > best.confidence):
            best = found
        if best is not None and best.confidence >= CERTAIN:
            break
    return best


class _Place:
    """The head's box on its copy, and a copy of every second block for coarse steps.

    Axes are in raster order, the image's last axis first, as the copy lies in memory.
    """

    def __init__(self, head: Head, unit: float) -> None:
        self.unit, self.zooms = unit, head.copy.zooms[::-1]
        blocks = math.prod(head.copy.zooms) / math.prod(head.copy.factors)
        self.rim = RIM * blocks ** (1 / 3)
        self.box = morphology.box(head.mask.T)
        self.values, self.mask = head.corrected.T[self.box], head.mask.T[self.box]
        steps = [max(1, round(2 * BLOCK * unit / zoom)) for zoom in self.zooms]
        self.every = tuple(slice(step // 2, None, step) for step in steps)
        self.rough = np.ascontiguousarray(self.values[self.every])
        self.rough_mask = np.ascontiguousarray(self.mask[self.every])
        self.rough_zooms = [z * step for z, step in zip(self.zooms, steps, strict=True)]
        self.start = np.array([s // 2 * z for s, z in zip(steps, self.zooms, strict=True)])
        """mm, of the first rough block"""


def _grown(place: _Place, piece: np.ndarray, median: float) -> Brain | None:
    """Fit the surface from a seed, and find the brain inside it."""
    fitted = _surface(place, piece, median)
    if fitted is None:
        return None
    inside = depth(fitted.surface, place.values.shape, place.zooms, fitted.centre)
    edge, part = _refined(place, inside, fitted.median, fitted.strictness)
    if edge is None:
        return None
    checks = shape_checks(edge, place.zooms, fitted.surface, place.unit, fitted.moved)
    checks["tissue"] = like_brain(place.values[part] / fitted.median, edge, place.unit)
    volume = np.count_nonzero(edge > 0) * math.prod(place.zooms) / 1000
    box = tuple(
        slice(a.start + b.start, a.start + b.stop) for a, b in zip(place.box, part, strict=True)
    )
    checks["filled"] = filled(edge, inside)
    confidence, cut = math.prod(checks.values()), float(fitted.surface.cut.mean())
    box = box[::-1]
    return Brain(edge.T, box, fitted.median, volume, confidence, place.rim, checks, cut)


def _unit(extents: Sequence[float]) -> float | None:
    """Return the size of the head in an image: 1 for a human's, less for a small animal's.

    None for sizes between the two.
    """
    longest = max(extents)
    if longest >= 100:
        return 1.0
    return longest / 256 if longest <= 60 else None


def _seeds(place: _Place) -> Iterator[tuple[np.ndarray, float]]:
    """Yield pieces that may lie in the brain, each with the median of its tissue.

    First the largest pieces that erosion leaves, then the middle of the largest ball in the head,
    because neck and face, if they are in the image, can leave larger pieces than the brain.
    """
    values, zooms, unit = place.rough, place.rough_zooms, place.unit
    solid = morphology.filled(morphology.closed(place.rough_mask, zooms, 8 * unit))
    below = _depth_of(solid, zooms)
    deep = place.rough_mask & (below > min(25 * unit, 0.6 * below.max()))
    if not deep.any():
        return
    median = float(np.median(values[deep]))
    for piece in _eroded_pieces(values, zooms, unit, median):
        yield piece, float(np.median(values[piece]))
    ball = deep & (below > below.max() - 8 * unit)
    ball = morphology.dilated(morphology.largest(ball), zooms, 15 * unit) & place.rough_mask
    yield ball, float(np.median(values[ball]))


def _depth_of(solid: np.ndarray, zooms: Sequence[float]) -> np.ndarray:
    """Return how deep each voxel lies in a solid, in mm, as found on every second of them."""
    half = np.pad(solid[::2, ::2, ::2], 1)
    below = ndimage.distance_transform_edt(half, sampling=[2 * zoom for zoom in zooms])
    nearest = np.ix_(*(1 + np.arange(n) // 2 for n in solid.shape))
    return below.astype(np.float32)[nearest]


def _eroded_pieces(
    values: np.ndarray, zooms: Sequence[float], unit: float, median: float
) -> list[np.ndarray]:
    """Return the largest pieces of the first erosion that leaves none larger than a brain."""
    tissue = (values > 0.45 * median) & (values < 1.6 * median)
    within = morphology.distance(tissue, zooms, 22 * unit)
    pieces: list[np.ndarray] = []
    for radius in (3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20):
        eroded = within > radius * unit
        if not eroded.any():
            break
        pieces = morphology.largest_pieces(eroded, MOST_PIECES, SMALLEST_PIECE)
        grown = morphology.dilated(pieces[0], zooms, (radius + 1) * unit)
        if np.count_nonzero(grown) * math.prod(zooms) <= 1.9e6 * unit**3:
            break
    return pieces


class _Fitted(NamedTuple):
    """A surface and the parameters of its fit."""

    surface: Surface
    centre: np.ndarray
    """mm from the first block of the box"""
    median: float
    strictness: float
    moved: float
    """share of the inside that changed in the last round"""


def _surface(place: _Place, piece: np.ndarray, median: float) -> _Fitted | None:
    """Fit the surface a few times, each from the centre and the median of the one before."""
    values, unit = place.rough, place.unit
    centre = place.start + _centre(piece, place.rough_zooms)
    strictness, before, fitted = 1.0, None, None
    for _ in range(ROUNDS):
        relative = place.values * np.float32(1 / median)
        surface = fit_surface(relative, place.zooms, centre, unit, strictness)
        inside = depth(surface, values.shape, place.rough_zooms, centre - place.start)
        mask = inside > 0
        tissue, middle = mask & (values > 0.4 * median), inside > 10 * unit
        if not tissue.any() or not middle.any():
            return None
        median = float(np.median(values[tissue]))
        moved = 1.0
        if before is not None:
            moved = np.count_nonzero(mask != before) / np.count_nonzero(mask | before)
        fitted = _Fitted(surface, centre, median, strictness, moved)
        before, centre = mask, place.start + _centre(mask, place.rough_zooms)
        # Dark fluid in sulci and ventricles (T1w, FLAIR) is not skull; an image with little of it
        # (T2w, PDw) has darkness mainly in the skull.
        dark = np.mean(values[middle] < TISSUE[0] * median)
        strictness = float(np.interp(dark, (0.01, 0.03), (3.0, 1.0)))
    return fitted


def _centre(mask: np.ndarray, zooms: Sequence[float]) -> np.ndarray:
    return np.array([index.mean() for index in np.nonzero(mask)]) * zooms


def _refined(
    place: _Place, inside: np.ndarray, median: float, strictness: float
) -> tuple[Any, tuple[slice, ...]]:
    """Return the signed distance of the connected tissue inside the surface, and its box."""
    unit, zooms = place.unit, place.zooms
    near = inside > -8 * unit
    part = morphology.box(near, margin=2)
    values, near = place.values[part], near[part]
    tissue = near & (values > TISSUE[0] * median) & (values < TISSUE[1] * median)
    radius = (1 + 2 * strictness) * unit
    eroded = morphology.eroded(tissue, zooms, radius)
    if not eroded.any():
        return None, part
    piece = morphology.dilated(morphology.largest(eroded), zooms, radius + unit)
    whole = near & morphology.filled(morphology.closed(tissue & piece, zooms, 8 * unit))
    edge = morphology.signed_distance(whole, zooms, 8 * unit)
    return (edge + WIDER * unit).astype(np.float32), part
