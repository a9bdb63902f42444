"""Automatic masks on files: what is recorded, told and refused."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, correct
from n4ax_bids.core.mask import auto_mask as auto_masks
from n4ax_bids.core.mask.auto_mask import auto_mask
from n4ax_bids.core.mask.brain_mask import brain_mask
from n4ax_bids.core.mask.head_mask import head_mask
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.io import volume
from n4ax_bids.masks import region

SHAPE, ZOOMS = (68, 72, 66), (3.0, 3.0, 3.0)
SHORT = N4Options(n_iterations=(2,), shrink_factor=4)
FACTS = {"kind", "share", "rounds", "confidence", "otsu_covers"}


def distance(radius):
    """Distance from the middle of the image in units of the radius, mm."""
    axes = np.ix_(*(3.0 * (np.arange(n) - n / 2) / radius for n in SHAPE))
    return np.sqrt(sum(axis**2 for axis in axes))


@pytest.fixture
def head(tmp_path):
    """Return what writes a head: scalp, skull, grey and white matter under a field."""

    def write(name="head.nii.gz", field=0.0, lowest=0.0, brain=True):
        image = np.zeros(SHAPE)
        image[distance(92) < 1] = 120
        if brain:
            image[distance(84) < 1] = 8
            image[distance(74) < 1] = 75
            image[distance(58) < 1] = 100
        image *= np.exp(field * (distance(92) ** 2 - 0.5))
        image = np.abs(image + np.random.default_rng(0).normal(0, 2, SHAPE)) + lowest
        affine = nb.affines.from_matvec(np.diag(ZOOMS), [-100, -100, -90])
        path = tmp_path / name
        nb.Nifti1Image(image.astype(np.float32), affine).to_filename(path)
        return path

    return write


def run(path, **given):
    return correct(path, path.with_name("out.nii.gz"), options=SHORT, device="cpu", **given)


def test_the_mask_is_that_of_the_arrays_and_is_recorded(head):
    path = head(field=1.0)
    image = volume.load(path).data
    expected = auto_mask(image, ZOOMS)
    done = run(path, auto_mask="auto")
    assert (done.mask, done.mask_found["kind"]) == ("auto", "brain")
    assert done.n_voxels_mask == expected.mask.sum()
    assert set(done.mask_found) == FACTS
    for name in FACTS:
        assert done.mask_found[name] == getattr(expected, name), name
    for word, mask in (("head", head_mask(image, ZOOMS)), ("brain", brain_mask(image, ZOOMS))):
        done = run(path, auto_mask=word)
        assert (done.mask, done.mask_found["kind"]) == (word, word)
        assert done.n_voxels_mask == mask.sum()
        assert (done.mask_found["confidence"] is None) == (word == "head")


def test_other_masks_have_no_such_record(head):
    path = head()
    assert run(path, auto_mask="otsu").mask_found == {} == run(path).mask_found
    assert run(path, auto_mask="otsu").n_voxels_mask == otsu_mask(volume.load(path).data).sum()


def test_voxel_sizes_decide(head):
    """The same voxels at 1 mm are no human brain."""
    path = head()
    image = nb.load(path)
    image.set_sform(np.diag([1, 1, 1, 1.0]), 1)
    image.set_qform(np.diag([1, 1, 1, 1.0]), 1)
    image.to_filename(path.with_name("small.nii.gz"))
    big, small = (run(p, auto_mask="auto") for p in (path, path.with_name("small.nii.gz")))
    assert big.mask_found != small.mask_found


def test_a_mask_that_differs_from_otsu_s_is_told(head):
    (note,) = run(head(field=2.5), auto_mask="auto").notes
    assert note.startswith("Otsu's threshold alone finds ") and "of the brain mask" in note
    assert run(head(), auto_mask="auto").notes == ()


def test_a_fallback_is_told_and_a_brain_that_is_asked_for_is_refused(head):
    path = head(brain=False)
    done = run(path, auto_mask="auto")
    assert done.mask_found["kind"] in ("head", "otsu") and done.notes
    with pytest.raises(ValueError, match=r"head\.nii\.gz: no plausible brain was found"):
        run(path, auto_mask="brain", bias_image=path.with_name("bias.nii.gz"))
    assert not path.with_name("bias.nii.gz").exists()


def test_the_check_holds_for_every_automatic_mask(head, monkeypatch):
    """A mask of a few voxels is refused whichever word has asked for it."""
    path = head()
    few = np.zeros(SHAPE, bool)
    few[32:36, 32:36, 32:36] = True
    made = auto_mask(volume.load(path).data, ZOOMS)._replace(mask=few)
    monkeypatch.setattr(auto_masks, "named_mask", lambda *_: made)
    monkeypatch.setattr(region, "_kept", type(region._kept)())
    for word, name in (("auto", "the automatic"), ("head", "the head"), ("brain", "the brain")):
        with pytest.raises(ValueError, match=f"{name} mask holds"):
            run(path, auto_mask=word)


def test_a_mask_is_found_once_for_one_file_and_again_for_other_values(head, monkeypatch):
    calls = []
    named = auto_masks.named_mask

    def counting(word, *given):
        calls.append(word)
        return named(word, *given)

    monkeypatch.setattr(auto_masks, "named_mask", counting)
    monkeypatch.setattr(region, "_kept", type(region._kept)())
    path = head(field=1.0)
    image = volume.load(path)
    first, second = (region.automatic(image, "auto") for _ in range(2))
    assert calls == ["auto"]
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (first.facts, first.notes) == (second.facts, second.notes)
    region.automatic(image, "head")
    head(field=1.5)  # another file in the same place
    region.automatic(volume.load(path), "auto")
    assert calls == ["auto", "head", "auto"]
    for number in range(20):
        region._kept[number] = region._kept[next(iter(region._kept))]
    region.automatic(volume.load(head("third.nii.gz", field=0.5)), "auto")
    assert len(region._kept) == region._MOST_KEPT


def test_unknown_words_and_values_that_are_no_numbers(head):
    path = head()
    with pytest.raises(ValueError, match="auto_mask is 'bet'; expected one of otsu, auto, head"):
        run(path, auto_mask="bet")
    image = nb.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[0, 0, 0] = np.nan
    nb.Nifti1Image(data, image.affine).to_filename(path)
    for word in ("otsu", "auto", "head", "brain"):
        with pytest.raises(ValueError, match="head.nii.gz: .*give a mask file"):
            run(path, auto_mask=word)


def test_the_mask_is_saved_on_request(head):
    path = head(field=1.0)
    image, saved = volume.load(path), path.with_name("mask.nii.gz")
    for word in ("otsu", "auto"):
        done = run(path, auto_mask=word, found_mask_image=saved)
        assert done.found_mask_image == saved
        read = nb.load(saved)
        assert read.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(read.affine, nb.load(path).affine)
        expected = region.automatic(image, word).mask
        np.testing.assert_array_equal(np.asarray(read.dataobj), expected)
    assert run(path, auto_mask="auto").found_mask_image is None


def test_no_mask_is_saved_where_none_is_found(head):
    path = head()
    saved = path.with_name("mask.nii.gz")
    with pytest.raises(ValueError, match="mask.nii.gz: no mask is found without auto_mask"):
        run(path, found_mask_image=saved)
    with pytest.raises(ValueError, match="two outputs have this name"):
        run(path, auto_mask="otsu", found_mask_image=path.with_name("out.nii.gz"))
    assert sorted(each.name for each in path.parent.iterdir()) == ["head.nii.gz"]
