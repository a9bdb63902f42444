"""N4 of several images that wait for the same GPU, in one solve.

A GPU needs little more time for a batch of small grids than for one of them. Which images wait at
the same time is chance, so a batch is made such that an image has the same bits in any company and
alone: it always has `MOST` places, empty ones are filled with copies of an image, and its images
have equal plans and rows padded to equal sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

from n4ax_bids.core.estimator import Estimate, Given
from n4ax_bids.core.memory_maps import make_room
from n4ax_bids.core.n4.estimate import N4Result, result_of, solve_taken
from n4ax_bids.core.n4.plan import Plan
from n4ax_bids.core.n4.solve import Solved, can_end_by_itk, size_of_lattice, solve_batch
from n4ax_bids.core.n4.take import Sampled, sampled, take_sampled
from n4ax_bids.core.n4.taken import TakenOnDevice, lay_out_alike

T = TypeVar("T")

MOST = 8
"""images of a solve; a batch of 16 takes about twice the time of one image
(docs/benchmarks/gpu.md), so one of 8 costs an image that is alone some milliseconds"""
LARGEST = 1 << 19
"""samples or control points of an image; larger grids keep a GPU busy one at a time"""


def joint(given: Given, plan: Plan, described: Callable[[N4Result], Estimate]) -> JointN4 | None:
    """Return the solve that an image can share; None if it must be alone.

    An image is alone if its grid is large, if ITK's statistic, which the host computes, may end a
    level, or if an array lies on a device.

    Parameters
    ----------
    given : arrays of the image
    plan : Plan for the image's shape
    described : makes the estimate of a result

    Raises
    ------
    ValueError
        If an array does not have the plan's shape.
    """
    sizes = plan.sample_shape, size_of_lattice(plan)
    if max(map(math.prod, sizes)) > LARGEST or can_end_by_itk(plan.options):
        return None
    samples = sampled(given.image, given.mask, given.weight, plan)
    return samples and JointN4(samples, plan, described)


@dataclass(frozen=True, eq=False)
class JointN4:
    """N4 of one image; a `n4ax_bids.core.estimator.Joint`."""

    samples: Sampled
    plan: Plan
    described: Callable[[N4Result], Estimate]
    most: int = MOST

    @property
    def kind(self) -> Hashable:
        """Plan and types: for all that is equal, the compiled program is the same."""
        return (self.plan, self.samples.kinds)

    def solve(self, others: Sequence[JointN4]) -> list[Estimate | ValueError]:
        """Solve this image and others of its kind; see `Joint.solve`."""
        every = [self, *others]
        found: dict[int, Estimate | ValueError] = {}
        there: dict[int, TakenOnDevice] = {}
        alike: dict[tuple[int, int], list[int]] = {}
        with jax.enable_x64(True):
            make_room()
            taken = take_sampled([one.samples for one in _filled(every)])
            for number, one in enumerate(taken[: len(every)]):
                if isinstance(one, ValueError):
                    found[number] = one
                else:
                    there[number] = one
                    alike.setdefault(one.padded, []).append(number)
            for numbers in alike.values():
                solved = self._batch([there[i] for i in _filled(numbers)])
                for i, its in zip(numbers, solved[: len(numbers)], strict=True):
                    found[i] = every[i]._estimate(its, there[i])
        return [found[i] for i in range(len(every))]

    def _batch(self, taken: Sequence[TakenOnDevice]) -> list[Solved]:
        rows, layouts = lay_out_alike(taken)
        return solve_batch(rows, layouts, [self.plan] * len(taken))

    def _estimate(self, solved: Solved, taken: TakenOnDevice) -> Estimate | ValueError:
        if solved.unseen:  # a synthetic image whose values rise from voxel to voxel
            solved = solve_taken(taken, self.plan, None, np.inf)
        try:
            result = result_of(solved, taken.n_voxels, self.plan)
        except ValueError as error:
            return error.with_traceback(None)  # which holds the arrays of all images
        # A copy, because the lattice is a part of those of all images.
        lattice = np.array(result.log_field.lattice)
        return self.described(
            result._replace(log_field=result.log_field._replace(lattice=lattice))
        )


def _filled(some: Sequence[T]) -> list[T]:
    """Return as many as a batch has places."""
    return [*some, *[some[0]] * (MOST - len(some))]
