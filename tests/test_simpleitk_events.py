"""Events, commands and errors under SimpleITK's names, beside SimpleITK's own."""

from __future__ import annotations

import re
from functools import partial

import pytest
import SimpleITK as sitk

from tests.simpleitk_images import OURS, THEIRS, labelled, moved, volume

pytestmark = pytest.mark.usefixtures("one_itk_thread")


@pytest.fixture(scope="module")
def image():
    return volume()


@pytest.fixture(scope="module")
def mask(image):
    return labelled(image)


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
