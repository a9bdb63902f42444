"""Head, brain and automatic masks: strong fields, hot spots, cut heads, what is no brain."""

import jax
import numpy as np
import pytest

import n4ax_bids
from n4ax_bids.core.mask.auto_mask import auto_mask
from n4ax_bids.core.mask.brain_mask import brain_mask
from n4ax_bids.core.mask.head_mask import head_mask
from n4ax_bids.core.n4 import rows
from n4ax_bids.core.n4.call import n4
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.options import N4Options
from tests.core.mask.heads import ZOOMS, ball, coverage, made_head


@pytest.mark.parametrize("field", (0.0, 2.0))
@pytest.mark.parametrize(("white", "grey"), ((100, 75), (60, 90), (80, 85)))
def test_brain_is_found_in_every_contrast(white, grey, field):
    image, brain = made_head(white, grey, field=field)
    found = brain_mask(image, ZOOMS)
    assert coverage(found, brain) > 0.98
    assert coverage(brain, found) > 0.75


def test_head_holds_where_otsu_finds_the_rim_alone():
    image, brain = made_head(field=2.5)
    assert coverage(otsu_mask(image), brain) < 0.5
    assert coverage(head_mask(image, ZOOMS), brain) > 0.95
    result = auto_mask(image, ZOOMS)
    assert result.kind == "brain" and result.otsu_covers < 0.6 and result.rounds >= 2


@pytest.mark.parametrize(("size", "factor"), ((8, 15), (6, 30), (1, 1000)))
@pytest.mark.parametrize("corner", (False, True))
def test_hot_spots_leave_no_speck(size, factor, corner):
    image, brain = made_head()
    at = slice(2, 2 + size) if corner else slice(34, 34 + size)
    image[at, at, at] = factor * 100
    result = auto_mask(image, ZOOMS)
    assert result.kind == "brain" and coverage(result.mask, brain) > 0.8


def test_hot_spots_in_an_image_without_brain_are_clipped_and_told():
    image = np.where(ball((30, 30, 3), 35) < 1, 100, 1).astype(np.float32)
    image += np.random.default_rng(0).normal(0, 1, image.shape).astype(np.float32)
    image[0, 0, 0] = 1e6
    assert otsu_mask(image).sum() == 1
    result = auto_mask(image, ZOOMS)
    assert result.kind == "otsu" and result.share > 0.2
    assert any("clipped" in note for note in result.notes)


def test_mask_is_the_same_again_and_in_either_memory_order():
    image, _ = made_head(field=1.0)
    first = auto_mask(image, ZOOMS).mask
    np.testing.assert_array_equal(first, auto_mask(image, ZOOMS).mask)
    assert (first != auto_mask(np.asfortranarray(image), ZOOMS).mask).mean() < 0.002


def test_what_is_no_brain_gives_the_head_or_otsu_and_says_so():
    rng = np.random.default_rng(1)
    for shape, zooms in (((60, 60), (3, 3)), ((60, 60, 4), ZOOMS), ((40, 40, 40), (1, 1, 1))):
        centre = [n * z / 2 for n, z in zip(shape, zooms, strict=True)]
        axes = np.ix_(*(np.arange(n) * z for n, z in zip(shape, zooms, strict=True)))
        away = sum((a - c) ** 2 for a, c in zip(axes[:2], centre[:2], strict=True))
        body = (away < (0.3 * shape[0] * zooms[0]) ** 2) & np.ones(shape, bool)
        image = np.where(body, 80, 3) + rng.normal(0, 1, shape)
        result = auto_mask(image.astype(np.float32), zooms)
        assert result.kind in ("head", "otsu") and result.notes
        assert (result.mask == body).mean() > 0.99
        if len(shape) == 3:
            assert not brain_mask(image.astype(np.float32), zooms).any()


def test_all_masks_share_one_program():
    """Images of many shapes and masks of many sizes: nothing is compiled for the second."""
    image, _ = made_head()
    auto_mask(image, ZOOMS)
    before = n4ax_bids.core.n4.compiled.run._cache_size()
    for part in (image[4:, :, 10:], image[:, 6:], image * (ball(image.shape, 60) < 1)):
        auto_mask(part, ZOOMS)
    assert n4ax_bids.core.n4.compiled.run._cache_size() == before


def test_words_of_n4():
    image, _ = made_head(field=1.0)
    options = N4Options(shrink_factor=2, n_iterations=(3,))
    for word, mask in (
        ("auto", auto_mask(image, ZOOMS).mask),
        ("head", n4ax_bids.head_mask(image, ZOOMS)),
        ("brain", n4ax_bids.brain_mask(image, ZOOMS)),
    ):
        expected = n4(image, mask, zooms=ZOOMS, options=options)
        np.testing.assert_array_equal(n4(image, word, zooms=ZOOMS, options=options), expected)
    assert isinstance(
        n4(jax.numpy.asarray(image), "auto", zooms=ZOOMS, options=options), jax.Array
    )
    with pytest.raises(ValueError, match="'skull'; expected an array, 'otsu', 'auto', 'head'"):
        n4(image, "skull")
    with pytest.raises(ValueError, match="no plausible brain"):
        n4(image[:30], "brain", zooms=(1, 1, 1))


