"""N4 beside SimpleITK's on real images and a phantom.

Short runs are made here by both. Full runs, which take ITK minutes, are compared with lattices
that `python -m benchmarks.parity` stored (versions inside the file). Bounds: within a short run
no voxel has yet crossed the end of the histogram; over a full run ITK itself differs by as much
with another number of threads (docs/validation/itk-parity.md).
"""

import numpy as np
import pytest

from benchmarks import parity_cases as parity
from benchmarks.peers import itk_n4
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options
from n4ax_bids.phantoms import phantom

EVERY_WAY = ("head T1w, shrink 4", "2D slice T1w")
"""cases that are solved in every way of `parity.PATHS` at several levels; the others at one level,
and at several as a list alone"""


@pytest.fixture(scope="module")
def reference():
    with np.load(parity.REFERENCE) as stored:
        return dict(stored)


@pytest.fixture(params=parity.CASES)
def case(request, test_data):
    test_data(".")
    return request.param, parity.CASES[request.param]()


@pytest.mark.parametrize("n_iterations", parity.SHORT, ids=str)
def test_short_run(case, n_iterations):
    name, (image, mask) = case
    threads = parity.short_threads(case[1])
    as_list_alone = len(n_iterations) > 1 and name not in EVERY_WAY
    theirs = itk_n4(image, mask, n_iterations=n_iterations, threads=threads)
    for path in parity.PATHS[:1] if as_list_alone else parity.PATHS:
        mine = parity.ours(case[1], n_iterations, path=path)
        found = parity.difference(parity.log_bias(mine, case[1]), theirs.log_bias[mask])
        assert found.max <= 2e-6, path


@pytest.mark.parametrize("threshold", (0.0, parity.THRESHOLD))
def test_full_run(case, threshold, reference):
    require_full_run(*case, threshold, "list", reference)


@pytest.mark.parametrize("path", parity.PATHS[1:])
@pytest.mark.parametrize("threshold", (0.0, parity.THRESHOLD))
@pytest.mark.parametrize("name", EVERY_WAY)
def test_full_run_on_other_paths(name, threshold, path, reference, test_data):
    test_data(".")
    require_full_run(name, parity.CASES[name](), threshold, path, reference)


def require_full_run(name, made, threshold, path, reference):
    key = f"{name}/{threshold:g}"
    mine = parity.ours(made, parity.FULL, threshold, path)
    assert mine.n_iterations == tuple(reference[f"{key}/n_iterations"])
    theirs = mine._replace(log_field=mine.log_field._replace(lattice=reference[f"{key}/lattice"]))
    found = parity.difference(parity.log_bias(mine, made), parity.log_bias(theirs, made))
    itself = parity.Difference(*reference[f"{key}/itk_itself"])
    assert parity.within_full_run_bounds(found, itself), (found, itself)


def test_stopping_counts_live(test_data):
    """The observer's counts, from SimpleITK as it is installed here."""
    made = parity.CASES["2D slice T1w"]()
    theirs = itk_n4(made.image, made.mask, n_iterations=parity.FULL, threshold=1e-3)
    assert parity.ours(made, parity.FULL, 1e-3).n_iterations == theirs.n_iterations


@pytest.mark.parametrize(
    "settings, options",
    [
        ({"SplineOrder": 1}, {"bspline_order": 1}),
        ({"SplineOrder": 2}, {"bspline_order": 2}),
        ({"SplineOrder": 4, "NumberOfControlPoints": [5, 5, 5]}, {"bspline_order": 4}),
        ({"SplineOrder": 5, "NumberOfControlPoints": [6, 6, 6]}, {"bspline_order": 5}),
        ({"SplineOrder": 9, "NumberOfControlPoints": [10, 10, 10]}, {"bspline_order": 9}),
        ({"NumberOfControlPoints": [5, 6, 7]}, {"n_control_points": (5, 6, 7)}),
        ({"NumberOfHistogramBins": 150}, {"histogram_sharpening": (0.15, 0.01, 150)}),
        ({"NumberOfHistogramBins": 256}, {"histogram_sharpening": (0.15, 0.01, 256)}),
        (
            {"BiasFieldFullWidthAtHalfMaximum": 0.3, "WienerFilterNoise": 0.1},
            {"histogram_sharpening": (0.3, 0.1, 200)},
        ),
    ],
    ids=str,
)
def test_options_act_as_in_itk(settings, options):
    head = phantom((34, 30, 26), seed=5, field="coils", amplitude=0.3, noise=0.02)
    theirs = itk_n4(head.image, head.mask, n_iterations=(1, 2), **settings)
    solved = plan(N4Options(shrink_factor=1, n_iterations=(1, 2), **options), head.image.shape)
    mine = estimate(head.image, head.mask, plan=solved)
    found = np.asarray(evaluate(mine.log_field, [(0, n) for n in head.image.shape]))
    difference = parity.difference(found[head.mask], theirs.log_bias[head.mask])
    assert difference.max <= 2e-6


@pytest.mark.parametrize("n_bins", (2, 16, 64, 127, 256, 257, 512, 1024))
def test_any_number_of_bins(n_bins):
    """ITK pads the histogram of most powers of two to twice the size that the others get.

    A wide Gaussian reaches around the end of the padded histogram, so its size shows.
    """
    head = phantom((30, 28, 26), seed=5, field="coils", amplitude=0.3, noise=0.02)
    theirs = itk_n4(
        head.image,
        head.mask,
        n_iterations=(1, 2),
        BiasFieldFullWidthAtHalfMaximum=2.0,
        NumberOfHistogramBins=n_bins,
    )
    options = N4Options(
        shrink_factor=1, n_iterations=(1, 2), histogram_sharpening=(2.0, 0.01, n_bins)
    )
    mine = estimate(head.image, head.mask, plan=plan(options, head.image.shape))
    found = np.asarray(evaluate(mine.log_field, [(0, n) for n in head.image.shape]))
    difference = parity.difference(found[head.mask], theirs.log_bias[head.mask])
    assert difference.max <= 2e-6


def test_unmasked_minimum_as_released():
    """ITK 5 misses the minimum if the first voxels rise from it; ITK 6 does not."""
    head = phantom((30, 28, 26), seed=2, field="coils", amplitude=0.4, noise=0.02)
    image = head.image.copy()
    image[:, 0, 0] = np.linspace(1e-4, 0.05, 30)  # the first raster line rises from the minimum
    theirs = itk_n4(image, n_iterations=(3,))
    found = {}
    for itk_version in "56":
        options = N4Options(shrink_factor=1, n_iterations=(3,), itk_version=itk_version)
        mine = estimate(image, plan=plan(options, image.shape))
        values = np.asarray(evaluate(mine.log_field, [(0, n) for n in image.shape]))
        found[itk_version] = parity.difference(values, theirs.log_bias).max
    assert found["5"] <= 2e-6
    assert found["6"] > 1e-3


def test_exact_statistic_is_an_option(test_data):
    made = parity.CASES["head T1w, shrink 4"]()

    def counts(statistic):
        options = N4Options(
            shrink_factor=1, convergence_threshold=1e-3, convergence_statistic=statistic
        )
        return estimate(made.image, made.mask, plan=plan(options, made.image.shape)).n_iterations

    assert counts("exact") != counts("itk")
