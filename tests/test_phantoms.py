"""The images with known fields are what they say they are."""

from __future__ import annotations

import importlib.util
import json

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import phantoms
from n4ax_bids.phantoms import (
    GREY,
    TISSUE_LEVELS,
    WHITE,
    images,
    make_log_field,
    mni152,
    phantom,
)
from n4ax_bids.phantoms.__main__ import main

KINDS = ["polynomial", "coils", "dome"]
SHAPES = [(40, 36, 30), (12, 50, 33), (64, 48), (17, 90)]

nilearn = pytest.mark.skipif(
    importlib.util.find_spec("nilearn") is None, reason="nilearn is not installed"
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_field_has_the_asked_strength_and_is_smooth(shape, kind):
    made = phantom(shape, 3, kind, amplitude=0.4, noise=0)
    inside = made.log_field[made.mask]
    assert np.abs(inside).max() == pytest.approx(0.4, rel=1e-5)
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert inside.std() > 0.05
    for axis, n in enumerate(shape):
        steps = np.abs(np.diff(made.log_field, axis=axis))
        both = np.logical_and(*(np.delete(made.mask, i, axis) for i in (0, n - 1)))
        assert (
            steps[both].max() < 0.4 * 12 / n
        )  # a tenth of the object changes it by less than 1.2


@pytest.mark.parametrize("shape", SHAPES)
def test_without_noise_the_image_is_tissue_times_field(shape):
    made = phantom(shape, 1, noise=0)
    tissue = made.image / np.exp(made.log_field)
    for label, level in TISSUE_LEVELS.items():
        assert (made.labels == label).sum() > 10
        np.testing.assert_allclose(tissue[made.labels == label], level, rtol=1e-5)
    assert not made.image[~made.mask].any()
    assert made.image.shape == shape
    kinds = [made.image.dtype, made.log_field.dtype, made.labels.dtype, made.mask.dtype]
    assert kinds == [np.float32, np.float32, np.uint8, bool]


def test_noise_is_rician():
    quiet, noisy = phantom((50, 50, 50), 0, noise=0), phantom((50, 50, 50), 0, noise=0.05)
    background = noisy.image[~noisy.mask]
    assert background.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)
    white = noisy.labels == WHITE
    assert (noisy.image - quiet.image)[white].std() == pytest.approx(0.05, rel=0.05)
    assert noisy.image.min() >= 0


def test_seeds():
    one, again, other = (phantom((24, 24, 24), seed) for seed in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.labels, other.labels)
    assert not np.array_equal(one.log_field, other.log_field)


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="field is 'flat'; expected one of polynomial, coils"):
        make_log_field(np.ones((4, 4), bool), "flat", amplitude=0.4)
    with pytest.raises(ValueError, match="contrast is 'FLAIR'; expected 'T1w' or 'T2w'"):
        mni152("FLAIR")
    with pytest.raises(ValueError, match="shape is "):
        phantom((1, 0))


@nilearn
@pytest.mark.parametrize("contrast", ["T1w", "T2w"])
def test_brain(contrast):
    made = mni152(contrast, 0, "coils", amplitude=0.5, noise=0, step=4)
    tissue = made.image / np.exp(made.log_field)
    white, grey = (tissue[made.labels == label].mean() for label in (WHITE, GREY))
    assert white > 1.2 * grey if contrast == "T1w" else grey > 1.2 * white
    assert 0.15 < made.mask.mean() < 0.3
    assert made.mask[made.labels > 0].all()
    assert phantoms.mni152_affine(4)[:3, :3] == pytest.approx(4 * np.eye(3))


@nilearn
def test_larger_voxels_lie_where_the_small_ones_were():
    fine, coarse = phantoms.mni152_affine(1), phantoms.mni152_affine(3)
    np.testing.assert_allclose(coarse @ [0, 0, 0, 1], fine @ [1, 1, 1, 1])
    np.testing.assert_allclose(coarse @ [5, 5, 5, 1], fine @ [16, 16, 16, 1])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms") / "bids"
    return root, phantoms.make_dataset(root, step=4)


@nilearn
def test_dataset_is_valid_bids(dataset, bids_errors):
    assert bids_errors(dataset[0]) == []


@nilearn
def test_dataset_holds_the_asked_variety(dataset):
    _, items = dataset
    assert [item.image.name.split(".")[0] for item in items] == [
        "sub-01_T1w",
        "sub-01_T2w",
        "sub-02_T1w",
        "sub-02_T2w",
    ]
    images = [nb.load(item.image) for item in items]
    slopes = [image.dataobj.slope for image in images]
    assert slopes[0] == 0.125 and images[0].get_data_dtype() == np.int16
    assert images[2].get_data_dtype() == np.float32
    assert {"".join(item.image.suffixes) for item in items} == {".nii", ".nii.gz"}
    obliquity = [np.degrees(nb.affines.obliquity(image.affine)).max() for image in images]
    assert obliquity[:2] == pytest.approx([0, 0]) and min(obliquity[2:]) > 5
    fields = [np.asarray(nb.load(item.log_field).dataobj) for item in items]
    assert all(not np.allclose(fields[0], field) for field in fields[1:])


@nilearn
def test_truth_explains_the_images(dataset):
    for item in dataset[1]:
        image, log_field, labels, mask = (nb.load(path) for path in item)
        for other in (log_field, labels, mask):
            np.testing.assert_array_equal(other.affine, image.affine)
            assert other.shape == image.shape
        inside = np.asarray(mask.dataobj) > 0
        truth = np.asarray(log_field.dataobj)[inside]
        assert 0.3 <= np.abs(truth).max() <= 0.5001
        tissue = image.get_fdata()[inside] / np.exp(truth)
        white = tissue[np.asarray(labels.dataobj)[inside] == WHITE]
        assert white.std() < 0.1 * white.mean() < 0.1 * np.ptp(tissue)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
        sidecar = json.loads(
            item.image.with_name(item.image.name.split(".")[0] + ".json").read_text()
        )
        assert sidecar["SkullStripped"] is True


@nilearn
def test_command_line(tmp_path, capsys):
    main([str(tmp_path / "bids"), "--step", "8"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(phantoms.RECIPES)
    assert all((tmp_path / line).is_file() for line in shown)


def test_without_nilearn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    images._template.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"install n4ax_bids\[demo\]"):
        mni152(step=2)
