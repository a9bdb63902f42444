"""Whether the same head gives the same field when its file is written in another way.

    python -m benchmarks.invariance

Each real head is corrected as it is, again, with its intensities multiplied, with each axis
flipped, with its axes in another order, and averaged to voxels of twice the size. The difference
is that of the two fields in Otsu's mask of the head as it is, after their median ratio is taken
out: |ratio - 1|, mean over the mask. No answer is known here: a method that never sees the image
would be perfect, so these figures belong beside those of known fields.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.machine import ROOT, arguments, computing_on, head, publish, row
from benchmarks.presets import heads
from n4ax_bids import N4Options, n4, otsu_mask, preset, tissue

PAGE = ROOT / "docs" / "validation"
Zooms = tuple[float, ...]
Method = Callable[[np.ndarray, np.ndarray, Zooms], np.ndarray]
"""image, mask and mm to ln b"""
BLOCK = 2
"""voxels averaged along each axis"""


class Change(NamedTuple):
    """Another way to write an image, and how its field is brought back to the image's voxels."""

    there: Callable[[np.ndarray], np.ndarray]
    zooms: Callable[[Zooms], Zooms]
    back: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    """field and shape of the image as it is"""


def same(zooms: Zooms) -> Zooms:
    return zooms


CHANGES = {
    "once more": Change(np.array, same, lambda field, shape: field),
    "intensities × 1000": Change(
        lambda image: image * np.float32(1000), same, lambda field, shape: field
    ),
    "intensities × 0.37": Change(
        lambda image: image * np.float32(0.37), same, lambda field, shape: field
    ),
    **{
        f"axis {axis} flipped": Change(
            lambda image, axis=axis: np.flip(image, axis),
            same,
            lambda field, shape, axis=axis: np.flip(field, axis),
        )
        for axis in range(3)
    },
    "axes in the order 2, 0, 1": Change(
        lambda image: image.transpose(2, 0, 1),
        lambda zooms: (zooms[2], zooms[0], zooms[1]),
        lambda field, shape: field.transpose(1, 2, 0),
    ),
    "voxels of twice the size": Change(
        lambda image: averaged(image),
        lambda zooms: tuple(BLOCK * mm for mm in zooms),
        lambda field, shape: repeated(field, shape),
    ),
}


def averaged(image: np.ndarray) -> np.ndarray:
    """Return means of blocks of voxels; what is left over at the end of an axis is dropped."""
    for axis in range(image.ndim):
        n = image.shape[axis] // BLOCK
        image = image.take(range(n * BLOCK), axis)
        image = image.reshape(*image.shape[:axis], n, BLOCK, *image.shape[axis + 1 :])
        image = image.mean(axis + 1, dtype=np.float32)
    return image


def repeated(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return each value for its block of voxels, and the last ones for what was dropped."""
    for axis, n in enumerate(shape):
        field = field.repeat(BLOCK, axis)
        field = field.take(np.minimum(np.arange(n), field.shape[axis] - 1), axis)
    return field


def by_n4(options: N4Options) -> Method:
    return lambda image, mask, zooms: np.asarray(
        n4(image, mask, zooms=zooms, options=options, return_bias=True)[1]
    )


def methods(quick: bool) -> dict[str, Method]:
    """Return what is tried: presets of N4, and the tissue method."""
    named = {name: preset(name) for name in ("ants", "robust", "adaptive")}
    if quick:
        return {"n4 ants": by_n4(N4Options(n_iterations=(2,)))}
    return {
        **{f"n4 {name}": by_n4(options) for name, options in named.items()},
        "tissue": lambda image, mask, zooms: np.asarray(
            tissue(image, mask, zooms=zooms, return_bias=True)[1]
        ),
    }


def difference(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean of |ratio - 1| of two fields in the mask, their median ratio taken out."""
    log_ratio = (other - one)[mask]
    return float(np.abs(np.expm1(log_ratio - np.median(log_ratio))).mean())


def of_head(image: np.ndarray, zooms: Zooms, method: Method) -> dict[str, float]:
    """Return the difference that each change makes to the field of one head."""

    def field(values: np.ndarray, mm: Zooms) -> np.ndarray:
        values = np.ascontiguousarray(values)
        return method(values, np.asarray(otsu_mask(values)) != 0, mm)

    mask = np.asarray(otsu_mask(image)) != 0
    as_it_is = field(image, zooms)
    return {
        name: difference(
            as_it_is,
            change.back(field(change.there(image), change.zooms(zooms)), image.shape),
            mask,
        )
        for name, change in CHANGES.items()
    }


def lines(quick: bool) -> Iterator[str]:
    """Write the page."""
    tried = methods(quick)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in tried}
    names = []
    for name, image, zooms in heads(quick):
        names.append(name)
        for method, estimate in tried.items():
            found[method].append(of_head(image, zooms, estimate))
            print(name, method, found[method][-1], file=sys.stderr, flush=True)
    yield (
        f"{len(names)} heads ({', '.join(names)}), each with its own Otsu's mask of each version. "
        "Mean of the heads / the worst head."
    )
    yield ""
    yield from head("change", *tried)
    for change in CHANGES:
        values = {method: [each[change] for each in of] for method, of in found.items()}
        yield row(change, *(f"{np.mean(v):.2%} / {max(v):.2%}" for v in values.values()))
    yield ""
    yield (
        "A shrink factor takes every fourth voxel, of a flipped image other ones, and of voxels "
        "of twice the size an eighth as many. `n4 ants` is ITK's and ANTs' own "
        "arithmetic, so these differences are theirs as well. `n4 robust` takes every voxel, but "
        "ITK's statistic, which ends its levels, depends on the order of the voxels. `n4 "
        "adaptive` places samples and knots in mm."
    )


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("invariance", __doc__, argv)
    given.out = given.out or (None if given.quick else PAGE)
    with computing_on(given.device, quick=given.quick):
        publish(given, "The same head, written in another way", lines(given.quick))


if __name__ == "__main__":
    main()
