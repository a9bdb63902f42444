"""Water and fat images of a pelvis under a strong field: the zero-shot method and N4.

    python examples/dixon.py [PICTURE.webp]

The surface coil makes one side eight times as bright as the other.
"""

from __future__ import annotations

import sys
import warnings
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from n4ax_bids import N4Options, ZeroShotOptions, n4, zero_shot
from n4ax_bids.core.metrics import coefficient_of_variation, field_error
from n4ax_bids.options.zero_shot import PRESETS

SHAPE = (64, 48, 40)
ZOOMS = (6.0, 6.0, 6.0)
FAT, WATER, BLADDER, BONE = 1, 2, 3, 4
LEVELS = {
    "water": {FAT: 0.08, WATER: 0.6, BLADDER: 1.0, BONE: 0.15},
    "fat": {FAT: 1.0, WATER: 0.1, BLADDER: 0.02, BONE: 0.55},
}
"""intensity of each tissue in either image"""


class Pelvis(NamedTuple):
    """An image and the truth about it."""

    image: np.ndarray
    log_field: np.ndarray
    """mean 0 in the body"""
    labels: np.ndarray
    body: np.ndarray


def pelvis(kind: str = "water", *, ratio: float = 8.0, noise: float = 0.01) -> Pelvis:
    """Make an ellipse with a layer of fat, muscle, a bladder and two bones, under a field.

    Parameters
    ----------
    kind : "water" or "fat", what is bright
    ratio : of the field's largest to its smallest value in the body
    noise : standard deviation in each channel of the Rician noise
    """
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    labels = np.zeros(SHAPE, np.uint8)
    labels[(x / 0.9) ** 2 + (y / 0.85) ** 2 < 1] = FAT
    labels[(x / 0.75) ** 2 + (y / 0.65) ** 2 < 1] = WATER
    for side in (-0.45, 0.45):
        labels[((x - side) / 0.16) ** 2 + ((y + 0.1) / 0.2) ** 2 + (z / 0.8) ** 2 < 1] = BONE
    labels[(x / 0.25) ** 2 + ((y - 0.2) / 0.25) ** 2 + (z / 0.5) ** 2 < 1] = BLADDER
    texture = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal(SHAPE), 2)
    tissue = np.array([0, *LEVELS[kind].values()])[labels] * (1 + 0.3 * texture)
    body = labels > 0
    shape = -np.log((1.6 + y) ** 2 + 0.4 * (x - 0.3) ** 2 + 0.2 * z**2)
    low, high = shape[body].min(), shape[body].max()
    log_field = np.log(ratio) * (shape - low) / (high - low)
    log_field = (log_field - log_field[body].mean()).astype(np.float32)
    rng = np.random.default_rng(0)
    real, imaginary = (noise * rng.standard_normal(SHAPE) for _ in range(2))
    image = np.hypot(tissue * np.exp(log_field) + real, imaginary).astype(np.float32)
    return Pelvis(image, log_field, labels, body)


def methods() -> dict[str, ZeroShotOptions | N4Options]:
    """Return what is compared, by name."""
    return {"N4": N4Options(), "zero-shot, dixon": PRESETS["dixon"]}


def corrected(made: Pelvis, options: ZeroShotOptions | N4Options) -> tuple[np.ndarray, np.ndarray]:
    """Return the corrected image and ln of the field, estimated in the body."""
    call = zero_shot if isinstance(options, ZeroShotOptions) else n4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(made.image, made.body, zooms=ZOOMS, options=options, return_bias=True)


def figures(made: Pelvis, kind: str, image: np.ndarray) -> tuple[float, float]:
    """Return the coefficient of variation of the tissue that is bright, and of the bladder."""
    bright = made.labels == (WATER if kind == "water" else FAT)
    of_bladder = coefficient_of_variation(image, made.labels == BLADDER)
    return coefficient_of_variation(image, bright), of_bladder


def main(picture: str | None = None) -> None:
    """Print the figures of both images, and draw them."""
    rows = []
    for kind in LEVELS:
        made = pelvis(kind)
        shown = [("input", made.image)]
        print(f"{kind:6s} input              CV {figures(made, kind, made.image)[0]:.3f}")
        for name, options in methods().items():
            image, log_bias = corrected(made, options)
            cv, _ = figures(made, kind, image)
            error = field_error(log_bias, made.log_field, made.body)
            print(
                f"{kind:6s} {name:18s} CV {cv:.3f}, field: r {error.correlation:.3f}, "
                f"RMSE {error.rmse:.3f}"
            )
            shown.append((name, image))
        flat = made.image / np.exp(made.log_field)
        print(f"{kind:6s} true field         CV {figures(made, kind, flat)[0]:.3f}")
        rows.append([*shown, ("true field", flat)])
    if picture:
        draw(rows, picture)


def draw(rows: list[list[tuple[str, np.ndarray]]], path: str) -> None:
    """Write the middle sections of all images as one picture."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2.1 * len(rows[0]), 3.6), layout="tight")
    axes = drawn.subplots(len(rows), len(rows[0]))
    for line, images in zip(axes, rows, strict=True):
        for place, (name, image) in zip(line, images, strict=True):
            cut = image[:, :, image.shape[2] // 2]
            place.imshow(cut.T, origin="lower", cmap="gray", vmin=0, vmax=np.percentile(cut, 99))
            place.set_title(name, fontsize=9)
            place.axis("off")
    drawn.savefig(path, dpi=90, pil_kwargs={"quality": 75})


if __name__ == "__main__":
    main(*sys.argv[1:2])
