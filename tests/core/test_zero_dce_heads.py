"""The zero-shot method on whole heads: known fields and labelled images (make test-large)."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, n4, zero_shot
from n4ax_bids.core.metrics import coefficient_of_variation, field_error, joint_variation
from n4ax_bids.phantoms import GREY, WHITE, mni152

pytestmark = pytest.mark.large

T1W = ("aomic-piop2-0001", "aomic-piop2-0002", "brainweb-t1-pn3-rf20-head2mm")
KNOWN = ("sim-t1-rf40A-pn3", "sim-t2-rf60B-pn5", "sim-pd-prisma64ch-pn3")


def variations(image, grey, white) -> np.ndarray:
    of = (coefficient_of_variation(image, tissue) for tissue in (grey, white))
    return np.array([*of, joint_variation(image, white, grey)])


@pytest.mark.parametrize("amplitude", [0.2, 0.5, 1.2])
def test_a_known_field_on_the_mni152_head(amplitude):
    """CV and CJV fall, the contrast stays within 10 % of the truth, and N4 is no better."""
    made = mni152("T1w", 0, "coils", amplitude, step=2)
    grey, white = made.labels == GREY, made.labels == WHITE
    zooms = (2.0,) * 3
    corrected, log_bias = zero_shot(made.image, made.mask, zooms=zooms, return_bias=True)
    assert (variations(corrected, grey, white) < variations(made.image, grey, white)).all()
    true = made.image / np.exp(made.log_field)
    ratio, expected = (each[grey].mean() / each[white].mean() for each in (corrected, true))
    assert abs(ratio / expected - 1) < 0.1
    by_n4, n4_bias = n4(
        made.image, made.mask, zooms=zooms, options=N4Options(shrink_factor=2), return_bias=True
    )
    ours, n4s = (variations(each, grey, white)[2] for each in (corrected, by_n4))
    assert ours <= n4s
    ours, n4s = (field_error(each, made.log_field, made.mask) for each in (log_bias, n4_bias))
    assert ours.rmse < n4s.rmse < 1 and ours.correlation > 0.8


def labelled(test_data, name):
    folder = test_data(f"labelled/{name}")
    read = nb.load(folder / "image.nii.gz")
    parts = {
        label: np.asarray(nb.load(folder / f"{label}.nii.gz").dataobj, np.float32)
        for label in ("image", "label-GM", "label-WM", "brain_mask", "field_true")
        if (folder / f"{label}.nii.gz").exists()
    }
    masks = ("label-GM", "label-WM", "brain_mask")
    brain = np.any([parts[label] > 0.5 for label in masks if label in parts], axis=0)
    return parts, brain, tuple(map(float, read.header.get_zooms()[:3]))


@pytest.mark.parametrize("name", [*T1W, *KNOWN])
def test_tissues_of_a_labelled_head(test_data, name):
    """CV of both tissues and CJV below the input; not so for the FLAIR head, nor with N4."""
    parts, brain, zooms = labelled(test_data, name)
    image, grey, white = parts["image"], parts["label-GM"] > 0.5, parts["label-WM"] > 0.5
    corrected, log_bias = zero_shot(image, brain, zooms=zooms, return_bias=True)
    assert (variations(corrected, grey, white) < variations(image, grey, white)).all()
    if name in KNOWN:
        truth = np.log(np.maximum(parts["field_true"], 1e-6))
        error = field_error(log_bias, truth, brain)
        assert error.correlation >= 0.99 and error.rmse < 0.05
