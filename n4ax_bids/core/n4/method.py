"""N4 as one of the methods: options and arrays in, the field and N4's own numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from n4ax_bids.core.estimator import Estimate, Given, Joint, Report
from n4ax_bids.core.n4.adaptive import adapted, largest
from n4ax_bids.core.n4.automatic import check_automatic_mask
from n4ax_bids.core.n4.estimate import N4Result, estimate
from n4ax_bids.core.n4.joint import joint
from n4ax_bids.core.n4.plan import Plan, plan
from n4ax_bids.core.n4.remarks import remarks
from n4ax_bids.core.n4.shrinking import padding, shrink_factors
from n4ax_bids.options import N4Options


@dataclass(frozen=True)
class N4Details:
    """The numbers of a solve that only N4 has."""

    n_voxels_used: int
    """voxels of the shrunk grid that the estimate used"""
    n_iterations: tuple[int, ...]
    """done at each level"""
    convergence: tuple[float, ...]
    """last value of the stopping statistic at each level; NaN at a level without iterations"""
    converged: tuple[bool, ...]
    """whether a level ended because that value did not exceed the threshold"""
    shrink_factors: tuple[int, ...]
    shrink_start: tuple[int, ...]
    """voxel index of the first sample on each axis; negative in the padding that a spline
    distance adds"""
    n_control_points: tuple[int, ...]
    """of the first level"""


def prepare(given: Given, options: N4Options) -> N4Solve:
    """Prepare a solve; see `n4ax_bids.core.estimator.Estimator`.

    Raises
    ------
    ValueError
        If a size or an option does not fit the image, or an automatic mask is unusable.
    """
    options = adapted(options, given.image.shape, given.zooms, given.mask, given.weight)
    made = plan_of(given, options)
    doubt = None
    if given.automatic and given.mask is not None:
        doubt = check_automatic_mask(given.image, given.mask, made, *given.automatic)
    return N4Solve(given, made, doubt)


@dataclass(frozen=True, eq=False)
class N4Solve:
    """N4 of one image; a `n4ax_bids.core.estimator.Solve`."""

    given: Given
    plan: Plan
    doubt: str | None
    """warning about an automatic mask"""

    def __call__(self, report: Report | None = None) -> Estimate:
        arrays = self.given.image, self.given.mask, self.given.weight
        return self._described(estimate(*arrays, plan=self.plan, report=report))

    def joint(self) -> Joint | None:
        """Return what images on a GPU share; None for an image that is solved alone."""
        return joint(self.given, self.plan, self._described)

    def _described(self, result: N4Result) -> Estimate:
        details = N4Details(
            n_voxels_used=result.n_voxels,
            n_iterations=tuple(result.n_iterations),
            convergence=tuple(float(value) for value in result.convergence),
            converged=tuple(bool(value) for value in result.converged),
            shrink_factors=self.plan.shrink_factors,
            shrink_start=self.plan.image_start,
            n_control_points=self.plan.n_control_points,
        )
        return Estimate(result.log_field, details, remarks(result, self.plan, self.doubt))


def plan_of(given: Given, options: N4Options) -> Plan:
    """Return the plan for the given arrays; each file is sampled by its own header, as in ANTs."""
    shape, zooms = given.image.shape, given.zooms
    if given.sampling is None:
        return plan(options, shape, zooms)
    pads = padding(options, shape, zooms)
    padded = [n + sum(pad) for n, pad in zip(shape, pads, strict=True)]
    factors = shrink_factors(options, shape, zooms)
    lower = [pad[0] for pad in pads]
    starts = (given.sampling(role, padded, factors, lower) for role in ("image", "mask", "weight"))
    image_start, mask_start, weight_start = starts
    return plan(
        options,
        shape,
        zooms,
        image_start=image_start,
        mask_start=mask_start,
        weight_start=weight_start,
    )


def memory(options: N4Options, shape: Sequence[int], zooms: Sequence[float]) -> int:
    """Return about how many bytes the solve of an image takes; measured: 40 for each sample.

    Parameters
    ----------
    options : N4Options
    shape : voxels of each axis
    zooms : mm of each axis
    """
    options = largest(options, shape[:3], zooms)
    factors: tuple[int, ...] = (options.shrink_factor,) * 3
    if options.shrink_mm is not None:
        factors = shrink_factors(options, shape[:3], zooms)
    return math.prod(shape) * (40 // math.prod(factors))
