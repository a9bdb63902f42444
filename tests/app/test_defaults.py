"""What `n4ax-bids` does without flags for mask and samples, and ANTs' own numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, correct, correct_array
from n4ax_bids.app import cli
from n4ax_bids.core.mask.auto_mask import auto_mask
from n4ax_bids.io import volume

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
QUICK = ("--device", "cpu", "--n-iterations", "2", "2", "--omp-nthreads", "1", "--no-reports")
SHORT = (2, 2)
OLD = ("--preset", "ants", "--mask", "otsu")
"""the defaults of the first versions"""


def run(places, *flags):
    root, out = places
    return cli.main([str(root), str(out), "participant", *QUICK, *flags])


def corrected(out):
    return np.asarray(nb.load(out / NAME.replace("_T1w", "_desc-biascorr_T1w")).dataobj)


def n4_of(out):
    path = out / NAME.replace("_T1w.nii.gz", "_desc-biascorr_T1w.json")
    return json.loads(path.read_text())["BiasCorrection"]


def test_the_brain_and_samples_by_distance(places, capsys):
    """From the command line to the numbers and to every file that records them."""
    root, out = places
    assert run(places, "--dry-run") == 0
    plan = capsys.readouterr().out.splitlines()
    assert "method   n4, preset standard" in plan
    assert {"         shrink_mm = 4.0", "         mask: auto, weight: none"} <= set(plan)
    assert run(places) == 0
    told = n4_of(out)
    assert (told["Mask"], told["MaskFound"]["Kind"]) == ("auto", "brain")
    assert told["Options"]["shrink_mm"] == 4.0
    assert told["Details"]["shrink_factors"] == [1, 1, 1]  # 4 mm in voxels of 3 mm
    read = volume.load(root / NAME)
    options = N4Options(n_iterations=SHORT, shrink_mm=4.0)
    mask = auto_mask(read.data, read.zooms).mask
    settings = {"zooms": read.zooms, "options": options}
    expected = correct_array(read.data, mask, **settings, field_scale="mean")
    np.testing.assert_array_equal(corrected(out), expected)
    warned = capsys.readouterr().err
    assert "WARNING" in warned and "% of the brain mask" in warned
    (snapshot,) = (out / "logs").glob("*/options.toml")
    kept = tomllib.loads(snapshot.read_text())
    assert (kept["mask"], kept["preset"], kept["shrink-mm"]) == ("auto", "standard", 4.0)
    text = " ".join((out / "logs/CITATION.md").read_text().split())
    assert "those of the preset standard, some of them changed." in text  # --n-iterations
    assert "estimated from voxels about 4 mm apart" in text
    assert "the brain where one was found with confidence" in text


@pytest.mark.parametrize("mask", ("otsu", "none"))
def test_ants_own_numbers_are_those_of_the_verb(places, tmp_path, mask):
    root, out = places
    assert run(places, "--preset", "ants", "--mask", mask, "--field-scale", "as-is") == 0
    word = None if mask == "none" else mask
    correct(
        root / NAME,
        tmp_path / "expected.nii.gz",
        auto_mask=word,
        options=N4Options(n_iterations=SHORT),
        device="cpu",
    )
    expected = np.asarray(nb.load(tmp_path / "expected.nii.gz").dataobj)
    np.testing.assert_array_equal(corrected(out), expected)
    told = n4_of(out)
    assert (told["Mask"], told["Details"]["shrink_factors"]) == (mask, [4, 4, 4])
    assert "MaskFound" not in told


def test_outputs_of_the_old_defaults_are_done_again_and_it_is_told(places, capsys):
    _, out = places
    assert run(places, *OLD) == 0
    (snapshot,) = (out / "logs").glob("*/options.toml")
    before = corrected(out)
    capsys.readouterr()
    assert run(places, "--config-file", str(snapshot)) == 0
    assert "1 of 1 images are finished already" in capsys.readouterr().err
    assert run(places) == 0
    said = capsys.readouterr().err
    reason = "made with other options: mask was otsu, is auto"
    assert f"INFO 1 image will be done again: {reason}" in said
    assert "1 of 1 images corrected, 0 failed" in said
    assert not np.array_equal(corrected(out), before)
    assert n4_of(out)["Mask"] == "auto"
    assert run(places, "--config-file", str(snapshot)) == 0
    assert "mask was auto, is otsu" in capsys.readouterr().err
    np.testing.assert_array_equal(corrected(out), before)


def test_every_option_that_has_changed_is_named(places, capsys):
    assert run(places, "--mask", "otsu", "--preset", "ants") == 0
    capsys.readouterr()
    assert run(places, "--mask", "none", "--shrink-factor", "2", "--dry-run") == 0
    said = capsys.readouterr().err
    for change in ("mask was otsu, is none", "shrink_factor was 4, is 2"):
        assert change in said


def test_reports_alone_do_not_say_that_images_will_be_done_again(places, capsys):
    assert run(places, "--mask", "otsu") == 0
    capsys.readouterr()
    flags = ("--device", "cpu", "--mask", "none", "--reports-only")
    assert cli.main([*map(str, places), "participant", *flags]) == 0
    assert "done again" not in capsys.readouterr().err


def test_the_methods_text_alone_says_where_it_is(places, capsys):
    assert run(places, "--boilerplate-only") == 0
    path = places[1] / "logs" / "CITATION.md"
    assert path.is_file() and f"the methods text is in {path}" in capsys.readouterr().err


def test_whoever_reads_a_dry_run_may_stop(places):
    root, out = places
    code = "import sys; from n4ax_bids.app.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [str(root), str(out), "participant", "--dry-run", "--skip-bids-validation"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr


def test_samples_of_an_earlier_default_count_as_another_option(places, capsys):
    assert run(places, "--mask", "otsu", "--preset", "ants") == 0
    capsys.readouterr()
    assert run(places, "--mask", "otsu") == 0
    assert "shrink_mm was None, is 4.0" in capsys.readouterr().err


def test_a_head_without_field_has_no_warning_of_the_mask(
    make_dataset, write_head, tmp_path, capsys
):
    root = make_dataset()
    write_head(root / NAME, field=0.0)
    assert run((root, tmp_path / "out")) == 0
    assert "Otsu's threshold alone" not in capsys.readouterr().err


@pytest.mark.parametrize("shape", ((40, 44, 1), (30, 34, 5)))
def test_what_holds_no_brain_is_corrected_all_the_same(make_dataset, write_image, tmp_path, shape):
    """A slice, a slab: the fallback is recorded."""
    root = make_dataset()
    write_image(root / NAME, shape=shape)
    assert run((root, tmp_path / "out")) == 0
    told = n4_of(tmp_path / "out")
    assert told["MaskFound"]["Kind"] in ("head", "otsu")
    assert any("brain" in note for note in told["Notes"])
