"""The command n4ax-n4 beside the ANTs program: images, files, threads, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.commands import ants_cli
from n4ax_bids.runtime import device
from tests.commands.ants_words import ants_program, needs_ants, ours

pytestmark = pytest.mark.usefixtures("called_n4ax_n4")

# Words after -i, and before -o; few distinct shapes, as each is compiled.
WORDS = [
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0]",
    "--image-dimensionality 3 --input-image image.nii.gz --shrink-factor 2 --convergence [2x2]",
    "-i image.nii.gz -s 2 -c [ 2x2 , 0.0 ] -v 0 -d 3",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] --mask-image mask.nii.gz -r",
    "-d 3 -i image.nii.gz -r -s 2 -c [2x2,0] -x mask(1).nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz --rescale-intensities 0",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz -r 1",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -w weight.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] --weight-image weight.nii.gz -x mask.nii.gz",
    "-d 3 -i image.nii.gz -s 1 -c [2,0]",
    "-d 3 -i image.nii.gz -s 3 -c [2,0]",
    "-d 3 -i image.nii.gz -c (2)",
    "-d 3 -i image.nii.gz -s -c [2,0] -v 0",  # a bare -s is 1
    "-d 3 -i image.nii.gz -s 0 -c [2,0]",  # as 1
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [2x1x1.9,2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] --bspline-fitting [2x1x1]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [23.7,2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b {23.7}",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [ 23.7 , 3 ] -x mask.nii.gz -w weight.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -t [0.2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -t [.2,.02]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] --histogram-sharpening [ 0.2, .02, 100 ]",
    "-d 3 -i image.nii.gz -s 2 -c [9x9,0.02]",
    "-d 2 -i image2.nii.gz -s 1 -c [2x2,0]",
    "-d 2 -i image2.nii.gz -s 2 -c [2x2,0] -b [1x2] -x mask2.nii.gz -w weight2.nii.gz",
    # What counts where a flag comes twice or has two values, and what has no effect.
    "-d 3 -i image2.nii.gz -s 4 -c [1,0] -i image.nii.gz --shrink-factor 2 -c [2x2,0]",
    "-d 3 -i image.nii.gz -s 4 2 -c [1,0] [2x2,0] -x mask.nii.gz -r 0 1",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz -r -r 0 -b [20] -b 20 -t .2",
    "hello -d 3 -i image.nii.gz -s 2 - -c [2x2x,0,9] -- -h 0 --version 0 --help 0",
    "-d 3 -i image.nii.gz -s 2 -c 9x9",  # 50 iterations at one level, threshold 0.001
]
# After 50 iterations roundings have grown: a voxel at the end of the histogram may have fallen out
# of it (n4-reference §12). The program's default, 4 levels, is further away than this.
LOOSE = {WORDS[-1]: 5e-3}


@pytest.mark.slow
@needs_ants
def test_the_same_words_give_the_same_images(here, capfd):
    """Few iterations: only rounding may differ, everywhere, in the field and after rescaling.

    2e-6 is 17 float32 roundings; a wrong sample phase moves this field by more than 1e-3.
    """
    runs = [
        [*words.split(), "-o", f"[theirs{i}.nii.gz,theirs{i}_bias.nii]"]
        for i, words in enumerate(WORDS)
    ]
    statuses, printed = ants_program(here, *runs)
    assert statuses == [0] * len(WORDS) and printed == ""
    found = {}
    for i, words in enumerate(WORDS):
        output = ["-o", "[", f"ours{i}.nii.gz,", f"ours{i}_bias.nii", "]"]
        assert ours(*words.split(), *output) == 0, words
        images = [
            nb.load(f"{who}{i}{what}")
            for what in (".nii.gz", "_bias.nii")
            for who in ("ours", "theirs")
        ]
        corrected, their_corrected, bias, their_bias = (
            np.asarray(image.dataobj, np.float64) for image in images
        )
        # Rescaling subtracts: it leaves roundings of the largest intensity.
        scale = np.abs(their_corrected).max() if "mask" in words else np.abs(their_corrected)
        difference = max(
            np.abs(bias / their_bias - 1).max(),
            (np.abs(corrected - their_corrected) / scale).max(),
        )
        if difference > LOOSE.get(words, 2e-6):
            found[words] = difference
        for mine, theirs in (images[:2], images[2:]):
            assert mine.get_data_dtype() == theirs.get_data_dtype() == np.float32
            np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-5)
            assert mine.shape == theirs.shape
            assert mine.header.get_zooms() == theirs.header.get_zooms()
    assert found == {}
    assert capfd.readouterr().out == ""


@needs_ants
@pytest.mark.parametrize("shrink", ["2", "4"])
def test_a_slice_in_a_file_of_three_axes(here, shrink):
    """ITK takes no direction from it, which decides which voxels are sampled."""
    words = ["-d", "2", "-i", "slice.nii.gz", "-s", shrink, "-c", "[2,0]"]
    statuses, _ = ants_program(here, [*words, "-o", "[theirs.nii,theirs_bias.nii]"])
    assert statuses == [0]
    assert ours(*words, "-o", "[ours.nii,ours_bias.nii]") == 0
    bias, their_bias = (nb.load(f"{who}_bias.nii").get_fdata() for who in ("ours", "theirs"))
    assert np.abs(bias[..., 0] / their_bias - 1).max() <= 2e-6  # 17 float32 roundings


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ("", []),
        ("-o a.nii", ["a.nii"]),
        ("-o [a.nii]", ["a.nii"]),
        ("-o [a.nii,]", ["a.nii"]),
        ("-o [a.nii,b.nii.gz]", ["a.nii", "b.nii.gz"]),
        ("-o [,b.nii.gz]", ["b.nii.gz"]),
        ("-o [a.nii,b.nii.gz,c.nii]", ["a.nii", "b.nii.gz"]),
    ],
)
def test_what_is_written(folder, tmp_path, monkeypatch, capfd, output, written):
    monkeypatch.chdir(tmp_path)
    image = folder / "image.nii.gz"
    assert ours("-i", image, "-s", 2, "-c", "[2x2,0]", *output.split()) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    source = nb.load(image)
    for path in tmp_path.iterdir():
        made = nb.load(path)
        assert made.get_data_dtype() == np.float32 and made.shape == source.shape
        np.testing.assert_array_equal(made.affine, source.affine)
        for key in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
            np.testing.assert_array_equal(made.header[key], source.header[key])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ("2", 2), ("0", None), ("-1", None), ("many", None)]
)
def test_threads_are_those_asked_of_itk(folder, monkeypatch, value, expected):
    name = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    started = []
    monkeypatch.setattr(device, "start", lambda n=None: started.append(n) or 1)
    assert ants_cli.main(["-i", str(folder / "absent.nii")]) == 1
    assert started[0] == expected


@pytest.mark.parametrize("delay", (0, 0.4))
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_a_signal_leaves_nothing_behind(folder, tmp_path, number, delay):
    """Also one that comes while JAX compiles, in which an exception would be lost."""
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    words = ["-i", folder / "image.nii.gz", "-c", "[20000,0]", "-o", out / "a.nii"]
    process = subprocess.Popen(
        [sys.executable, "-m", "n4ax_bids.commands.ants_cli", *map(str, words)],
        env={**os.environ, "N4AX_CACHE_DIR": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
        # Who starts the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(cache.glob("*/running/*")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, errors
    assert errors == "" and not list(out.iterdir())
    assert not list(cache.glob("*/running/*"))
