"""SimpleITK's names beside SimpleITK: settings, numbers, scripts of others."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import parity_cases as parity
from n4ax_bids import simpleitk as ours
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options
from tests.simpleitk_images import OURS, THEIRS, labelled, moved, volume

ROUNDING = 2e-6
"""17 float32 roundings: the bound of a short run"""

pytestmark = pytest.mark.usefixtures("one_itk_thread")


@pytest.fixture(scope="module")
def image():
    return volume()


@pytest.fixture(scope="module")
def mask(image):
    return labelled(image)


def difference(mine: sitk.Image, theirs: sitk.Image) -> float:
    """Return the largest difference of two images that must lie in the same place."""
    for name in ("Size", "Spacing", "Origin", "Direction", "PixelID", "MetaDataKeys"):
        assert getattr(mine, f"Get{name}")() == getattr(theirs, f"Get{name}")(), name
    one, other = map(sitk.GetArrayFromImage, (mine, theirs))
    return float(np.abs(one.astype(np.float64) / other - 1).max())


def test_every_name_and_default_is_theirs():
    mine, theirs = OURS(), THEIRS()
    public = {name for name in dir(THEIRS) if not name.startswith("_")}
    assert public <= set(dir(OURS)) and isinstance(mine, THEIRS)
    settings = [name[3:] for name in vars(THEIRS) if name.startswith("Set")]
    assert len(settings) == 9
    for name in settings:
        assert getattr(mine, f"Get{name}")() == getattr(theirs, f"Get{name}")()
    mine.SetNumberOfControlPoints(5)
    assert mine.GetNumberOfControlPoints() == (5, 5, 5)
    assert mine.GetName() == theirs.GetName()
    assert ours.Image is sitk.Image and {"ReadImage", "N4BiasFieldCorrection"} <= set(dir(ours))
    with pytest.raises(AttributeError):
        ours.no_such_name  # noqa: B018


SETTINGS = {
    "two levels": {},
    "the mask's label": {"MaskLabel": 2, "ConvergenceThreshold": -1.0},
    "every label": {"UseMaskLabel": False},
    "all others": {
        "SplineOrder": 2,
        "NumberOfControlPoints": (3, 4, 5, 9),
        "BiasFieldFullWidthAtHalfMaximum": 0.2,
        "WienerFilterNoise": 0.02,
        "NumberOfHistogramBins": 100,
    },
}


def fields(filter_class, image, *masks, **settings):
    n4 = filter_class()
    for name, value in {
        "ConvergenceThreshold": 0.0,
        "MaximumNumberOfIterations": (3, 2),
        **settings,
    }.items():
        getattr(n4, f"Set{name}")(value)
    corrected = n4.Execute(image, *masks)
    elsewhere = sitk.Image([9, 31, 14][: image.GetDimension()], sitk.sitkInt16)
    elsewhere.SetSpacing((3.0, 1.0, 2.5)[: image.GetDimension()])
    log_bias = n4.GetLogBiasFieldAsImage(elsewhere)
    return corrected, sitk.Exp(log_bias), (n4.GetCurrentLevel(), n4.GetElapsedIterations())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_short_run_has_their_numbers(image, mask, settings):
    """The corrected image, and the field on another grid, to rounding."""
    mine, theirs = (fields(each, image, mask, **settings) for each in (OURS, THEIRS))
    assert difference(mine[0], theirs[0]) <= ROUNDING
    assert difference(mine[1], theirs[1]) <= ROUNDING
    assert mine[2] == theirs[2]


@pytest.mark.parametrize("kind", ["float64 without a mask", "two axes"])
def test_other_images_have_their_numbers_too(image, mask, kind):
    given = {
        "float64 without a mask": (sitk.Cast(image, sitk.sitkFloat64),),
        "two axes": (image[:, :, 13], mask[:, :, 13]),
    }[kind]
    mine, theirs = (fields(each, *given) for each in (OURS, THEIRS))
    assert difference(mine[0], theirs[0]) <= ROUNDING
    assert difference(mine[1], theirs[1]) <= ROUNDING


@pytest.mark.filterwarnings("ignore:ln of the field goes")  # in the kidneys, as ITK's
@pytest.mark.parametrize(
    ("name", "threshold"), [("kidney GRE, in-plane 2", 0.0), ("spine T2*w, in-plane 4", 1e-3)]
)
def test_a_full_run_on_real_volumes(name, threshold, test_data):
    """Beside the fields of SimpleITK that `python -m benchmarks.parity` has stored."""
    case = parity.CASES[name]()
    n4 = OURS()
    n4.SetConvergenceThreshold(threshold)
    arrays = case.image, case.mask.astype(np.uint8)
    image, mask = (sitk.GetImageFromArray(np.ascontiguousarray(each.T)) for each in arrays)
    n4.Execute(image, mask)
    mine = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    with np.load(parity.REFERENCE) as stored:
        lattice, counts, itself = (
            stored[f"{name}/{threshold:g}/{what}"]
            for what in ("lattice", "n_iterations", "itk_itself")
        )
    axes = plan(N4Options(shrink_factor=1), case.image.shape).axes
    places = zip(*(tuple(8 * v for v in axis.image) for axis in axes), strict=True)
    field = parity.LogField(lattice, 3, *places)
    theirs = np.asarray(evaluate(field, [(0, n) for n in mine.shape]))
    found = parity.difference(mine[case.mask], theirs[case.mask])
    assert parity.within_full_run_bounds(found, parity.Difference(*itself)), found
    assert n4.GetElapsedIterations() == counts[-1] + 1


def test_a_tolerance_that_a_script_sets_holds(image, mask):
    default = sitk.ProcessObject.GetGlobalDefaultCoordinateTolerance()
    ours.ProcessObject.SetGlobalDefaultCoordinateTolerance(1e-2)
    try:
        mine, theirs = (fields(each, image, moved(mask, 0.01))[0] for each in (OURS, THEIRS))
    finally:
        sitk.ProcessObject.SetGlobalDefaultCoordinateTolerance(default)
    assert difference(mine, theirs) <= ROUNDING


def test_the_function_has_their_arguments(image, mask):
    given = (0.0, [3, 2], 0.2, 0.02, 200, [4, 4, 4], 3, True, 2)
    correct, original = ours.N4BiasFieldCorrection, sitk.N4BiasFieldCorrection
    assert difference(correct(image, mask, *given), original(image, mask, *given)) <= ROUNDING
    assert difference(correct(image, *given[:2]), original(image, *given[:2])) <= ROUNDING
    by_name = correct(
        image, maskImage=mask, convergenceThreshold=0.0, maximumNumberOfIterations=[3, 2]
    )
    assert difference(by_name, correct(image, mask, *given[:2])) == 0
    for wrong in (
        lambda: correct(),
        lambda: correct(image, mask, *given, 1),
        lambda: correct(image, mask, 0.0, convergenceThreshold=0.1),
        lambda: correct(image, mask, iterations=3),
        lambda: correct(image, mask, maskImage=mask),
        lambda: correct(image, "mask"),
    ):
        with pytest.raises(TypeError):
            wrong()


def like_fastsurfer(package, image, mask):
    """Return an image corrected at full resolution, with the field of every fourth voxel."""
    mask = mask > 0 if mask else image > 0
    whole = image
    image, mask = (package.Shrink(each, [4] * 3) for each in (image, mask))
    n4 = package.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([4] * 2)
    n4.SetConvergenceThreshold(0.0)
    n4.Execute(image, mask)
    return whole / package.Exp(n4.GetLogBiasFieldAsImage(whole))


def like_brainlesion(package, image, mask):
    """Return an image corrected in Otsu's mask, by the filter with one setting."""
    n4 = package.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([2] * 2)
    return n4.Execute(image, package.OtsuThreshold(image, 0, 1, 200))


def by_the_function(package, image, mask):
    """Return an image corrected by the function, in a mask that a comparison makes."""
    return package.N4BiasFieldCorrection(image, image > 100, 0.001, [2, 2])


@pytest.mark.parametrize(
    ("correct", "masked"),
    [
        (like_fastsurfer, True),
        (like_fastsurfer, False),
        (like_brainlesion, False),
        (by_the_function, False),
    ],
)
def test_scripts_of_others_run_after_one_import(correct, masked):
    image = volume(seed=3)
    mask = sitk.Cast(image > 130, sitk.sitkUInt8) if masked else None
    mine, theirs = (correct(package, image, mask) for package in (ours, sitk))
    assert difference(mine, theirs) <= ROUNDING


def test_the_import_is_as_light_as_theirs():
    code = "import sys, n4ax_bids.simpleitk; print({'jax', 'nipype', 'nibabel'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
