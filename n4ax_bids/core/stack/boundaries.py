"""Where the sections of a stack begin and end. Host arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from n4ax_bids.arguments import shown
from n4ax_bids.options.base import whole, whole_numbers


def section_bounds(
    n_planes: int, sections: int | Sequence[int] | None = None
) -> tuple[tuple[int, int], ...]:
    """Return the first plane of each section and the plane after its last one.

    m sections of n planes: section i holds the planes round(i·n/m) to round((i+1)·n/m), where
    halves are rounded to even. Their sizes differ by one plane at most.

    Parameters
    ----------
    n_planes : int, planes of the stack
    sections : number of sections, or the first plane of each section in ascending order; None if
        every plane is a section

    Returns
    -------
    tuple of (start, stop)

    Raises
    ------
    ValueError
        If there are fewer planes than sections, or the first planes are not ascending from 0.
    """
    n_planes = whole("n_planes", n_planes)
    if n_planes < 1:
        raise ValueError(f"n_planes is {n_planes}; expected at least 1")
    if sections is None:
        sections = n_planes
    if isinstance(sections, Sequence) or getattr(sections, "ndim", 0) > 0:
        starts = whole_numbers("sections", sections)
        ascending = all(a < b for a, b in pairwise(starts))
        if not starts or starts[0] != 0 or not ascending or starts[-1] >= n_planes:
            raise ValueError(
                f"sections is {shown(sections)}; expected first planes in ascending order, "
                f"from 0 to at most {n_planes - 1}"
            )
        return tuple(pairwise((*starts, n_planes)))
    m = whole("sections", sections)
    if not 1 <= m <= n_planes:
        raise ValueError(f"sections is {m}; expected 1 to {n_planes}, the number of planes")
    # Python rounds halves to even. The quotient is exact enough: n is far below 2^53.
    return tuple(pairwise(round(i * n_planes / m) for i in range(m + 1)))
