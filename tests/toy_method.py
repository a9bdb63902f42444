"""A method in one file: ln of the image, fitted by least squares with a quadratic polynomial.

It shows what a method has to be for every door of the package to serve it, and nothing else: no
file of `n4ax_bids` knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from n4ax_bids.core.estimator import Estimate, Given
from n4ax_bids.core.field import LogField
from n4ax_bids.methods import Measure, Method, Output, Query
from n4ax_bids.options.base import option, require


@dataclass(frozen=True)
class ToyOptions:
    """What a person asks of the toy."""

    degree: int = option(2, "highest power of a coordinate, 1 or 2")
    strength: float = option(1.0, "factor on the field that is found")

    def __post_init__(self) -> None:
        require(self.degree in (1, 2), "degree", self.degree, "1 or 2")


@dataclass(frozen=True)
class ToyDetails:
    """What the toy has to say."""

    residual: float
    """standard deviation of ln of the image around the fit"""
    n_voxels: int


def prepare(given: Given, options: ToyOptions):
    """Fit a polynomial; see `n4ax_bids.core.estimator.Estimator`."""
    image = np.asarray(given.image, np.float64)
    inside = image > 0
    if given.mask is not None:
        inside &= np.asarray(given.mask) != 0
    if given.weight is not None:
        inside &= np.asarray(given.weight) > 0
    if not inside.any():
        raise ValueError("no voxel above 0 takes part; expected some")

    def solve(report=None) -> Estimate:
        grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
        powers = [grid**power for grid in grids for power in range(1, options.degree + 1)]
        columns = [np.ones(image.shape), *powers]
        design = np.stack([column[inside] for column in columns], axis=1)
        wanted = np.log(image[inside])
        found, *_ = np.linalg.lstsq(design, wanted, rcond=None)
        residual = wanted - design @ found
        if report is not None:
            report(1, 1, float(residual.std()))
        whole = np.zeros(image.shape, np.float32)
        whole[inside] = residual
        details = ToyDetails(float(residual.std()), int(inside.sum()))
        field = _log_field(found, image.shape, options)
        note = ("the toy is a toy",) if options.strength != 1 else ()
        return Estimate(field, details, note, {"toyresidual": whole})

    return solve


def _log_field(found: np.ndarray, shape: tuple[int, ...], options: ToyOptions) -> LogField:
    """Return a quadratic spline on one span, which is a quadratic polynomial."""
    lattice = np.zeros((3,) * len(shape))
    coefficients = iter(found[1:])
    for axis in range(len(shape)):
        linear = next(coefficients)
        square = next(coefficients) if options.degree == 2 else 0.0
        # x = 2t - 1, so a + b·x + c·x² by the uniform B-splines of order 2 on one span.
        a, b, c = -linear + square, 2 * linear - 4 * square, 4 * square
        points = [a - b / 2, a + b / 2, a + 3 * b / 2 + 2 * c]
        view = [1] * len(shape)
        view[axis] = 3
        lattice = lattice + np.reshape(points, view)
    steps = tuple(1 / (n - 1) if n > 1 else 0.0 for n in shape)
    lattice = (options.strength * lattice).astype(np.float32)
    return LogField(lattice, 2, (0.0,) * len(shape), steps, (1 - 1e-6,) * len(shape))


def memory(options, shape, zooms) -> int:
    """Return the bytes of a solve."""
    return int(np.prod(shape)) * 80


def paragraph(options: ToyOptions, preset: str, changed: bool) -> str:
    """Say every option."""
    return (
        f"The logarithm was fitted [@toy] by a polynomial of degree {options.degree}, times "
        f"{options.strength:g} (preset {preset}{', changed' if changed else ''})."
    )


def draw(axes, options, details) -> None:
    """Draw the residual as a bar."""
    axes.bar([0], [details["residual"]])
    axes.set_title("Residual of the toy")


METHOD = Method(
    name="toy",
    title="a toy",
    options=ToyOptions,
    presets={"plain": ToyOptions(), "straight": ToyOptions(degree=1)},
    preset_help={"plain": "a quadratic", "straight": "a straight line"},
    prepare=f"{__name__}:prepare",
    sloppy=lambda options: replace(options, degree=1),
    memory=f"{__name__}:memory",
    paragraph=f"{__name__}:paragraph",
    citations={
        "toy": {"cite": "Nobody, 2026", "text": "Nobody. A toy. 2026.", "bib": "@misc{toy}"}
    },
    cited="toy",
    panel=f"{__name__}:draw",
    caption="The bar is the residual.",
    shown=(("voxels of the toy", "n_voxels"),),
    measures=(
        Measure("residual", "residual", "of the toy's fit", lambda details: details["residual"]),
    ),
    query=Query(suffixes=("T1w", "T2w"), default=("T1w",)),
    outputs=(Output("toyresidual", "what the toy's polynomial leaves of ln of the image"),),
)
