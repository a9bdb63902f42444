"""ANTs' words."""

from __future__ import annotations

import pytest

from n4ax_bids import ants
from n4ax_bids.options import N4Options


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", {}),
        ("-r 0", {"rescale-intensities": {"rescale_intensities": False}}),
        ("-r 1", {"rescale-intensities": {"rescale_intensities": True}}),
        ("-r", {"rescale-intensities": {"rescale_intensities": True}}),
        ("-v 1", {"verbose": {"verbose": True}}),
        ("-s 2", {"shrink-factor": {"shrink_factor": 2}}),
        (
            "-b [2x3x1]",
            {"bspline-fitting": {"n_control_points": (5, 6, 4), "bspline_order": 3}},
        ),
        (
            "-b [2x3,2]",
            {"bspline-fitting": {"n_control_points": (4, 5), "bspline_order": 2}},
        ),
        (
            "--bspline-fitting [ 200, 4 ]",
            {"bspline-fitting": {"bspline_fitting_distance": 200.0, "bspline_order": 4}},
        ),
        (
            "-c [50x40x30,1e-6]",
            {
                "convergence": {
                    "n_iterations": (50, 40, 30),
                    "convergence_threshold": 1e-6,
                }
            },
        ),
        (
            "-c '[ 20 ]'",
            {"convergence": {"n_iterations": (20,), "convergence_threshold": 0.0}},
        ),
        ("-t (0.2)", {"histogram-sharpening": {"histogram_sharpening": (0.2, 0.01, 200)}}),
        ("-t {0.2,.02,256}", {"histogram-sharpening": {"histogram_sharpening": (0.2, 0.02, 256)}}),
        ("-s 2 --shrink-factor 3", {"shrink-factor": {"shrink_factor": 3}}),
        (
            "-r 0 -b [1x1x2] -s 1",
            {
                "rescale-intensities": {"rescale_intensities": False},
                "bspline-fitting": {"n_control_points": (4, 4, 5), "bspline_order": 3},
                "shrink-factor": {"shrink_factor": 1},
            },
        ),
    ],
)
def test_words_to_settings(words, settings):
    assert ants.parse(words) == settings


def test_a_list_of_words():
    words = ["-b", "[", "200,", "2", "]", "-s", "2"]  # as a shell splits "[ 200, 2 ]"
    assert ants.parse(words) == ants.parse("-b [200,2] -s 2")


def test_what_the_words_say_are_options():
    words = ants.parse("-b [1x1x1,3] -c [50x50x50x50,0.0] -s 4 -t [0.15,0.01,200]")
    settings = {name: value for part in words.values() for name, value in part.items()}
    points = settings.pop("n_control_points")
    assert points == (4, 4, 4) and N4Options(**settings) == N4Options()  # ANTs' defaults, written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-x mask.nii", "'-x' is not an argument known"),
        ("--winsorize 1", "'--winsorize' is not"),
        ("-b[1x1x1]", r"'-b\[1x1x1\]' is not"),
        ("hello -r 0", "'hello' is not"),
        ("-r 2", "-r 2: expected 0 or 1"),
        ("-r 0 1", "-r has the values 0 1; expected one"),
        ("-s two", "-s two: 'two' is not a whole number"),
        ("-s 2.5", "is not a whole number"),
        ("-b 200", r"-b 200: expected brackets"),
        ("-c 50x50", "-c 50x50: expected brackets"),
        ("-b [1x1x1,3,4]", "expected 1 to 2 values"),
        ("-b [1xx1]", "'' is not a number"),
        ("-b []", "expected 1 to 2 values"),
        ("-c [50,0,1]", "expected 1 to 2 values"),
        ("-c [50x5.5]", "'5.5' is not a whole number"),
        ("-t [a]", "'a' is not a number"),
        ("-b [1x1x1", "bracket is not closed"),
        ("-b", "-b 1: expected brackets"),
    ],
)
def test_anything_else_raises_and_is_named(words, message):
    with pytest.raises(ValueError, match=message) as raised:
        ants.parse(words)
    assert "\n" not in str(raised.value)
