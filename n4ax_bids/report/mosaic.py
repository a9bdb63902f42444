"""Cuts through a volume, side by side in one raster image.

A mosaic is planned once and painted several times, so that two images can be overlaid voxel by
voxel. Axes are those of the scanner: right, anterior, superior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

N_CUTS, N_COLUMNS, MOST_CUTS = 5, 8, 20
"""cuts of the view with the widest cuts; largest number of columns; most cuts if only one view is
left"""
WIDTH, TALLEST = 1400, 900
"""pixels: the widest row fills the width, unless all rows together would be taller than the second
number; rows of the largest view are added up to it"""
NARROWEST = 1000
"""pixels: a page enlarges an image of this width by little to fill its column"""
LARGEST_PIXEL = 6.0
"""largest number of pixels per voxel: small images stay small"""
SMALLEST_TILE = 80
"""pixels: a thinner view is left out, because nothing could be recognised in it"""
GAP = 4

Sample = Callable[[tuple[np.ndarray, ...]], np.ndarray]
"""sample((i, j, k)) returns an image's values at the crossings of voxel indices of three axes"""
Paint = Callable[[np.ndarray], np.ndarray]
"""paint(values) returns bytes (..., 3) or (...)"""

SIDES = (("P", "A", "S", "I"), ("L", "R", "S", "I"), ("L", "R", "A", "P"))
"""letters at the left, the right, the top and the bottom of a cut across each axis"""
OUTLINE = (240, 200, 40)
"""colour of a mask's rim, red, green, blue"""


@dataclass(frozen=True)
class View:
    """Cuts across one axis, all of the same size."""

    axis: int
    indices: tuple[np.ndarray, ...]
    """voxels of each axis; those of `axis` are the cuts"""
    tile: tuple[int, int]
    """width and height of one cut, pixels"""
    n_columns: int
    places: tuple[str, ...] = ()
    """positions of the cuts as text; empty for none"""

    @property
    def n_rows(self) -> int:
        """Rows of cuts."""
        return math.ceil(self.indices[self.axis].size / self.n_columns)


def plan(
    mask: np.ndarray, zooms: Sequence[float], mm: Sequence[tuple[float, float]] = ()
) -> tuple[View, ...]:
    """Choose cuts through the region of a mask.

    Parameters
    ----------
    mask : bool array (I, J, K), axes to the right, anterior and superior
    zooms : voxel size of each axis, mm
    mm : position of the first voxel of each axis in the scanner, and its distance from the next
        one, both in mm; empty if the positions are not to be shown
    """
    boxes = [_extent(mask, axis) for axis in range(3)]
    sizes = [(stop - start) * zoom for (start, stop), zoom in zip(boxes, zooms, strict=True)]
    n_slices = [stop - start for start, stop in boxes]
    across = ((1, 2), (0, 2), (0, 1))
    kept = [0, 1, 2]
    while True:
        areas = {axis: (sizes[across[axis][0]], sizes[across[axis][1]]) for axis in kept}
        scale = min(_scale(areas, n_slices), LARGEST_PIXEL / min(zooms))  # pixels per mm
        pixels = [max(1, round(size * scale)) for size in sizes]
        tiles = {axis: (pixels[across[axis][0]], pixels[across[axis][1]]) for axis in kept}
        thick = [axis for axis in kept if min(tiles[axis]) >= SMALLEST_TILE]
        if thick == kept or not thick:
            break
        kept = thick  # the others get more space
    n_rows = dict.fromkeys(kept, 1)
    main = max(kept, key=lambda axis: math.prod(tiles[axis]))
    n_columns = {axis: _columns(tiles[axis][0], n_slices[axis]) for axis in kept}
    total = sum(tile[1] for tile in tiles.values())
    while n_slices[main] > n_rows[main] * n_columns[main] and total + tiles[main][1] <= TALLEST:
        n_rows[main] += 1
        total += tiles[main][1]
    return tuple(
        _view(axis, boxes, tiles[axis], n_rows[axis], n_columns[axis], mm) for axis in kept
    )


