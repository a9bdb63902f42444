"""The tissue method as one of the methods: options and arrays in, the field out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n4ax_bids.core.estimator import Estimate, Given, Report, Solve
from n4ax_bids.core.field import LogField
from n4ax_bids.core.n4 import method as n4
from n4ax_bids.core.tissue import estimate as estimates
from n4ax_bids.core.tissue.estimate import Found, Image
from n4ax_bids.core.tissue.mixture import N_TISSUES
from n4ax_bids.core.tissue.posteriors import maps_of, tissues_of
from n4ax_bids.options import N4Options
from n4ax_bids.options.tissue import TissueOptions

COARSE_N4 = N4Options(shrink_mm=4, n_iterations=(50, 50), convergence_threshold=1e-7)
"""the fall-back: two levels, so that it follows little of the anatomy"""
SECTION = 32
"""most values on each axis of the section of tissues in the details"""


@dataclass(frozen=True)
class TissueDetails:
    """The numbers of a solve that only this method has."""

    fell_back: bool
    """whether the model did not fit and the field is that of a coarse N4"""
    misfit: float | None
    """sd over regions of 25 mm of what classes and field leave, ln of intensity; None if too few
    blocks could be used"""
    n_blocks: int
    """blocks that the estimate used"""
    n_rounds: int
    changes: tuple[float, ...]
    """sd of the change of ln of the field in each round"""
    stiffness: float | None
    """of the field, mm^6; below the option where the field is strong"""
    field_sd: float | None
    """sd of ln of the field at the blocks, before any fall-back"""
    noise: float | None
    """standard deviation of the noise of a voxel, intensity"""
    class_means: tuple[float, ...]
    """mean of each class, ln of intensity"""
    class_sds: tuple[float, ...]
    class_shares: tuple[float, ...]
    outliers: float | None
    """share of blocks that belong to no class"""
    class_tissues: tuple[str, ...]
    """tissue of each class: a name, or class1 to class3 from dark to bright"""
    tissue_section: tuple[tuple[int, ...], ...]
    """most probable tissue in the middle plane of the last axis, 1 to 3 from dark to bright, 0
    outside; at most 32 values on each axis"""


def prepare(given: Given, options: TissueOptions) -> Solve:
    """Prepare a solve; see `n4ax_bids.core.estimator.Estimator`.

    Raises
    ------
    ValueError
        If arrays or options do not fit.
    """
    image = estimates.image_of(given, options)

    def run(report: Report | None = None) -> Estimate:
        found = estimates.estimate([image], options)[0]
        if found is not None and report is not None:
            for number, change in enumerate(found.changes, start=1):
                report(1, number, change)
        if found is not None and fits(found, options):
            return _estimate(image, found, options)
        return _fallen_back(given, image, found, options)

    return run


def solve_jointly(givens: Sequence[Given], options: TissueOptions) -> list[Estimate]:
    """Estimate one field from several images of one grid.

    Images that the model does not fit have no part in the estimate, and a note of theirs says so.
    If it fits none, each has the field of a coarse N4 of the first.

    Returns
    -------
    for each image an estimate; the field is the same
    """
    images = [estimates.image_of(given, options) for given in givens]
    parts = list(range(len(images)))
    found: dict[int, Found | None] = {}
    while parts:
        now = estimates.estimate([images[part] for part in parts], options)
        found.update(zip(parts, now, strict=True))
        good = [part for part in parts if (its := found[part]) is not None and fits(its, options)]
        if good == parts:
            break
        parts = good
    if not parts:
        first = _fallen_back(givens[0], images[0], found[0], options)
        return [first] * len(images)
    shared = found[parts[0]]
    assert shared is not None
    return [
        _estimate(image, its, options)
        if number in parts and (its := found[number]) is not None
        else _without_classes(image, shared.log_field, "the other images", found[number], options)
        for number, image in enumerate(images)
    ]


def fits(found: Found, options: TissueOptions) -> bool:
    """Return whether the model fits the image."""
    numbers = (found.misfit, found.sd, float(np.abs(found.log_field.lattice).max()))
    return all(map(math.isfinite, numbers)) and found.misfit <= options.largest_misfit


def _estimate(image: Image, found: Found, options: TissueOptions) -> Estimate:
    """Return the field with details and, if wanted, posterior maps."""
    tissues = tissues_of(found.classes)
    images = {}
    notes = list(image.notes)
    inside = image.weight > 0
    if options.posteriors:
        maps = maps_of(image.values, inside, found.log_field, found.classes, found.noise, tissues)
        images = dict(zip(options.tissues, maps, strict=True))
        if options.contrast == "unknown":
            notes.append(
                "the contrast is unknown: the posterior maps are named class1 to class3 from "
                "dark to bright"
            )
    details = _details(found, options, tissues, _section(image, found, tissues))
    return Estimate(found.log_field, details, tuple(notes), images)


def _fallen_back(
    given: Given, image: Image, found: Found | None, options: TissueOptions
) -> Estimate:
    """Return the field of a coarse N4."""
    plain = n4.prepare(given, COARSE_N4)(None)
    instead = _without_classes(image, plain.log_field, "a coarse N4", found, options)
    return instead._replace(notes=(*instead.notes, *plain.notes))


def _without_classes(
    image: Image, log_field: LogField, whose: str, found: Found | None, options: TissueOptions
) -> Estimate:
    """Return a field that the classes of this image had no part in."""
    why = "too few blocks of the image have a signal and homogeneous surroundings"
    if found is not None:
        why = f"the misfit is {found.misfit:.3g}; expected at most {options.largest_misfit:g}"
    note = f"tissue classes do not fit this image ({why}): the field is that of {whose}"
    images = {}
    if options.posteriors:
        nothing = np.zeros(image.values.shape, np.float32)
        images = {name: nothing for name in options.tissues}
        note += "; the posterior maps are 0"
    return Estimate(log_field, _details(found, options, None, ()), (*image.notes, note), images)


def _details(
    found: Found | None,
    options: TissueOptions,
    tissues: np.ndarray | None,
    section: tuple[tuple[int, ...], ...],
) -> TissueDetails:
    if found is None:
        return TissueDetails(True, None, 0, 0, (), None, None, None, (), (), (), None, (), ())
    named = () if tissues is None else tuple(options.tissues[tissue] for tissue in tissues)
    return TissueDetails(
        fell_back=tissues is None,
        misfit=_short(found.misfit),
        n_blocks=found.n_blocks,
        n_rounds=found.n_rounds,
        changes=tuple(map(_short, found.changes)),
        stiffness=_short(found.stiffness),
        field_sd=_short(found.sd),
        noise=_short(found.noise),
        class_means=tuple(map(_short, found.classes.mean)),
        class_sds=tuple(map(_short, np.sqrt(found.classes.variance))),
        class_shares=tuple(map(_short, found.classes.share)),
        outliers=_short(found.classes.outliers),
        class_tissues=named,
        tissue_section=section,
    )


def _short(value: float) -> float:
    return float(f"{float(value):.6g}")


def _section(image: Image, found: Found, tissues: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return the most probable tissue in the middle plane of the last axis, thinned."""
    values, inside, field = image.values, image.weight > 0, found.log_field
    if values.ndim == 3:
        middle = values.shape[2] // 2
        at = slice(middle, middle + 1)
        values, inside = values[..., at], inside[..., at]
        first = (*field.first[:2], field.first[2] + field.step[2] * middle)
        field = field._replace(first=first)
    maps = maps_of(values, inside, field, found.classes, found.noise, tissues)
    most = np.where(maps.sum(axis=0) > 0, 1 + maps.argmax(axis=0), 0)
    most = most[..., 0] if most.ndim == 3 else most
    step = [max(1, -(-n // SECTION)) for n in most.shape]
    return tuple(tuple(map(int, row)) for row in most[:: step[0], :: step[1]])


def memory(options: TissueOptions, shape: Sequence[int], zooms: Sequence[float]) -> int:
    """Return about how many bytes the solve of an image takes, without those of the image.

    Parameters
    ----------
    options : TissueOptions
    shape : voxels of each axis
    zooms : mm of each axis
    """
    n = math.prod(shape[:3])
    factors = [max(1, round(options.block_mm / mm)) for mm in zooms[:3]]
    blocks = math.prod(-(-size // f) for size, f in zip(shape[:3], factors, strict=False))
    maps = 4 * N_TISSUES * n if options.posteriors else 0
    # Copies of the image on the host in float32 and float64; arrays of the blocks and their
    # products with the bases on one axis.
    return int(32 * n + 400 * blocks + maps)
