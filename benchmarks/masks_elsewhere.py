"""Masks of images without a brain, of parts of heads, and of weak fields, for benchmarks/masks.py.

`auto` beside `otsu`: errors of the field where it is known, contrast of the tissues where they
are labelled, and everywhere the variation inside both masks and how far the two fields lie apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np

from benchmarks.images import DATA
from benchmarks.machine import figure, head, row
from n4ax_bids import N4Options, auto_mask, n4, otsu_mask
from n4ax_bids.core.metrics import joint_variation

LABELLED = DATA / "labelled"
BODIES = {
    "spine, T2*w": "spine-sct_T2starw",
    "spine, T1w": "bids-small/sub-spine01/anat/sub-spine01_T1w",
    "spine, T2w": "bids-small/sub-spine01/anat/sub-spine01_T2w",
    "kidney": "kidney-ge3t_GRE",
    "mouse brain, in vivo": "labelled/mouse-fvb-invivo-3/image",
    "mouse brain, block face": "labelled/stpt-mouse-100um/image",
    "T2w head, hardly any field": "head-niivue_T2w",
    "FLAIR, brain alone": "brain-niivue_FLAIR",
    "T1w, brain alone": "labelled/n3-test-brain/image",
    "slice of a head, T1w": "slice2d-ixi002/T1w",
    "slice of a head, T2w": "slice2d-ixi002/T2w",
}
SIMULATED = ("sim-t1-rf40A-pn3", "sim-t2-rf60B-pn5", "sim-pd-prisma64ch-pn3")
REAL = ("aomic-piop2-0002", "brainweb-t1-pn3-rf20-head2mm", "fpg-flair-3t")
AXIAL = {"aomic-piop2-0002": 1}
"""axis from feet to head, where it is not the last"""
SLAB = 8
"""slices"""


class Part(NamedTuple):
    """An image and what is known of it."""

    name: str
    image: np.ndarray
    zooms: tuple[float, ...]
    grey: np.ndarray | None = None
    white: np.ndarray | None = None
    truth: np.ndarray | None = None
    """ln b"""


def read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Read the values of an image, and its voxel size in mm."""
    path = next(p for p in (Path(f"{path}.nii.gz"), Path(f"{path}.nii")) if p.exists())
    loaded = nb.load(path)
    values = np.squeeze(np.asarray(loaded.dataobj, np.float32))
    return values, tuple(map(float, loaded.header.get_zooms()[: values.ndim]))


def parts() -> Iterator[Part]:
    """Read the images that are there."""
    for name, file in BODIES.items():
        if any((DATA / f"{file}{ending}").exists() for ending in (".nii.gz", ".nii")):
            yield Part(name, *read(DATA / file))
    if not LABELLED.exists():
        return
    yield Part("xa30, normalised", *read(LABELLED / "xa30-norm-pair" / "image_norm"))
    for name in (*SIMULATED, *REAL):
        whole = labelled(name)
        if name in SIMULATED:
            clean, _ = read(LABELLED / name / "clean")
            none = np.zeros(clean.shape, np.float32)
            yield whole._replace(name=f"{name}, no field", image=clean, truth=none)
        yield corrected(whole)
        yield from cut(whole, AXIAL.get(name, 2))


def labelled(name: str) -> Part:
    """Read a head with labels, and with its field where that is known."""
    folder = LABELLED / name
    image, zooms = read(folder / "image")
    grey, white = (read(folder / f"label-{label}")[0] > 0.5 for label in ("GM", "WM"))
    truth = None
    if (folder / "field_true.nii.gz").exists():
        truth = np.log(np.maximum(read(folder / "field_true")[0], 1e-6))
    return Part(name, image, zooms, grey, white, truth)


def corrected(part: Part) -> Part:
    """Divide a head by the field that N4 finds in its grey and white matter."""
    within = part.grey | part.white
    image = n4(part.image, within, zooms=part.zooms, options=options_for(part.zooms))
    return part._replace(name=f"{part.name}, corrected before", image=image, truth=None)


def cut(part: Part, axis: int) -> Iterator[Part]:
    """Take a few slices from the middle of the brain, and one."""
    inside = np.flatnonzero((part.grey | part.white).any(axis=tuple({0, 1, 2} - {axis})))
    middle = int(np.quantile(inside, 0.65))

    def taken(name: str, take: Callable[[np.ndarray], np.ndarray], zooms) -> Part:
        arrays = (part.image, part.grey, part.white, part.truth)
        image, grey, white, truth = (None if a is None else take(a) for a in arrays)
        return Part(f"{part.name}, {name}", image, zooms, grey, white, truth)

    places = np.arange(middle - SLAB // 2, middle + SLAB // 2)
    yield taken(f"{SLAB} slices", lambda array: np.take(array, places, axis), part.zooms)
    plane = tuple(zoom for d, zoom in enumerate(part.zooms) if d != axis)
    yield taken("one slice", lambda array: np.take(array, middle, axis), plane)


def options_for(zooms) -> N4Options:
    return N4Options(shrink_mm=4 * max(1.0, min(zooms)))


class Figures(NamedTuple):
    """What a mask leads to."""

    bias: np.ndarray
    """ln b"""
    error: float | None
    spread: float | None
    """CJV of the labels"""


def result(part: Part, mask: np.ndarray) -> Figures:
    """Estimate the field in a mask and judge it."""
    image, bias = n4(
        part.image, mask, zooms=part.zooms, options=options_for(part.zooms), return_bias=True
    )
    error = spread = None
    if part.grey is not None:
        spread = joint_variation(image, part.white, part.grey)
        if part.truth is not None:
            error = float((bias - part.truth)[part.grey | part.white].std())
    return Figures(bias, error, spread)


def variation(image: np.ndarray, bias: np.ndarray, mask: np.ndarray) -> float:
    """Coefficient of variation in a mask, after correction."""
    values = image[mask] / np.exp(bias[mask])
    return float(values.std() / abs(values.mean()))


def measured(part: Part) -> str:
    """Return the row of one image; figures of `otsu`, then of `auto`."""
    found, otsu = auto_mask(part.image, part.zooms), otsu_mask(part.image)
    one, other = (result(part, mask) for mask in (otsu, found.mask))
    both = otsu & found.mask
    spreads = [variation(part.image, each.bias, both) for each in (one, other)]
    apart = float((other.bias - one.bias)[both].std())
    pairs = ((one.error, other.error), (one.spread, other.spread), spreads)
    shown = [
        "–" if pair[0] is None else " → ".join(figure(value) for value in pair) for pair in pairs
    ]
    return row(part.name, found.kind, *shown, figure(apart))


def lines(quick: bool) -> Iterator[str]:
    """Yield the section of the page."""
    yield "## Images without a brain, parts of heads, and weak fields"
    yield ""
    yield (
        "Figures are given with Otsu's mask → with `auto`. Taken: the kind of mask that `auto` "
        "chose. RMSE and CJV are as above, with RMSE in GM and WM. CV: coefficient of variation "
        "of the corrected image where both masks overlap. Apart: standard deviation, in the same "
        'place, of the difference between the two ln b. "Corrected before": the image was first '
        "divided by the field that N4 finds in GM and WM; the labels are those of the whole head. "
        "Samples are at least 4 mm apart."
    )
    yield ""
    yield from head("image", "taken", "RMSE", "CJV", "CV", "apart")
    if quick or not DATA.exists():
        return
    for part in parts():
        yield measured(part)
