"""The names of ANTsPy beside ANTsPy: arguments, numbers, errors, scripts of others."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import parity_cases as parity
from n4ax_bids import antspy as ours
from n4ax_bids.phantoms import phantom

theirs = pytest.importorskip("ants", reason="antspyx is not installed")
PLACE = {
    "spacing": (1.5, 1.7, 2.0),
    "origin": (31.0, -44.0, 12.5),
    "direction": np.array([[0, -1, 0], [0.8, 0, 0.6], [-0.6, 0, 0.8]]),
}
SHORT = {"shrink_factor": 3, "convergence": {"iters": [2, 2], "tol": 0}}
ROUNDING = 2e-6
"""17 float32 roundings; few iterations"""


@pytest.fixture(scope="module")
def images():
    """An image in an oblique place, a mask of labels and fractions, a weight with zeros."""
    rng = np.random.default_rng(3)
    made = phantom((64, 60, 56), seed=0, noise=0.05)
    mask = made.mask.astype(np.float32)
    mask[:24] *= 2
    mask[24:30] *= 0.5
    weight = np.maximum(rng.uniform(-0.2, 1, mask.shape), 0) * made.mask
    arrays = {"image": made.image, "mask": mask, "weight_mask": weight}
    return {
        name: theirs.from_numpy(each.astype(np.float32), **PLACE) for name, each in arrays.items()
    }


def difference(mine, other) -> float:
    """Return the largest difference, as a part of the largest value, in one place."""
    assert isinstance(mine, theirs.core.ants_image.ANTsImage)
    assert mine.pixeltype == other.pixeltype == "float"
    assert (mine.shape, mine.spacing, mine.origin) == (other.shape, other.spacing, other.origin)
    np.testing.assert_array_equal(mine.direction, other.direction)
    return float(np.abs(mine.numpy() - other.numpy()).max() / np.abs(other.numpy()).max())


def test_the_arguments_and_defaults_are_theirs():
    for name in ours.__all__:
        mine, other = (
            {key: part.default for key, part in inspect.signature(each).parameters.items()}
            for each in (getattr(ours, name), getattr(theirs, name))
        )
        assert mine == other and list(mine) == list(other)
    assert ours.image_read is theirs.image_read
    with pytest.raises(AttributeError):
        ours.no_such_name  # noqa: B018


CALLS = {
    "no mask": {},
    "a mask": {"mask": True},
    "a mask, rescaled": {"mask": True, "rescale_intensities": True},
    "no mask, rescaled": {"rescale_intensities": True},
    "a weight, knots in whole mm": {"weight_mask": True, "spline_param": 43.7},
    "both, spans of each axis": {"mask": True, "weight_mask": True, "spline_param": [2, 1, 1]},
    "one number in a tuple": {"mask": True, "spline_param": (40,)},
    "the field": {"mask": True, "return_bias_field": True},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_short_run_has_their_numbers(images, call):
    words = {key: images[key] if key in images else value for key, value in call.items()}
    mine, other = (
        each.n4_bias_field_correction(images["image"], **words, **SHORT) for each in (ours, theirs)
    )
    assert difference(mine, other) <= ROUNDING


def test_two_axes_and_whole_numbers(images):
    plane = theirs.from_numpy(images["image"].numpy()[:, 30].astype("uint8"), spacing=(1.5, 2.0))
    mine, other = (each.n4_bias_field_correction(plane, **SHORT) for each in (ours, theirs))
    assert difference(mine, other) <= ROUNDING


def test_a_mask_of_another_type_counts_with_its_values(images):
    """ANTsPy hands its memory to a program that reads float32: there it is another mask."""
    image, mask = images["image"], images["mask"] > 0
    assert mask.pixeltype != "float"
    mine = ours.n4_bias_field_correction(image, mask, **SHORT)
    other = theirs.n4_bias_field_correction(image, mask.clone("float"), **SHORT)
    assert difference(mine, other) <= ROUNDING


def test_verbose_prints_the_iterations_of_the_program(images, capfd):
    lines = []
    for each in (theirs, ours):
        each.n4_bias_field_correction(images["image"], images["mask"], **SHORT, verbose=True)
        printed = capfd.readouterr().out
        lines.append(re.findall(r"level = \d+$|  Iteration.*value = [\d.]{5}", printed, re.M))
    assert lines[0] == lines[1] and len(lines[0]) == 6


def test_truncated_first(images):
    settings = (0.05, 0.95, 64), images["mask"]
    mine = ours.abp_n4(images["image"], *settings)
    truncated = theirs.iMath(images["image"], "TruncateIntensity", *settings[0])
    again = ours.n4_bias_field_correction(truncated, images["mask"])
    np.testing.assert_array_equal(mine.numpy(), again.numpy())
    with pytest.raises(ValueError, match="list/tuple with 3 values"):
        ours.abp_n4(images["image"], (0.1, 0.9))


REFUSED = {
    "spans of two axes": ({"spline_param": [1, 2]}, ValueError),
    "an array as weight": ({"weight_mask": np.ones((64, 60, 56))}, ValueError),
    "no threshold": ({"convergence": {"iters": [2]}}, KeyError),
    "one number of iterations": ({"convergence": {"iters": 2, "tol": 0}}, TypeError),
    "fractions of iterations": ({"convergence": {"iters": [2.5], "tol": 0}}, RuntimeError),
}


@pytest.mark.parametrize(("words", "error"), REFUSED.values(), ids=REFUSED)
def test_what_they_refuse_is_refused(images, words, error):
    for each in (ours, theirs):
        with pytest.raises(error):
            each.n4_bias_field_correction(images["image"], **words)


def test_images_that_do_not_fit_are_an_error_of_one_line(images):
    image, mask = images["image"], images["mask"]
    moved = theirs.from_numpy(mask.numpy(), spacing=PLACE["spacing"])
    series = theirs.from_numpy(np.ones((4, 4, 4, 2), np.float32))
    for given, message in (
        ((image, moved), "mask has shape"),
        ((series,), "4 axes"),
        ((theirs.merge_channels([image, image]),), "2 components"),
        ((image, mask * 0), "mask or weight is empty"),
    ):
        with pytest.raises(RuntimeError, match=message) as refused:
            ours.n4_bias_field_correction(*given)
        assert "\n" not in str(refused.value)
    for given in ((image.numpy(),), (image, mask.numpy())):
        with pytest.raises(TypeError, match="expected an ANTsImage"):
            ours.n4_bias_field_correction(*given)


def like_antspynet(package, image, mask, return_bias_field):
    """Return an image or field as ANTsPyNet's preprocessing: clipped, then corrected silently."""
    low, high = image.quantile(0.01), image.quantile(0.99)
    clipped = package.image_clone(image)
    clipped[image < low] = low
    clipped[image > high] = high
    given = (clipped,) if mask is None else (clipped, mask)
    return package.n4_bias_field_correction(
        *given, shrink_factor=4, return_bias_field=return_bias_field, verbose=False
    )


def like_clinica(package, image, mask, return_bias_field):
    """Return an image or field as Clinica's linear pipeline: knots in mm and nothing else."""
    return package.n4_bias_field_correction(
        image, spline_param=120, return_bias_field=return_bias_field, verbose=False
    )


@pytest.mark.parametrize(
    ("correct", "masked", "field"),
    [(like_antspynet, True, False), (like_antspynet, False, True), (like_clinica, False, False)],
)
def test_scripts_of_others_run_after_one_import(images, correct, masked, field):
    """Without other words all 200 iterations run; 5e-4 is the bound of a full run."""
    mask = theirs.threshold_image(images["mask"], 0.1, 9) if masked else None
    mine, other = (correct(package, images["image"], mask, field) for package in (ours, theirs))
    assert difference(mine, other) <= parity.BOUNDS.max


def test_neither_jax_nor_antspy_is_imported_by_the_name_alone():
    code = "import sys, n4ax_bids.antspy; print({'jax', 'ants', 'SimpleITK'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_antspy_its_names_are_missing_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(AttributeError, match="pip install antspyx"):
        ours.image_read  # noqa: B018
