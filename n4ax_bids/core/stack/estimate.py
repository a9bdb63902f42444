"""From a thinned stack to its correction: match, smooth the profile, N4 per section and whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from n4ax_bids.core.field import LogField, Section, sample, transposed
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.stack.boundaries import section_bounds
from n4ax_bids.core.stack.correction import StackCorrection
from n4ax_bids.core.stack.matching import matched, matching, profile_gains, scale_factors
from n4ax_bids.core.stack.samples import Samples, Thinning, samples_of, section_plan
from n4ax_bids.core.tissue_mask import compute_tissue_mask
from n4ax_bids.options.stack import StackOptions

Say = Callable[[str], None]
"""Called with the step that begins."""


class Stack(NamedTuple):
    """A stack whose planes were thinned as they were read."""

    shape: tuple[int, int, int]
    """planes, rows, columns before thinning"""
    zooms: tuple[float, float, float]
    """size of a voxel on these axes, mm"""
    thin: np.ndarray
    """float32 (planes, fewer rows, fewer columns); `estimate_stack` overwrites it"""
    mask: np.ndarray
    """bool, like `thin`"""
    how: Thinning


def thin_tissue_mask(means: np.ndarray, how: Thinning, options: StackOptions) -> np.ndarray:
    """Find the tissue in thinned planes; sizes in pixels of the options refer to full planes.

    Parameters
    ----------
    means : array (planes, rows, columns), means of blocks
    how : Thinning
    options : StackOptions
    """
    factor = max(along.factor for along in how.blocks)
    # The mean over a block of f pixels smooths as a Gaussian with the variance (f² - 1)/12 does.
    rest = max(0.0, options.mask_sigma**2 - (factor**2 - 1) / 12) ** 0.5
    mask = compute_tissue_mask(
        means,
        smoothing_sigma=rest / factor,
        smoothing_sigma_z=options.mask_sigma_z,
        n_serial_slices=options.sections,
        closing_radius=round(options.mask_closing / factor),
        z_closing_sections=options.mask_closing_z,
    )
    rows, columns = (
        np.clip(
            np.rint((positions - along.start - (along.factor - 1) / 2) / along.factor),
            0,
            along.n - 1,
        ).astype(np.intp)
        for positions, along in zip(how.positions, how.blocks, strict=True)
    )
    found: np.ndarray = np.asarray(mask)[:, rows[:, None], columns]
    return found


def stack_of(
    thin: np.ndarray,
    mask: np.ndarray,
    shape: Sequence[int],
    zooms: Sequence[float],
    how: Thinning,
) -> Stack:
    """Put together what `estimate_stack` needs."""
    n_z, n_y, n_x = (int(n) for n in shape)
    d_z, d_y, d_x = (float(zoom) for zoom in zooms)
    zooms = (d_z, d_y, d_x)
    return Stack((n_z, n_y, n_x), zooms, thin, mask, how)


def estimate_stack(
    stack: Stack,
    options: StackOptions,
    say: Say | None = None,
    together: bool | None = None,
    memory: int | None = None,
) -> StackCorrection:
    """Estimate everything that corrects a stack from its thinned planes.

    Parameters
    ----------
    stack : Stack; its thinned planes are overwritten
    options : StackOptions
    say : called with the name of each step that begins
    together : solve sections of equal size at once, see `n4ax_bids.n4_batch`
    memory : bytes that the voxels of a solve may take; None: what the device has

    Raises
    ------
    ValueError
        If the stack holds no tissue, or N4 refuses it.
    """
    say = say or (lambda step: None)
    bounds = section_bounds(stack.shape[0], options.sections)
    area = stack.shape[1] * stack.shape[2] // max(1, stack.thin[0].size)
    thin, how = stack.thin, None
    if options.match != "none":
        say("matching")
        groups = bounds if options.match == "section" else section_bounds(stack.shape[0])
        how = matching(thin, groups, options.tissue_threshold, area)
        thin = thin if how is None else matched(thin, how)
    gains = profile_gains(thin, options.tissue_threshold, options.profile_sigma, area)
    if gains is not None:
        for plane, gain in zip(thin, gains.astype(np.float32), strict=True):
            plane[plane > options.tissue_threshold] *= gain
    scales = np.ones(stack.shape[0])
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
    if options.mode != "global":
        say("sections")
        sections, notes = _sections_alone(stack, thin, bounds, options, together, memory)
        for section in sections:
            _divide(thin, section, stack.how)
        scales = _scales(thin, stack.mask, bounds, options)
        thin *= scales.astype(np.float32)[:, None, None]
    whole = None
    if options.mode != "per_section":
        say("whole stack")
        made = section_plan(options, stack.shape, stack.zooms, options.global_spline_mm)
        whole = _whole(samples_of(thin, stack.mask, made, stack.how), memory)
    return StackCorrection(
        stack.shape,
        sections,
        whole,
        scales,
        how,
        gains,
        options.tissue_threshold,
        options.strength,
        stack.mask,
        stack.how,
        notes,
    )


def _whole(samples: Samples, memory: int | None) -> LogField:
    if not samples.mask.any():
        raise ValueError("the stack has no tissue among its samples; expected another mask")
    result = estimate(samples.image, samples.mask, plan=samples.plan, memory=memory)
    return transposed(result.log_field)


def _sections_alone(
    stack: Stack,
    thin: np.ndarray,
    bounds: Sequence[tuple[int, int]],
    options: StackOptions,
    together: bool | None,
    memory: int | None,
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """Return the field of each section; a section without tissue or contrast has none."""
    samples, notes = [], []
    for start, stop in bounds:
        shape = (stop - start, *stack.shape[1:])
        made = section_plan(options, shape, stack.zooms, options.section_spline_mm)
        part = slice(start, stop)
        samples.append(samples_of(thin[part], stack.mask[part], made, stack.how))
    usable = [i for i, each in enumerate(samples) if _has_contrast(each)]
    fields = {}
    if usable:
        results = estimate_batch(
            [samples[i].image for i in usable],
            [samples[i].mask for i in usable],
            [None] * len(usable),
            plans=[samples[i].plan for i in usable],
            together=together,
            memory=memory,
        )
        fields = {i: transposed(each.log_field) for i, each in zip(usable, results, strict=True)}
    sections = []
    for i, (start, stop) in enumerate(bounds):
        if i not in fields:
            notes.append(f"planes {start} to {stop - 1}: no tissue with contrast, not corrected")
        sections.append(Section(fields.get(i) or _no_field(samples[i].plan), start, stop))
    return tuple(sections), tuple(notes)


def _has_contrast(samples: Samples) -> bool:
    made = samples.plan
    values = made.sample(samples.image, made.image_start)
    inside = values[made.sample(samples.mask, made.mask_start)]
    return inside.size > 0 and bool(inside.min() < inside.max())


def _no_field(made: Plan) -> LogField:
    """Return a field of 1 whose lattice is as large as those of other sections at the end."""
    levels = len(made.options.n_iterations)
    spans = [(n - 3) * 2 ** (levels - 1) for n in made.n_control_points]
    scale = 2 ** (levels - 1)
    axes = [[scale * value for value in axis.image] for axis in made.axes]
    lattice = np.zeros([n + 3 for n in spans], np.float32)
    first, step, clamp = (tuple(column) for column in zip(*axes, strict=True))
    return transposed(LogField(lattice, 3, first, step, clamp))


def _divide(thin: np.ndarray, section: Section, how: Thinning) -> None:
    """Divide the thinned planes of a section by its field, in place."""
    for k in range(section.start, section.stop):
        plane = np.array([k - section.start])
        thin[k] /= np.exp(sample(section.log_field, [plane, *how.positions])[0])


def _scales(
    thin: np.ndarray, mask: np.ndarray, bounds: Sequence[tuple[int, int]], options: StackOptions
) -> np.ndarray:
    """Return the factor of each plane that brings the sections' medians to their target."""
    medians = np.full(len(bounds), np.nan)
    for i, (start, stop) in enumerate(bounds):
        inside = thin[start:stop][mask[start:stop]]
        if inside.size:
            medians[i] = np.median(inside)
    factors = scale_factors(medians, options.scale, options.scale_sigma)
    return np.repeat(factors, [stop - start for start, stop in bounds])