def _scale(areas: Mapping[int, tuple[float, float]], n_slices: Sequence[int]) -> float:
    """Return the pixels per mm at which cuts of these widths and heights in mm are largest."""
    if len(areas) > 1:
        wide = (_room(min(N_CUTS, n_slices[axis])) / width for axis, (width, _) in areas.items())
        return min(*wide, TALLEST / sum(height for _, height in areas.values()))
    ((axis, (width, height)),) = areas.items()
    n_cuts = min(n_slices[axis], MOST_CUTS)
    rows = range(1, n_cuts + 1)
    return max(min(_room(math.ceil(n_cuts / n)) / width, TALLEST / (n * height)) for n in rows)


def _room(n_columns: int) -> float:
    """Return how many pixels wide a cut may be."""
    return (WIDTH + GAP) / n_columns - GAP - 1  # sizes are rounded


def _columns(width: int, n_slices: int) -> int:
    """Return how many cuts of a width fit in a row."""
    return max(1, min((WIDTH + GAP) // (width + GAP), N_COLUMNS, n_slices))


def _view(
    axis: int,
    boxes: Sequence[tuple[int, int]],
    tile: tuple[int, int],
    n_rows: int,
    n_columns: int,
    mm: Sequence[tuple[float, float]],
) -> View:
    indices = [np.arange(start, stop) for start, stop in boxes]
    n_slices = indices[axis].size
    n_cuts = min(n_slices, n_rows * n_columns)
    # If slices must be left out, the outermost are among them.
    ends = 0.08 * n_slices if n_slices > 2 * n_cuts else 0
    places = (ends + (np.arange(n_cuts) + 0.5) * (n_slices - 2 * ends) / n_cuts).astype(int)
    indices[axis] = indices[axis][places]
    n_columns = math.ceil(n_cuts / math.ceil(n_cuts / n_columns))
    texts = _positions(axis, indices[axis], *mm[axis]) if mm else ()
    return View(axis, tuple(indices), tile, n_columns, texts)


def _positions(axis: int, cuts: np.ndarray, start: float, step: float) -> tuple[str, ...]:
    """Return the positions of cuts as text such as "x = -32"."""
    digits = max(0, math.ceil(-math.log10(abs(step) or 1.0) - 0.3))
    texts = (f"{start + step * int(cut):.{digits}f}" for cut in cuts)
    return tuple(f"{'xyz'[axis]} = {text}" for text in texts)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return first and last + 1 index that contain all but a few stray voxels, with a margin."""
    counts = np.cumsum(np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)))
    start, stop = np.searchsorted(counts, (0.001 * counts[-1], 0.999 * counts[-1]), side="left")
    margin = round(0.03 * (stop + 1 - start))
    return max(0, int(start) - margin), min(mask.shape[axis], int(stop) + 1 + margin)


def draw(
    views: Sequence[View],
    sample: Sample,
    paint: Paint,
    *,
    text: str,
    ground: str,
    inside: Sample | None = None,
    filled: bool = False,
) -> Image.Image:
    """Paint the cuts of a plan.

    Parameters
    ----------
    views : from `plan`
    sample : returns the image's values at voxel indices
    paint : returns the colours of values
    text : colour of letters and positions
    ground : colour between the cuts, and around letters
    inside : returns whether voxels are inside a mask, whose rim is drawn; None for no rim
    filled : draw only the rim that can be seen from the sides of a cut, not those of holes
    """
    width = max(NARROWEST, *(view.n_columns * (view.tile[0] + GAP) - GAP for view in views))
    height = sum(view.n_rows * (view.tile[1] + GAP) for view in views) - GAP
    mosaic = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(mosaic)
    top = 0
    for view in views:
        (w, h), n_columns = view.tile, view.n_columns
        colours = paint(_planes(view, sample))
        rims = None if inside is None else _planes(view, inside)
        for first in range(0, len(colours), n_columns):
            n_cuts = min(n_columns, len(colours) - first)
            left = (width - n_cuts * (w + GAP) + GAP) // 2
            for column, number in enumerate(range(first, first + n_cuts)):
                cut = Image.fromarray(np.ascontiguousarray(colours[number]))
                cut = cut.resize(view.tile, Image.Resampling.BILINEAR)
                if rims is not None:
                    cut = _with_rim(cut.convert("RGB"), rims[number], filled)
                mosaic.paste(cut, (left + column * (w + GAP), top))
            corners = [(left + column * (w + GAP), top) for column in range(n_cuts)]
            _annotate(pen, view, corners, first, text, ground)
            top += h + GAP
    return mosaic


def _annotate(
    pen: ImageDraw.ImageDraw,
    view: View,
    corners: Sequence[tuple[int, int]],
    first: int,
    text: str,
    ground: str,
) -> None:
    """Write the letters of the sides and the positions on a row of cuts."""
    w, h = view.tile
    look: dict[str, Any] = {"fill": text, "stroke_fill": ground, "stroke_width": 2}
    font, small = ImageFont.load_default(size=16), ImageFont.load_default(size=13)
    (left, top), right = corners[0], corners[-1][0] + w
    before, behind, above, below = SIDES[view.axis]
    pen.text((left + 4, top + h // 2), before, font=font, anchor="lm", **look)
    pen.text((right - 4, top + h // 2), behind, font=font, anchor="rm", **look)
    pen.text((left + w // 2, top + 4), above, font=font, anchor="mt", **look)
    pen.text((left + w // 2, top + h - 4), below, font=font, anchor="mb", **look)
    for (x, y), place in zip(corners, view.places[first:], strict=False):
        short = place if w >= 2 * SMALLEST_TILE else place.partition(" = ")[2]
        pen.text((x + 4, y + h - 4), short, font=small, anchor="lb", **look)


def _with_rim(cut: Image.Image, inside: np.ndarray, filled: bool) -> Image.Image:
    """Draw the rim of a mask on a cut, one pixel wide."""
    whole = Image.fromarray(np.ascontiguousarray(inside > 0).astype(np.uint8) * 255)
    whole = whole.resize(cut.size, Image.Resampling.BILINEAR)
    if filled:
        whole = whole.filter(ImageFilter.BoxBlur(2))
        hull = _seen_from_no_side(np.asarray(whole) >= 128)
        whole = Image.fromarray(hull.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(5))
    fine = np.asarray(whole) >= 128
    around = np.pad(fine, 1, mode="edge")
    core = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    colours = np.array(cut)
    colours[fine & ~core] = OUTLINE
    return Image.fromarray(colours)


def _seen_from_no_side(inside: np.ndarray) -> np.ndarray:
    """Return the pixels that have pixels of a mask, or are one, in all four directions."""
    either = np.logical_or.accumulate
    rows = either(inside, axis=0) & either(inside[::-1], axis=0)[::-1]
    columns = either(inside, axis=1) & either(inside[:, ::-1], axis=1)[:, ::-1]
    found: np.ndarray = rows & columns
    return found


def _planes(view: View, sample: Sample) -> np.ndarray:
    """Return the cuts of a view (cut, row from the top, column)."""
    values = np.moveaxis(sample(view.indices), view.axis, 0)
    return np.swapaxes(values, 1, 2)[:, ::-1]


def grey(window: tuple[float, float]) -> Paint:
    """Return a painter in greys, black at the window's lower end and white at its upper end."""
    low, high = window

    def paint(values: np.ndarray) -> np.ndarray:
        shade = (values.astype(np.float32) - low) * (255 / (high - low))
        return np.nan_to_num(np.clip(shade, 0, 255)).astype(np.uint8)  # NaN is black

    return paint
