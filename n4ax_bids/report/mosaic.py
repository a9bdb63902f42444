"""Cuts through a volume, side by side in one raster image.

A mosaic is planned once and painted several times, so that two images can be overlaid voxel by
voxel. Axes are those of the scanner: right, anterior, superior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

N_COLUMNS = 7
WIDTH, HEIGHT, TALLEST = 1400, 640, 760
"""pixels: the widest row fills the width, unless all rows together would be taller than the third
number; rows of the largest view are added up to the height"""
NARROWEST = 1000
"""pixels: a page enlarges an image of this width by little to fill its column"""
LARGEST_PIXEL = 4.0
"""largest number of pixels per voxel: small images stay small"""
SMALLEST_TILE = 16
"""pixels: a thinner view is left out, because it shows nothing"""
GAP = 4

Sample = Callable[[tuple[np.ndarray, ...]], np.ndarray]
"""sample((i, j, k)) returns an image's values at the crossings of voxel indices of three axes"""
Paint = Callable[[np.ndarray], np.ndarray]
"""paint(values) returns bytes (..., 3) or (...)"""

SIDES = (("P", "A"), ("L", "R"), ("L", "R"))
"""letters at the left and the right of a cut across each axis"""


@dataclass(frozen=True)
class View:
    """Cuts across one axis, all of the same size."""

    axis: int
    indices: tuple[np.ndarray, ...]
    """voxels of each axis; those of `axis` are the cuts"""
    tile: tuple[int, int]
    """width and height of one cut, pixels"""
    n_rows: int

    @property
    def n_columns(self) -> int:
        """Cuts in a row."""
        return math.ceil(self.indices[self.axis].size / self.n_rows)


def plan(mask: np.ndarray, zooms: Sequence[float]) -> tuple[View, ...]:
    """Choose cuts through the region of a mask.

    Parameters
    ----------
    mask : bool array (I, J, K), axes to the right, anterior and superior
    zooms : voxel size of each axis, mm
    """
    boxes = [_extent(mask, axis) for axis in range(3)]
    sizes = [(stop - start) * zoom for (start, stop), zoom in zip(boxes, zooms, strict=True)]
    across = ((1, 2), (0, 2), (0, 1))
    n_cuts = [min(N_COLUMNS, stop - start) for start, stop in boxes]
    kept = [0, 1, 2]
    while True:
        widest = max(n_cuts[axis] * sizes[across[axis][0]] for axis in kept)
        tall = sum(sizes[across[axis][1]] for axis in kept)
        scale = min(WIDTH / widest, TALLEST / tall, LARGEST_PIXEL / min(zooms))  # pixels per mm
        pixels = [max(1, round(size * scale)) for size in sizes]
        tiles = [(pixels[a], pixels[b]) for a, b in across]
        thick = [axis for axis in kept if min(tiles[axis]) >= SMALLEST_TILE]
        if thick == kept or not thick:
            break
        kept = thick  # the others get more space
    n_rows = dict.fromkeys(kept, 1)
    main = max(kept, key=lambda axis: math.prod(tiles[axis]))
    total = sum(tiles[axis][1] for axis in kept)
    n_slices = boxes[main][1] - boxes[main][0]
    while n_slices > n_rows[main] * N_COLUMNS and total + tiles[main][1] <= HEIGHT:
        n_rows[main] += 1
        total += tiles[main][1]
    return tuple(_view(axis, boxes, tiles[axis], n_rows[axis]) for axis in kept)


def _view(axis: int, boxes: Sequence[tuple[int, int]], tile: tuple[int, int], n_rows: int) -> View:
    indices = [np.arange(start, stop) for start, stop in boxes]
    n_slices = indices[axis].size
    n_cuts = min(n_slices, n_rows * N_COLUMNS)
    # If slices must be left out, the outermost are among them.
    ends = 0.08 * n_slices if n_slices > 2 * n_cuts else 0
    places = (ends + (np.arange(n_cuts) + 0.5) * (n_slices - 2 * ends) / n_cuts).astype(int)
    indices[axis] = indices[axis][places]
    return View(axis, tuple(indices), tile, n_rows)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return first and last + 1 index that contain all but a few stray voxels, with a margin."""
    counts = np.cumsum(np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)))
    start, stop = np.searchsorted(counts, (0.001 * counts[-1], 0.999 * counts[-1]), side="left")
    margin = round(0.03 * (stop + 1 - start))
    return max(0, int(start) - margin), min(mask.shape[axis], int(stop) + 1 + margin)


def draw(
    views: Sequence[View], sample: Sample, paint: Paint, *, text: str, ground: str
) -> Image.Image:
    """Paint the cuts of a plan.

    Parameters
    ----------
    views : from `plan`
    sample : returns the image's values at voxel indices
    paint : returns the colours of values
    text : colour of the letters that mark the sides
    ground : colour between the cuts
    """
    widths = (view.n_columns * (view.tile[0] + GAP) - GAP for view in views)
    width = max(NARROWEST, *widths)
    height = sum(view.n_rows * (view.tile[1] + GAP) for view in views) - GAP
    colours = [paint(_planes(view, sample)) for view in views]
    mode = "RGB" if colours[0].ndim == 4 else "L"
    mosaic = Image.new(mode, (width, height), ground)
    pen, font = ImageDraw.Draw(mosaic), ImageFont.load_default(size=15)
    top = 0
    for view, planes in zip(views, colours, strict=True):
        (w, h), n_columns = view.tile, view.n_columns
        for row in range(view.n_rows):
            line = planes[row * n_columns : (row + 1) * n_columns]
            left = (width - len(line) * (w + GAP) + GAP) // 2
            ends = (left + 3, "la"), (left + len(line) * (w + GAP) - GAP - 3, "ra")
            for plane in line:
                cut = Image.fromarray(np.ascontiguousarray(plane))
                mosaic.paste(cut.resize(view.tile, Image.Resampling.BILINEAR), (left, top))
                left += w + GAP
            for (x, anchor), side in zip(ends, SIDES[view.axis], strict=True):
                pen.text((x, top + 2), side, fill=text, font=font, anchor=anchor)
            top += h + GAP
    return mosaic


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
