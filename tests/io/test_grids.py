"""A mask on an image's grid: axes turned, two forms, and what does not fit."""

from __future__ import annotations

import itertools

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from n4ax_bids.io import volume
from n4ax_bids.io.grids import on_grid

SHAPE = (5, 6, 7)
ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product([1, -1], repeat=3))


def oblique(zooms=(1.5, 1.5, 1.5), seed=0, origin=(31.0, -44.0, 12.5)):
    rotation = Rotation.random(random_state=seed).as_matrix()
    return nb.affines.from_matvec(rotation * zooms, origin)


def write(path, data, affine, *, q=None, codes=(1, 1), unit=2):
    """Write an image with an s-form and, if it differs, a q-form of its own."""
    image = nb.Nifti1Image(data, None)  # nibabel leaves the forms of such an image alone
    image.header.set_qform(affine if q is None else q, codes[0])
    image.header.set_sform(affine, codes[1])
    image.header["xyzt_units"] = unit
    image.to_filename(path)
    written = nb.Nifti1Header(path.read_bytes()[:348])
    assert (written["qform_code"], written["sform_code"]) == codes
    return volume.load(path)


def numbers(shape=SHAPE):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def turned(data, affine, order, flips):
    """Return the same voxels stored along other axes, by nibabel."""
    image = nb.Nifti1Image(data, affine)
    orientation = np.array([order, flips]).T
    other = image.as_reoriented(orientation)
    return np.asarray(other.dataobj), other.affine


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 4)])
@pytest.mark.parametrize("order", ORDERS)
def test_all_48_orders_and_directions_of_axes(tmp_path, order, codes):
    """An image of equal sides as well, where the shape tells nothing."""
    for shape, flips in itertools.product((SHAPE, (6, 6, 6)), FLIPS):
        affine = oblique(seed=ORDERS.index(order))
        image = write(tmp_path / "image.nii", numbers(shape), affine, codes=codes)
        data, moved = turned(numbers(shape), affine, order, flips)
        other = write(tmp_path / "mask.nii", data, moved, codes=codes)
        found = on_grid(other, image)
        np.testing.assert_array_equal(found.data, image.data)
        same = order == (0, 1, 2) and flips == (1, 1, 1)
        assert found.itk_agrees == same and found.notes == ()
        assert found.data.flags.f_contiguous


def test_units_do_not_matter(tmp_path):
    micron = oblique()
    micron[:3] *= 1000
    image = write(tmp_path / "image.nii", numbers(), micron, unit=3)
    data, moved = turned(numbers(), oblique(), (2, 0, 1), (1, -1, 1))
    found = on_grid(write(tmp_path / "mask.nii", data, moved), image)
    np.testing.assert_array_equal(found.data, image.data)


def test_a_slice_of_two_axes(tmp_path):
    affine = oblique()
    image = write(tmp_path / "image.nii", numbers((5, 6)), affine)
    data, moved = turned(numbers((5, 6, 1)), affine, (1, 0, 2), (1, -1, 1))
    found = on_grid(write(tmp_path / "mask.nii", data[..., 0], moved), image)
    np.testing.assert_array_equal(found.data, image.data)


class TestTwoForms:
    """An image whose q-form and s-form differ, as after registration to a template."""

    scanner = oblique(seed=1)
    template = oblique(seed=2, origin=(-80.0, -110.0, -70.0))

    @pytest.fixture
    def image(self, tmp_path):
        return write(
            tmp_path / "image.nii", numbers(), self.template, q=self.scanner, codes=(1, 4)
        )

    def test_a_mask_by_simpleitk_is_accepted_as_by_ants(self, image, tmp_path):
        mask = sitk.ReadImage(str(image.path))
        sitk.WriteImage(mask, str(tmp_path / "mask.nii"))
        other = volume.load(tmp_path / "mask.nii")
        assert not np.allclose(other.affine, image.affine)  # it has lost the s-form
        found = on_grid(other, image)
        assert found.itk_agrees
        np.testing.assert_array_equal(found.data, image.data)
        (note,) = found.notes
        assert "its s-form differs from the image's by up to" in note
        assert "its q-form" in note and "0.0e+00" not in note

    @pytest.mark.parametrize("which", ["template", "scanner"])
    def test_either_form_will_do(self, image, tmp_path, which):
        for codes in ((0, 2), (1, 0)):
            mask = write(tmp_path / "mask.nii", numbers(), getattr(self, which), codes=codes)
            found = on_grid(mask, image)
            np.testing.assert_array_equal(found.data, image.data)
            for note in found.notes:
                assert "0.0e+00" not in note and "differs by" not in note
            if codes == (0, 2):
                (note,) = found.notes
                assert "the image has a q-form and it has none" in note
                assert ("its s-form is the image's" in note) == (which == "template")

    def test_either_form_will_do_for_turned_axes(self, image, tmp_path):
        for affine in (self.scanner, self.template):
            data, moved = turned(numbers(), affine, (1, 2, 0), (-1, 1, 1))
            found = on_grid(write(tmp_path / "mask.nii", data, moved), image)
            np.testing.assert_array_equal(found.data, image.data)
            assert not found.itk_agrees

    def test_neither(self, image, tmp_path):
        mask = write(tmp_path / "mask.nii", numbers(), oblique(seed=3))
        with pytest.raises(ValueError, match=r"mask\.nii: lies elsewhere than .*image\.nii"):
            on_grid(mask, image)


def test_equal_headers_need_no_note(tmp_path):
    for codes in ((1, 1), (1, 0), (0, 1), (1, 4)):
        one = write(tmp_path / "a.nii", numbers(), oblique(), codes=codes)
        other = write(tmp_path / "b.nii", numbers(), oblique(), codes=codes)
        assert on_grid(other, one).notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, affine: (data[:-1], affine), r"shape \(4, 6, 7\); expected \(5, 6, 7\)"),
        (lambda data, affine: (data, affine + np.eye(4)[:, [3, 3, 3, 0]] * 0), None),
        (lambda data, affine: (data, affine @ np.diag([1, 1, 1.01, 1])), "lies elsewhere"),
        (lambda data, affine: (data, affine @ np.diag([-1, 1, 1, 1])), "lies elsewhere"),
        (lambda data, affine: (data.transpose(1, 0, 2), affine), "lies elsewhere"),
    ],
)
def test_other_voxels_are_refused_in_one_line_with_both_grids(tmp_path, change, words):
    affine = oblique()
    image = write(tmp_path / "image.nii", numbers(), affine)
    data, moved = change(numbers(), affine)
    other = write(tmp_path / "mask.nii", np.ascontiguousarray(data), moved)
    if words is None:
        assert on_grid(other, image).itk_agrees
        return
    with pytest.raises(ValueError, match=words) as raised:
        on_grid(other, image)
    message = str(raised.value)
    assert "mask.nii" in message and "image.nii" in message and "\n" not in message
    assert message.count("[") == 2 and "from-orig_to-T1w" in message


def test_the_tolerance_shrinks_with_the_voxels(tmp_path):
    """A shift by one voxel of 0.1 µm is 1e-4 mm."""
    affine = np.diag([0.1, 0.1, 0.1, 1])
    image = write(tmp_path / "image.nii", numbers(), affine, unit=3)
    near, far = affine.copy(), affine.copy()
    near[0, 3], far[0, 3] = 1e-5, 0.1
    assert on_grid(write(tmp_path / "near.nii", numbers(), near, unit=3), image).data is not None
    with pytest.raises(ValueError, match="lies elsewhere"):
        on_grid(write(tmp_path / "far.nii", numbers(), far, unit=3), image)