@pytest.mark.parametrize("find", (head_mask, brain_mask, auto_mask))
def test_bad_input_is_named(find):
    image, _ = made_head()
    with pytest.raises(ValueError, match="nan"):
        find(np.where(image > 90, np.nan, image), ZOOMS)
    with pytest.raises(ValueError, match="zooms"):
        find(image, (1.0, 1.0))
    with pytest.raises(ValueError, match="4 axes"):
        find(image[..., None])


def test_constant_image_gives_no_mask():
    result = auto_mask(np.full((40, 40, 40), 5, np.float32), ZOOMS)
    assert result.kind == "otsu" and not result.mask.any() and result.notes


def test_list_has_room_for_as_many_as_asked(rng):
    inside = rng.random((6, 7, 8)) > 0.5
    values = rng.random(inside.shape).astype(np.float32)
    found = rows.find(values, inside, None)
    listed, _ = rows.lay_out(found, inside.shape, np.dtype(np.float32), least=7 << 9)
    assert listed.log_image.size == 7 << 9 and listed.listed == inside.sum()


SALT = ((0.05, False), (0.3, False), (0.3, True))
"""share of the background's voxels, and whether they have many values"""


@pytest.mark.parametrize(("share", "many"), SALT)
def test_salt_and_pepper_in_the_background(share, many):
    image, brain = made_head(field=1.0)
    rng = np.random.default_rng(2)
    salted = (ball(image.shape, 96) > 1) & (rng.random(image.shape) < share)
    image[salted] = image.max() * (rng.random(salted.sum()) if many else 1)
    result = auto_mask(image, ZOOMS)
    assert result.kind == "brain" and coverage(result.mask, brain) > 0.8
    assert not (result.mask & salted).any()


@pytest.mark.parametrize("air", ("zero", "noisy"))
def test_air_of_zeros_or_noise(air):
    image, brain = made_head(field=1.0)
    outside = ball(image.shape, 94) > 1
    noise = np.abs(np.random.default_rng(3).normal(0, 12, image.shape))
    image[outside] = 0 if air == "zero" else noise[outside]
    result = auto_mask(image, ZOOMS)
    assert result.kind == "brain" and coverage(result.mask, brain) > 0.8
    assert not (result.mask & outside).any()


@pytest.mark.parametrize("share", (0.2, 0.35, 0.5, 0.65, 0.8))
@pytest.mark.parametrize("axis", (0, 2))
def test_a_part_of_a_head_gives_the_right_mask_or_a_note(axis, share):
    image, brain = made_head(field=1.0)
    part = tuple(slice(int(share * n) if d == axis else 0, n) for d, n in enumerate(image.shape))
    result = auto_mask(np.ascontiguousarray(image[part]), ZOOMS)
    assert result.share > 0.05
    whole = result.kind == "brain" and coverage(result.mask, brain[part]) > 0.9
    assert result.notes or (whole and share < 0.3)


def test_a_brain_that_the_image_cuts_is_told():
    image, _ = made_head()
    result = auto_mask(np.ascontiguousarray(image[22:]), ZOOMS)
    assert result.kind != "brain" or any("ends with the brain" in note for note in result.notes)


@pytest.mark.parametrize("field", (0.0, 2.5))
def test_shoulders_are_not_taken_for_a_brain(field):
    """A head of 15 cm on a neck and shoulders, which are larger."""
    head, brain = made_head()
    image = np.zeros((130, 72, 130), np.float32)
    image[31:99, :, 60:126] = head
    below = np.zeros_like(image)
    below[44:86, 14:58, 30:66] = below[4:126, 8:64, 0:32] = 90
    image = np.maximum(image, below)
    places = np.linspace(-1, 1, image.shape[2], dtype=np.float32)
    image = image * np.exp(field / 2 * places**2)
    inside = np.zeros(image.shape, bool)
    inside[31:99, :, 60:126] = brain
    result = auto_mask(image.astype(np.float32), ZOOMS)
    assert result.notes or coverage(result.mask, inside) > 0.8
    if result.kind == "brain":
        assert coverage(inside, result.mask) > 0.8


@pytest.mark.parametrize("take", ((slice(None), slice(None), slice(30, 38)), np.s_[:, :, 33]))
def test_slabs_and_slices_are_as_with_otsu(take):
    image, _ = made_head()
    part = np.ascontiguousarray(image[take])
    result = auto_mask(part, ZOOMS[: part.ndim])
    assert result.kind == "otsu" and result.notes
    np.testing.assert_array_equal(result.mask, otsu_mask(part))


def test_head_mask_where_otsu_misses_much_and_no_brain_is_found():
    """A body without a brain, near a coil: Otsu's threshold finds the near part alone."""
    shape, rng = (60, 60, 40), np.random.default_rng(4)
    body = np.repeat(ball(shape[:2], 80, ZOOMS[:2])[..., None] < 1, shape[2], axis=2)
    near = np.exp(-3 * np.arange(60) / 60)[:, None, None]
    image = (np.where(body, 100, 0) * near + np.abs(rng.normal(0, 0.5, shape))).astype(np.float32)
    result = auto_mask(image, ZOOMS)
    assert result.kind == "head" and result.notes
    assert coverage(otsu_mask(image), body) < 0.7 < 0.95 < coverage(result.mask, body)
