"""SimpleITK's names beside SimpleITK: settings, numbers, events, errors, scripts of others."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import parity_cases as parity
from n4ax_bids import simpleitk as ours
from n4ax_bids.core.field import evaluate
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.options import N4Options

THEIRS, OURS = sitk.N4BiasFieldCorrectionImageFilter, ours.N4BiasFieldCorrectionImageFilter
SIZE = (20, 24, 28)
ROUNDING = 2e-6
"""17 float32 roundings: the bound of a short run"""


@pytest.fixture(autouse=True)
def one_thread():
    """ITK's sums depend on its threads, by 2e-3 on an image of 67 voxels with two of them."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def volume(seed: int = 1, pixel: int = sitk.sitkFloat32) -> sitk.Image:
    """Return an ellipsoid of three tissues with a field and noise, in an oblique place."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE[::-1]), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], x.shape), 20.0)
    tissue *= np.exp(0.4 * x - 0.3 * y) * (1 + 0.03 * rng.standard_normal(x.shape))
    return sitk.Cast(placed(tissue), pixel)


def placed(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.7, 2.0)[: image.GetDimension()])
    image.SetOrigin((31.0, -44.0, 12.5)[: image.GetDimension()])
    if image.GetDimension() == 3:
        image.SetDirection((0, -1, 0, 0.8, 0, 0.6, -0.6, 0, 0.8))
    return image


@pytest.fixture(scope="module")
def image():
    return volume()


@pytest.fixture(scope="module")
def mask(image):
    """Labels 1 and 2 inside the ellipsoid."""
    array = (sitk.GetArrayFromImage(image) > 130).astype(np.uint8)
    array[14:] *= 2
    return placed(array)


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


EVENTS = ("Any", "Start", "Iteration", "Progress", "End", "Abort")


def heard(filter_class, image, mask):
    n4, log = filter_class(), []
    n4.SetMaximumNumberOfIterations((3, 2, 0))
    n4.SetConvergenceThreshold(0.0)

    def note(name):
        seen = n4.GetCurrentLevel(), n4.GetElapsedIterations(), n4.GetProgress()
        log.append((name, *seen, n4.GetCurrentConvergenceMeasurement()))

    for name in EVENTS:
        n4.AddCommand(getattr(sitk, f"sitk{name}Event"), partial(note, name))
    n4.Execute(image, mask)
    note("afterwards")
    return log


def test_the_events_are_theirs(image, mask):
    mine, theirs = heard(OURS, image, mask), heard(THEIRS, image, mask)
    assert [each[:-1] for each in mine] == [each[:-1] for each in theirs]
    assert [each[-1] for each in mine] == pytest.approx([each[-1] for each in theirs], rel=1e-4)
    assert len(mine) == 15 and mine[-1][1:3] == (3, 1)


def test_the_measurement_is_theirs_without_a_command_too(image, mask):
    values = []
    for filter_class in (OURS, THEIRS):
        n4 = filter_class()
        n4.SetMaximumNumberOfIterations((3, 2))
        n4.SetConvergenceThreshold(0.0)
        n4.Execute(image * 1, mask)  # the image is gone, and the settings are others, when
        n4.SetMaximumNumberOfIterations((1,))  # the measurement is asked for
        values.append(n4.GetCurrentConvergenceMeasurement())
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("filter_class", [OURS, THEIRS], ids=["ours", "theirs"])
def test_commands_are_objects_or_functions_and_end(filter_class, image, mask):
    class Command(sitk.Command):
        def Execute(self):
            log.append(self.GetName())

    n4, log, command = filter_class(), [], Command()
    n4.SetMaximumNumberOfIterations((1, 1))
    n4.SetConvergenceThreshold(0.0)
    command.SetName("mine")
    assert n4.AddCommand(sitk.sitkIterationEvent, command) == 0
    assert n4.HasCommand(sitk.sitkIterationEvent) and not n4.HasCommand(sitk.sitkEndEvent)
    n4.Execute(image, mask)
    assert log == ["mine", "mine"]
    del command
    n4.AddCommand(sitk.sitkEndEvent, lambda: log.append("end"))
    n4.Execute(image, mask)
    assert log == ["mine", "mine", "end"] and not n4.HasCommand(sitk.sitkIterationEvent)
    n4.RemoveAllCommands()
    assert not n4.HasCommand(sitk.sitkEndEvent)
    n4.Execute(image, mask)
    assert log == ["mine", "mine", "end"]


@pytest.mark.parametrize("filter_class", [OURS, THEIRS], ids=["ours", "theirs"])
def test_an_error_in_a_command_ends_the_execution(filter_class, image, mask):
    n4 = filter_class()
    n4.SetMaximumNumberOfIterations((1, 1))
    n4.AddCommand(sitk.sitkIterationEvent, lambda: 1 / 0)
    with pytest.raises(RuntimeError):
        n4.Execute(image, mask)


def moved(mask, by):
    other = sitk.Image(mask)
    other.SetOrigin(np.add(mask.GetOrigin(), (by, 0, 0)).tolist())
    return other


REFUSED = {
    "no image": lambda n4, image, mask: n4.Execute(),
    "an array": lambda n4, image, mask: n4.Execute(sitk.GetArrayFromImage(image)),
    "three arguments": lambda n4, image, mask: n4.Execute(image, mask, 0.001),
    "whole numbers": lambda n4, image, mask: n4.Execute(sitk.Cast(image, sitk.sitkInt16)),
    "a vector": lambda n4, image, mask: n4.Execute(sitk.Image([8, 8], sitk.sitkVectorFloat32)),
    "a mask of floats": lambda n4, image, mask: n4.Execute(
        image, sitk.Cast(mask, sitk.sitkFloat32)
    ),
    "a smaller mask": lambda n4, image, mask: n4.Execute(image, mask[:, :, 1:]),
    "a slice of a mask": lambda n4, image, mask: n4.Execute(image, mask[:, :, 1]),
    "a moved mask": lambda n4, image, mask: n4.Execute(image, moved(mask, 0.1)),
    "one plane": lambda n4, image, mask: n4.Execute(image[:, :, 3:4]),
    "no level": lambda n4, image, mask: (n4.SetMaximumNumberOfIterations([]), n4.Execute(image)),
    "few control points": lambda n4, image, mask: (
        n4.SetNumberOfControlPoints([4, 4]),
        n4.Execute(image),
    ),
    "a high order": lambda n4, image, mask: (n4.SetSplineOrder(4), n4.Execute(image)),
    "order 0": lambda n4, image, mask: (n4.SetSplineOrder(0), n4.Execute(image)),
    "a word": lambda n4, image, mask: n4.SetConvergenceThreshold("low"),
    "a fraction": lambda n4, image, mask: n4.SetMaximumNumberOfIterations([1.5]),
    "a field too early": lambda n4, image, mask: n4.GetLogBiasFieldAsImage(image),
    "a level too early": lambda n4, image, mask: n4.GetCurrentLevel(),
}


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
def test_what_they_refuse_is_refused_in_their_words(act, image, mask):
    said = []
    for filter_class in (OURS, THEIRS):
        with pytest.raises(Exception) as refused:  # noqa: PT011
            act(filter_class(), image, mask)
        said.append((type(refused.value), re.sub(r"0x[0-9a-f]+", "", str(refused.value))))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda n4, image, mask: n4.Execute(image, mask * 0), "none of 13440 voxels is inside"),
        (lambda n4, image, mask: n4.Execute(image * 0 + 5), "image is constant"),
        (lambda n4, image, mask: n4.Execute(image / (image * 0)), "not finite"),
    ],
)
def test_a_meaningless_result_is_an_error_of_one_line(act, message, image, mask):
    with pytest.raises(RuntimeError, match=message) as refused:
        act(OURS(), image, mask)
    assert "\n" not in str(refused.value)


def test_the_field_needs_a_reference_that_fits(image, mask):
    n4 = OURS()
    n4.SetMaximumNumberOfIterations((1, 1))
    n4.SetConvergenceThreshold(0.0)
    n4.Execute(image, mask)
    with pytest.raises(RuntimeError, match="referenceImage has 2 axes; expected 3"):
        n4.GetLogBiasFieldAsImage(image[:, :, 3])
    with pytest.raises(TypeError, match=r"expected SimpleITK\.Image"):
        n4.GetLogBiasFieldAsImage(sitk.GetArrayFromImage(image))


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
