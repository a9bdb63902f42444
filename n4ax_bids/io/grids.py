"""Bring a mask, a weight or a segmentation onto the grid of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from n4ax_bids.io import placement
from n4ax_bids.io.geometry import itk_takes_as_same, read_geometry
from n4ax_bids.io.volume import Volume

SAME_PLACE = 1e-4
"""mm, largest difference between entries of affines that count as equal, because tools round"""
SAME_SHARE = 1e-3
"""the same as a share of the voxel size, for voxels below 0.1 mm"""

REMEDY = (
    "expected the same voxels, their axes in any order, or a transform between the two images "
    "(fMRIPrep's from-orig_to-T1w_mode-image_xfm.txt)"
)


class OnGrid(NamedTuple):
    """The voxels of a file on the grid of an image."""

    data: np.ndarray
    """of the image's shape"""
    itk_agrees: bool
    """whether ITK accepts the file together with the image; the file's own header then decides
    which voxels are sampled"""
    notes: tuple[str, ...]
    """the comparison of the two headers, if they do not agree"""


def on_grid(other: Volume, image: Volume) -> OnGrid:
    """Reorder a file's voxels to an image's grid, if both grids consist of the same voxels.

    A header can place an image twice, by its q-form and by its s-form. Two grids are the same if
    one form of the file agrees with one form of the image, possibly after flips and a permutation
    of the axes. No voxel is interpolated.

    Raises
    ------
    ValueError
        If the grids differ; one line that names both.
    """
    ours, theirs = placement.forms(image.header), placement.forms(other.header)
    if other.data.shape == image.data.shape:
        if _itk_agrees(other, image):
            return OnGrid(other.data, True, _notes(other, image, theirs, ours, only_if_far=True))
        if any(_same(a, b, image) for _, a, _, b in _pairs(theirs, ours)):
            return OnGrid(other.data, False, _notes(other, image, theirs, ours))
    for _, affine, _, target in _pairs(theirs, ours):
        data = _turned(other, affine, image, target)
        if data is not None:
            return OnGrid(data, False, ())  # exact, so there is nothing to note
    raise ValueError(f"{other.path}: {_difference(other, image)}; {REMEDY}")


def _itk_agrees(other: Volume, image: Volume) -> bool:
    return itk_takes_as_same(
        *(read_geometry(each.path, each.data.ndim) for each in (image, other))
    )


def _pairs(
    theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, str, np.ndarray]]:
    """Yield a form of the file with one of the image; those of the same name first."""
    pairs = [(a, theirs[a], b, ours[b]) for a in theirs for b in ours]
    yield from sorted(pairs, key=lambda pair: pair[0] != pair[2])


def _tolerance(image: Volume) -> float:
    return min(SAME_PLACE, SAME_SHARE * min(image.zooms))


def _same(one: np.ndarray, other: np.ndarray, image: Volume) -> bool:
    """Return whether two affines are equal up to rounding; False if one has NaN."""
    rounding = np.maximum(_tolerance(image), 2 * np.finfo(np.float32).eps * np.abs(other))
    return bool((np.abs(one - other) <= rounding).all())


def _turned(
    other: Volume, affine: np.ndarray, image: Volume, target: np.ndarray
) -> np.ndarray | None:
    """Return the file's voxels on the image's grid, if flips and a permutation suffice."""
    shape = _in_three(image)
    try:
        step = np.linalg.solve(target[:3, :3], affine[:3, :3])
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(step).all():
        return None
    axes = np.abs(step).argmax(axis=1)  # the file's axis along each of the image's
    if sorted(axes) != [0, 1, 2]:
        return None
    flipped = [bool(step[d, axis] < 0) for d, axis in enumerate(axes)]
    if tuple(_in_three(other)[axis] for axis in axes) != shape:
        return None
    to_file = np.zeros((4, 4))  # voxel of the image to voxel of the file
    to_file[3, 3] = 1
    for d, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
        to_file[axis, d] = -1 if flip else 1
        to_file[axis, 3] = shape[d] - 1 if flip else 0
    if not _same(affine @ to_file, target, image):
        return None
    data = other.data.reshape(_in_three(other), order="F").transpose(axes)
    data = data[tuple(slice(None, None, -1 if flip else None) for flip in flipped)]
    return np.asfortranarray(data).reshape(image.data.shape, order="F")


def _in_three(volume: Volume) -> tuple[int, int, int]:
    return (*volume.data.shape, 1)[:3]


def _notes(
    other: Volume,
    image: Volume,
    theirs: Mapping[str, np.ndarray],
    ours: Mapping[str, np.ndarray],
    *,
    only_if_far: bool = False,
) -> tuple[str, ...]:
    """Describe the comparison of each form; with `only_if_far`, only if one of them differs."""
    said, far = [], False
    for name in dict.fromkeys((*ours, *theirs)):
        if name not in theirs or name not in ours:
            has, lacks = ("it", "the image") if name in theirs else ("the image", "it")
            said.append(f"{has} has {_a(name)} and {lacks} has none")
            continue
        difference = float(np.abs(theirs[name] - ours[name]).max())
        same = _same(theirs[name], ours[name], image)
        far |= not same
        if difference == 0:
            said.append(f"its {name} {_verb(name)} the image's")
        else:
            taken = ", taken as equal" if same else ""
            said.append(f"its {name} differs from the image's by up to {difference:.1e} mm{taken}")
    if only_if_far and not far:
        return ()
    if not np.allclose(other.zooms, image.zooms, rtol=1e-5, atol=0):  # beyond float32's rounding
        said.append(f"its voxel sizes are {_numbers(other.zooms)}, not {_numbers(image.zooms)}")
    return (f"{other.path}: {'; '.join(said)}",)


def _a(name: str) -> str:
    return {"s-form": "an s-form", "q-form": "a q-form"}.get(name, name)


def _verb(name: str) -> str:
    return "are" if name.endswith("s") else "is"


def _difference(other: Volume, image: Volume) -> str:
    """Describe how two grids differ."""
    one, two = other.affine, image.affine
    if sorted(_in_three(other)) != sorted(_in_three(image)):
        return (
            f"shape {other.data.shape}; expected {image.data.shape} as in {image.path} "
            f"(affines {_one_line(one)} and {_one_line(two)})"
        )
    return (
        f"lies elsewhere than {image.path}: affines {_one_line(one)} and {_one_line(two)} differ "
        f"by up to {np.abs(one - two).max():.3g}"
    )


def _one_line(affine: np.ndarray) -> str:
    return f"[{'; '.join(_numbers(row) for row in affine[:3])}]"


def _numbers(values: np.ndarray | tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
