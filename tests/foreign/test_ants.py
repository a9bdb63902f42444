"""ANTs' words."""

from __future__ import annotations

import re

import pytest

from n4ax_bids.foreign import ants
from n4ax_bids.options import N4Options

MASKS = {
    "mask-image": {"mask_image": "m.nii"},
    "weight-image": {"weight_image": "my w.nii"},
}
MESH = {"bspline-fitting": {"n_control_points": (4, 5, 4), "bspline_order": 3}}
QUIET = {"verbose": {"verbose": False}}
ITK_DEFAULT = {"convergence": {"n_iterations": (50,), "convergence_threshold": 0.001}}
HELP = {"help": {"help": False}, "h": {"flags": True}}


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
        ("-s 2 --s 3", {"shrink-factor": {"shrink_factor": 3}}),
        ("-s", {"shrink-factor": {"shrink_factor": 1}}),
        ("-s 0", {"shrink-factor": {"shrink_factor": 1}}),
        ("-b [20] -b [1.9x2x1]", MESH),
        ("-c [50x50x]", {"convergence": {"n_iterations": (50, 50), "convergence_threshold": 0}}),
        ("-d 2", {"image-dimensionality": {"dimension": 2}}),
        ("-i a(1).nii", {"input-image": {"input_image": "a(1).nii"}}),
        ("-x m.nii -w 'my w.nii'", MASKS),
        ("-o out.nii", {"output": {"output_image": "out.nii", "bias_image": None}}),
        ("-o [out.nii]", {"output": {"output_image": "out.nii", "bias_image": None}}),
        ("-o [ out.nii , b.nii ]", {"output": {"output_image": "out.nii", "bias_image": "b.nii"}}),
        ("-o [,b.nii]", {"output": {"output_image": None, "bias_image": "b.nii"}}),
        ("-o <out.nii,>", {"output": {"output_image": "out.nii", "bias_image": None}}),
        ("--device gpu:1", {"device": {"device": "gpu:1"}}),
        ("--version --help 0 -h", {"version": {"version": True}, **HELP}),
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
    assert ants.parse(words) == (settings, ())


def test_a_list_of_words():
    words = ["-b", "[", "200,", "2", "]", "-s", "2"]  # as a shell splits "[ 200, 2 ]"
    assert ants.parse(words) == ants.parse("-b [200,2] -s 2")


def test_what_the_words_say_are_options():
    words = ants.parse("-b [1x1x1,3] -c [50x50x50x50,0.0] -s 4 -t [0.15,0.01,200]")
    settings = {name: value for part in words.settings.values() for name, value in part.items()}
    points = settings.pop("n_control_points")
    assert points == (4, 4, 4) and N4Options(**settings) == N4Options()  # ANTs' defaults, written


@pytest.mark.parametrize(
    ("words", "settings", "note"),
    [
        ("-s 2 3", {"shrink-factor": {"shrink_factor": 3}}, "-s has the values 2 3; the last"),
        ("hello -s 2", {"shrink-factor": {"shrink_factor": 2}}, "'hello' belongs to no flag"),
        ("-s 2 -- -v 0", {"shrink-factor": {"shrink_factor": 2}} | QUIET, "'--' belongs to no"),
        ("-b [20] -b 200", {"bspline-fitting": {}}, "-b 200: not read, .* the default counts"),
        ("-b", {"bspline-fitting": {}}, "-b 1: not read, as it has no brackets"),
        ("-t .2", {"histogram-sharpening": {}}, "-t .2: not read"),
        # Then neither the value nor the program's default holds, but the default of ITK's filter.
        ("-c 50x50", ITK_DEFAULT, r"-c 50x50: not read, .* \[50,0.001\] counts"),
    ],
)
def test_what_ants_passes_over_is_noted(words, settings, note):
    found = ants.parse(words)
    assert found.settings == settings
    (said,) = found.notes
    assert re.search(note, said)


def test_more_values_in_brackets_than_there_are_have_no_effect():
    assert ants.parse("-c [2,0,9] -b [20,2,7] -o [a.nii,b.nii,c.nii]") == ants.parse(
        "-c [2,0] -b [20,2] -o [a.nii,b.nii]"
    )


