"""Cases with known fields: the ICBM 152 template, T1w- and T2w-like, alone and in a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from n4ax_bids import auto_mask
from n4ax_bids.phantoms import Phantom, mni152, phantom

SHAPES = ("polynomial", "coils", "dome")
AMPLITUDES = (0.0, 0.2, 0.5, 1.2)
NOISES = (0.05, 0.0, 0.03, 0.09)
CONTRASTS = ("T1w", "T2w")
NAMED = tuple(
    f"{contrast} {field}, noise {noise}, {where}"
    for contrast, field, noise, where in (
        ("T1w", "polynomial 0", "5%", "brain"),
        ("T2w", "polynomial 0", "5%", "head"),
        ("T1w", "polynomial 0.2", "3%", "head"),
        ("T1w", "coils 0.5", "0%", "brain"),
        ("T1w", "coils 0.5", "5%", "head"),
        ("T1w", "dome 1.2", "5%", "brain"),
        ("T1w", "coils 1.2", "9%", "head"),
        ("T2w", "polynomial 0.5", "3%", "brain"),
        ("T2w", "coils 0.2", "5%", "head"),
        ("T2w", "dome 0.5", "9%", "brain"),
        ("T2w", "coils 1.2", "5%", "brain"),
        ("T2w", "dome 1.2", "3%", "head"),
    )
)
"""cases on which slow methods and peers are run too, before all others"""


class Known(NamedTuple):
    """An image with a known field."""

    name: str
    made: Phantom
    mask: np.ndarray
    """where the field is estimated"""
    mm: float


def in_a_head(made: Phantom, mm: float) -> np.ndarray:
    """Return the image with a dark skull, bright fat and noisy air around the brain."""
    outside = ndimage.distance_transform_edt(~made.mask) * mm
    level = np.zeros(made.image.shape, np.float32)
    level[(outside > 0) & (outside <= 3)] = 0.25
    level[(outside > 3) & (outside <= 8)] = 0.08
    level[(outside > 8) & (outside <= 13)] = 1.3
    level *= np.exp(made.log_field)
    rng = np.random.default_rng(0)
    noise = 0.03 * rng.standard_normal((2, *level.shape)).astype(np.float32)
    around = np.hypot(level + noise[0], noise[1])
    return np.where(made.mask, made.image, around)


def known(quick: bool, first: Sequence[str] = ()) -> Iterator[Known]:
    """Make the suite of known fields: the brain alone, and in a head with the mask found in it.

    Cases with the names in `first` come before the others.
    """
    if quick:
        made = phantom((40, 36, 32), field="coils", amplitude=0.5)
        yield Known("phantom", made, made.mask, 4.0)
        return
    every = {
        f"{contrast} {shape} {amplitude:g}, noise {noise:.0%}, {where}": (
            (contrast, 0, shape, amplitude, noise),
            where == "head",
        )
        for noise, where in product(NOISES, ("brain", "head"))
        for amplitude, shape, contrast in product(AMPLITUDES, SHAPES, CONTRASTS)
        if amplitude > 0 or shape == SHAPES[0]
    }
    for name in sorted(every, key=lambda name: name not in first):
        yield _known_case(name, *every[name])


def _known_case(name: str, wanted: tuple[Any, ...], whole: bool) -> Known:
    """Make one case: the brain alone, or in a head."""
    made = mni152(*wanted)
    if not whole:
        return Known(name, made, made.mask, 1.0)
    made = made._replace(image=in_a_head(made, 1.0))
    mask = auto_mask(made.image, (1.0, 1.0, 1.0)).mask
    return Known(name, made, mask, 1.0)
