"""Shrink 4 beside samples 4 mm apart, on voxels of 1, 2 and 4 mm with a known field.

Writes docs/validation/samples.md. Coarser voxels are means of blocks of finer ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import nibabel as nb
import numpy as np

from benchmarks.images import DATA, block_means
from benchmarks.machine import ROOT, arguments, computing_on, figure, head, publish, row
from n4ax_bids import N4Options, auto_mask, n4, otsu_mask
from n4ax_bids.core.metrics import field_error
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.phantoms import mni152, phantom

PAGE = ROOT / "docs" / "validation"
MEASURED = "xa30-norm-pair"
"""a head with a measured receive field, in voxels of 2 mm"""
WAYS = {"shrink 4": N4Options(), "4 mm": N4Options(shrink_mm=4.0)}


class Case(NamedTuple):
    """An image with a known field."""

    name: str
    image: np.ndarray
    mm: float
    truth: np.ndarray
    """ln b"""
    brain: np.ndarray


def cases(quick: bool) -> Iterator[Case]:
    """Make the phantoms, and read the measured head where it is there."""
    if quick:
        made = phantom((40, 36, 32), field="polynomial", amplitude=0.4)
        yield Case("phantom", made.image, 4.0, made.log_field, made.mask)
        return
    for amplitude in (0.5, 1.0):
        for step in (1, 2, 4):
            made = mni152("T1w", field="coils", amplitude=amplitude, step=step)
            name = f"MNI152 phantom, coils, {amplitude:g}"
            yield Case(name, made.image, step, made.log_field, made.mask)
    folder = DATA / "labelled" / MEASURED
    if folder.exists():
        files = ("image", "field_true", "brain_mask_rough")
        read = (nb.load(folder / f"{name}.nii.gz").get_fdata(dtype=np.float32) for name in files)
        image, field, brain = read
        parts = image, np.log(np.maximum(field, 1e-6)), brain
        for block in (1, 2):
            coarse, truth, inside = (block_means(part, (block,) * 3) for part in parts)
            yield Case(MEASURED, coarse, 2.0 * block, truth, inside > 0.5)


def measured(case: Case) -> Iterator[str]:
    """Yield the rows of one image."""
    zooms = (case.mm,) * 3
    masks = {"otsu": otsu_mask(case.image), "auto": auto_mask(case.image, zooms).mask}
    spread = float(case.truth[case.brain].std())
    for name, mask in masks.items():
        cells = []
        for options in WAYS.values():
            bias = n4(case.image, mask, zooms=zooms, options=options, return_bias=True)[1]
            found = plan(options, case.image.shape, zooms)
            samples = np.count_nonzero(found.sample(mask, found.image_start))
            factor = "×".join(map(str, found.shrink_factors))
            error = field_error(bias, case.truth, case.brain).rmse
            cells += [factor, f"{samples:,}", figure(error)]
        yield row(case.name, f"{case.mm:g} mm", name, figure(spread), *cells)


def lines(given: argparse.Namespace) -> Iterator[str]:
    """Yield the page."""
    yield (
        "RMSE: standard deviation of the difference between the estimated and the true ln b in "
        "the brain. Before: standard deviation of the true ln b itself. Samples: voxels of the "
        "shrunk grid that are in the mask. N4 has the options of the preset `ants` (shrink 4) or "
        "of the preset `standard` (4 mm)."
    )
    yield ""
    per_way = ("shrink", "samples", "RMSE")
    columns = [f"{way}: {column}" for way in WAYS for column in per_way]
    yield from head("image", "voxels", "mask", "before", *columns)
    for case in cases(given.quick):
        yield from measured(case)


def main() -> None:
    given = arguments("samples", __doc__)
    given.out = given.out or (None if given.quick else PAGE)
    with computing_on(given.device, quick=given.quick):
        publish(given, "Samples", lines(given))


if __name__ == "__main__":
    main()
