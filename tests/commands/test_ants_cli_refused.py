"""Words and files that n4ax-n4 refuses, each in one line."""

from __future__ import annotations

import pytest

from tests.commands.ants_words import ants_program, needs_ants, ours

pytestmark = pytest.mark.usefixtures("called_n4ax_n4")

FAILING = [
    "-q 3",
    "-help",
    "--help -q",
    "-d 3 -i image.nii.gz -s2",
    "-d 3",
    "-d 5 -i image.nii.gz",
    "-d 3 -i image2.nii.gz -s 2 -c [2,0]",
    "-d 3 -i image.nii.gz -s two",
    "-d 3 -i image.nii.gz -s 2.5",
    "-d 3 -i image.nii.gz -v 2",
    "-d 3 -i image.nii.gz -s 2 -c []",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [1x2]",
    "-d 3 -i image.nii.gz -s 2 -b [20 -o [out.nii.gz]",
    "-d 3 -i image.nii.gz -s 2 -b 20]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -o nowhere/out.nii.gz",
]


@needs_ants
def test_what_fails_there_fails_here_in_one_line(here, capfd):
    statuses, _ = ants_program(here, *(words.split() for words in FAILING))
    assert statuses == [1] * len(FAILING)
    before = sorted(here.iterdir())
    for words in FAILING:
        assert ours(*words.split()) == 1, words
        printed = capfd.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1, words
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-i missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i empty.nii.gz", "empty.nii.gz: empty file"),
        ("-i image.nii.gz -x missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i image.nii.gz -w missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i image.nii.gz -x mask2.nii.gz", "mask2.nii.gz: shape"),
        ("-d 2 -i image.nii.gz", "dimension is 2"),
        ("-d 4 -i image.nii.gz", "split the series"),
        ("-i image.nii.gz -o out.mha", "out.mha: cannot be written"),
        ("-i image.nii.gz --device gpu:x", "device is 'gpu:x'"),
        ("-i image.nii.gz -c [50,-1]", "convergence_threshold is -1.0"),
        ("-o out.nii.gz", "no input image; name one with -i"),
        ("-i image.nii.gz \u2013x mask.nii.gz -o out.nii.gz", "EN DASH"),
        ("-i image.nii.gz -o out.nii.gz \u2014mask-image mask.nii.gz", "EM DASH"),
        ("-i image.nii.gz mask.nii.gz -o out.nii.gz", "-i has the values"),
        ("-i image.nii.gz -o out.nii.gz bias.nii.gz", "-o has the values"),
    ],
)
def test_what_ends_the_program_or_passes_unseen_is_one_line_here(here, capsys, words, message):
    """A missing input ends ANTs by a segmentation fault; a missing mask, it goes on without."""
    (here / "empty.nii.gz").touch()
    before = sorted(here.iterdir())
    assert ours(*words.split()) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
    assert printed.err.startswith("n4ax-n4: ")
    assert sorted(here.iterdir()) == before


def test_an_image_in_place_is_refused(folder, tmp_path, capsys):
    """ANTs overwrites it; the raw image would be gone."""
    path = tmp_path / "image.nii.gz"
    path.write_bytes((folder / "image.nii.gz").read_bytes())
    assert ours("-i", path, "-s", 2, "-c", "[2x2,0]", "-o", path) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and f"{path}: is the input image itself" in printed
    assert path.read_bytes() == (folder / "image.nii.gz").read_bytes()
    assert list(tmp_path.iterdir()) == [path]
