"""Fields and corrected images beside those of the ANTs program, which antspyx carries."""

from __future__ import annotations

import importlib.util

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.core.n4.shrinking import padding, predict_shrink_start
from n4ax_bids.io import volume
from n4ax_bids.io.geometry import itk_shrink_start
from n4ax_bids.options import N4Options
from tests.ball import ants, bright_ball, in_unit, run, write


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_masks_weights_padding_and_phase_are_those_of_ants(ball, rng):
    """Few iterations: only rounding may differ, in the field and after rescaling.

    2e-6 is 17 float32 roundings; a wrong sample phase moves this field by more than 1e-3.
    """
    labels, weight = ball / "labels.nii.gz", ball / "weight.nii.gz"
    cases = {
        "labels": {"mask_image": labels},
        "off": {"mask_image": labels, "rescale_intensities": False},
        "both": {"mask_image": ball / "binary.nii.gz", "weight_image": weight},
        "padded": {"weight_image": weight},
        "shrink4": {"options": N4Options(n_iterations=(2, 2))},
    }
    words = {
        "labels": ["-x", labels, "-s", 2],
        "off": ["-x", labels, "-s", 2, "-r", 0],
        "both": ["-x", ball / "binary.nii.gz", "-w", weight, "-s", 2],
        "padded": ["-w", weight, "-s", 2, "-b", "[23,2]"],
        "shrink4": [],
    }
    cases["padded"]["options"] = N4Options(
        n_iterations=(2, 2), shrink_factor=2, bspline_fitting_distance=23, bspline_order=2
    )
    image = ball / "image.nii.gz"
    ants(
        *(
            ["-d", 3, "-i", image, "-c", "[2x2,0]", *more]
            + ["-o", f"[{ball}/ants_{name}.nii,{ball}/ants_{name}_bias.nii]"]
            for name, more in words.items()
        )
    )
    for name, case in cases.items():
        _, corrected, bias = run(ball, **case)
        theirs = volume.load(ball / f"ants_{name}.nii").data
        field = volume.load(ball / f"ants_{name}_bias.nii").data
        assert np.abs(bias / field - 1).max() <= 2e-6, name
        scale = np.abs(theirs).max() if name in ("labels", "both") else np.abs(theirs)
        assert (np.abs(corrected - theirs) / scale).max() <= 2e-6, name


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_units_and_nan_outside_the_mask_are_as_for_ants(holed):
    """Few iterations: only rounding may differ, as above; ANTs is given 0 in the place of NaN."""
    mask = holed / "binary.nii.gz"
    micron = in_unit(holed / "image.nii.gz", "micron.nii.gz", "micron", 1e-3)
    padded = N4Options(n_iterations=(2, 2), shrink_factor=2, bspline_fitting_distance=23)
    cases = {
        "holed": ("filled", {"mask_image": mask}, ["-x", mask]),
        "micron": ("micron", {"options": padded}, ["-b", "[23]"]),
    }
    ants(
        *(
            ["-d", 3, "-i", holed / f"{source}.nii.gz", "-c", "[2x2,0]", "-s", 2, *words]
            + ["-o", f"[{holed}/ants_{name}.nii,{holed}/ants_{name}_bias.nii]"]
            for name, (source, _, words) in cases.items()
        )
    )
    assert micron.exists()
    for name, (_, kwargs, _) in cases.items():
        _, _, bias = run(holed, f"{name}.nii.gz", **kwargs)
        field = volume.load(holed / f"ants_{name}_bias.nii").data
        assert np.abs(bias / field - 1).max() <= 2e-6, name


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_a_mask_by_simpleitk_of_an_image_placed_twice_is_taken_as_by_ants(ball):
    """The image's s-form leads to a template, its q-form to the scanner; ITK reads the q-form."""
    image = nb.load(ball / "image.nii.gz")
    image.set_sform(np.diag([2, 2, 2, 1.0]), 4)
    image.to_filename(ball / "twice.nii.gz")
    like = sitk.ReadImage(str(ball / "twice.nii.gz"))
    inside = sitk.GetImageFromArray((volume.load(ball / "binary.nii.gz").data.T).astype(np.uint8))
    inside.CopyInformation(like)
    sitk.WriteImage(inside, str(ball / "inside.nii.gz"))
    where = ["-x", ball / "inside.nii.gz", "-s", 2, "-c", "[2x2,0]"]
    ants(
        ["-d", 3, "-i", ball / "twice.nii.gz", *where]
        + ["-o", f"[{ball}/ants.nii,{ball}/ants_bias.nii]"]
    )
    record, _, bias = run(ball, "twice.nii.gz", mask_image=ball / "inside.nii.gz")
    assert np.abs(bias / volume.load(ball / "ants_bias.nii").data - 1).max() <= 2e-6  # as above
    (note,) = record.notes
    assert "its s-form differs from the image's by up to" in note and "its q-form" in note


@pytest.mark.skipif(not importlib.util.find_spec("ants"), reason="antspyx is not installed")
def test_the_phase_in_a_padded_image_is_that_of_ants(ball, rng):
    """4 headers whose half-integer phase goes another way than an axis-aligned one's would."""
    data, _ = bright_ball(rng, (25, 24, 22))
    options = N4Options(n_iterations=(2,), bspline_fitting_distance=60)
    names, runs = [f"h{i}" for i in range(4)], []
    for name in names:
        while True:
            rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            zooms, origin = rng.uniform(1, 2, 3), rng.uniform(-99, 99, 3)
            path = write(
                ball / f"{name}.nii", data, nb.affines.from_matvec(rotation * zooms, origin)
            )
            pads = padding(options, data.shape, nb.load(path).header.get_zooms())
            padded = [n + sum(pad) for n, pad in zip(data.shape, pads, strict=True)]
            lower = [pad[0] for pad in pads]
            found = itk_shrink_start(path, padded, (4, 4, 4), lower)
            if found != predict_shrink_start(padded, (1, 1, 1), (4, 4, 4), lower):
                break
        out = f"[{ball}/out_{name}.nii,{ball}/bias_{name}.nii]"
        runs.append(["-d", 3, "-i", path, "-c", "[2,0]", "-b", "[60]", "-o", out])
    ants(*runs)
    for name in names:
        bias = run(ball, f"{name}.nii", options=options)[2]
        difference = bias / volume.load(ball / f"bias_{name}.nii").data - 1
        assert np.abs(difference).max() <= 2e-6, name  # as above