def test_some_flags_only():
    only = ("shrink-factor", "verbose")
    assert ants.parse("-s 2 -v 1", only=only) == ants.parse("-s 2 -v 1")
    with pytest.raises(ValueError, match="'-i' is not an argument .* expected one of -s, -v$"):
        ants.parse("-i x.nii", only=only)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--winsorize 1", "'--winsorize' is not an argument known here; expected one of -d, -i,"),
        ("-help", "'-help' is not"),
        ("-s2", "'-s2' is not"),
        ("-b[1x1x1]", r"'-b\[1x1x1\]' is not"),
        ("-r 2", "-r 2: expected 0 or 1"),
        ("-r true", "-r true: expected 0 or 1"),
        ("-s two", "-s two: 'two' is not a whole number"),
        ("-s 2.5", "is not a whole number"),
        ("-s 1e400", "is not a whole number"),
        ("-b x[20]", r"-b x\[20\]: expected brackets"),
        ("-b [20]x", r"-b \[20\]x: expected brackets"),
        ("-b [1xx1]", "'' is not a number"),
        ("-b [1e400x1]", "'1e400' is not a number"),
        ("-b []", "'' is not a number"),
        ("-b [20,]", "'' is not a whole number"),
        ("-b [20,2.5]", "'2.5' is not a whole number"),
        ("-c []", "'' is not a whole number"),
        ("-c [50x5.5]", "'5.5' is not a whole number"),
        ("-t [a]", "'a' is not a number"),
        ("-b [1x1x1", "bracket is not closed"),
        ("-b [20 -o [a.nii]", "bracket is not closed"),
        ("-b 20] -s 2", "'20]': a bracket is not opened"),
        ("-d 4", "-d 4: expected 2 or 3 .split the series"),
        ("-d 5", "-d 5: expected 2 or 3"),
        ("-d", "-d has no value"),
        ("-i -s 2", "-i has no value"),
        ("-x ''", "-x : expected the name of a file"),
        ("-o", "-o has no value"),
        ("-o []", r"-o \[\]: expected the name of a file"),
        ("--device", "--device has no value"),
    ],
)
def test_anything_else_raises_and_is_named(words, message):
    with pytest.raises(ValueError, match=message) as raised:
        ants.parse(words)
    assert "\n" not in str(raised.value)


DASHES = {
    "\u2013": "EN DASH",
    "\u2014": "EM DASH",
    "\u2212": "MINUS SIGN",
    "\u2011": "NON-BREAKING HYPHEN",
    "\uff0d": "FULLWIDTH HYPHEN-MINUS",
    "\u2010": "HYPHEN",
    "\ufe63": "SMALL HYPHEN-MINUS",
    "\u00a0-": "NO-BREAK SPACE",
    "\u200b-": "ZERO WIDTH SPACE",
    "\ufeff\u2013": "ZERO WIDTH NO-BREAK SPACE",
    "\u2014-": "EM DASH",
}


@pytest.mark.parametrize("dash", DASHES)
@pytest.mark.parametrize("before", [[], ["-i", "a.nii"], ["-s", "2"], ["-r"], ["-o", "[a.nii]"]])
def test_a_dash_that_only_looks_like_a_hyphen_is_an_error(dash, before):
    """Passed on as a value, the mask's name would take the place of the image's."""
    for bare, flag in (("x", "-x"), ("mask-image", "--mask-image")):
        with pytest.raises(ValueError) as raised:
            ants.parse([*before, dash + bare, "mask.nii.gz"])
        message = str(raised.value)
        assert DASHES[dash] in message and f"did you mean {flag}?" in message
        assert "\n" not in message and message.isprintable()


def test_a_file_may_be_named_with_any_dash():
    with pytest.raises(ValueError, match=r"EN DASH .*needs \./ before it"):
        ants.parse(["-i", "\u2013old.nii"])
    assert ants.parse(["-i", "./\u2013old.nii", "-o", "a\u2013b.nii"]).settings == {
        "input-image": {"input_image": "./\u2013old.nii"},
        "output": {"output_image": "a\u2013b.nii", "bias_image": None},
    }


@pytest.mark.parametrize("flag", ["-i", "--input-image", "-x", "-w", "-o"])
def test_no_word_takes_the_place_of_a_file(flag):
    """A blank in a name, or a shell's `*`: the program takes the last word."""
    with pytest.raises(ValueError, match=f"{flag} has the values my image.nii; expected one name"):
        ants.parse([flag, "my", "image.nii"])
    assert ants.parse([flag, "my image.nii", flag, "b.nii"]).notes == ()  # the last flag counts
