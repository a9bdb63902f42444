"""Masks and weights as clients give them, through the node."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.interfaces import N4BiasFieldCorrection


def write(path, data, affine):
    nb.Nifti1Image(np.asarray(data, np.float32), affine).to_filename(path)
    return str(path)


@pytest.fixture
def image(head):
    return nb.load(head)


@pytest.fixture
def correct(head, tmp_path):
    """Run the node on the head; return outputs, corrected image and field."""

    def run(**inputs):
        node = N4BiasFieldCorrection(
            input_image=str(head), n_iterations=[2], save_bias=True, **inputs
        )
        outputs = node.run(cwd=str(tmp_path)).outputs
        corrected, bias = (
            nb.load(p).get_fdata(dtype=np.float32)
            for p in (outputs.output_image, outputs.bias_image)
        )
        return outputs.correction, corrected, bias

    return run


def test_a_weight_with_zeros_and_fractions(correct, image, head_weight, tmp_path):
    weight = nb.load(head_weight).get_fdata()
    record, corrected, bias = correct(weight_image=str(head_weight))
    assert record["n_voxels_mask"] == np.count_nonzero(weight > 0) < weight.size
    assert record["mask"] == "none" and not record["rescaled"]
    np.testing.assert_allclose(corrected * bias, image.get_fdata(), rtol=5e-7)  # float32
    # Fractions weigh: 0 and 1 alone give another field.
    binary = write(tmp_path / "binary.nii.gz", weight > 0, image.affine)
    other, _, other_bias = correct(weight_image=binary)
    assert other["n_voxels_mask"] == record["n_voxels_mask"]
    assert np.abs(other_bias / bias - 1).max() > 1e-3


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_a_mask_that_is_not_0_and_1(correct, image, head_weight, tmp_path, kind):
    """All that is not 0 counts, what is 0 is kept, what is 1 is rescaled, the rest divided."""
    mask = nb.load(head_weight).get_fdata(dtype=np.float32)
    if kind == "labels":
        mask = np.ceil(mask) + (mask > 0.5)  # 0, 1, 2
    path = write(tmp_path / "mask.nii.gz", mask, image.affine)
    record, corrected, bias = correct(mask_image=path)
    source = image.get_fdata(dtype=np.float32)
    zero, one = mask == 0, mask == 1
    rest = ~zero & ~one
    assert all(np.count_nonzero(part) > 100 for part in (zero, one, rest))
    assert record["n_voxels_mask"] == mask.size - np.count_nonzero(zero)
    assert record["rescaled"] and record["rescale_slope"] != 1
    np.testing.assert_array_equal(corrected[zero], source[zero])
    np.testing.assert_allclose(corrected[rest] * bias[rest], source[rest], rtol=5e-7)  # float32
    expected = record["rescale_slope"] * source / bias + record["rescale_intercept"]
    np.testing.assert_allclose(corrected[one], expected[one], rtol=2e-6)
    off, corrected, bias = correct(mask_image=path, args="-r 0")
    assert not off["rescaled"]
    np.testing.assert_allclose(corrected[one] * bias[one], source[one], rtol=5e-7)
    _, corrected, bias = correct(mask_image=path, args="-r 0", correct_outside=True)
    np.testing.assert_allclose(corrected * bias, source, rtol=5e-7)


@pytest.mark.parametrize("trait", ["mask_image", "weight_image"])
def test_an_affine_that_differs_by_1e_5_is_accepted_and_noted(correct, image, tmp_path, trait):
    inside = image.get_fdata() > 100
    exact = write(tmp_path / "exact.nii.gz", inside, image.affine)
    near = write(tmp_path / "near.nii.gz", inside, image.affine + 1e-5)
    record, corrected, _ = correct(**{trait: near})
    (note,) = record["notes"]
    assert note.startswith(near) and "differs from the image's by up to" in note
    expected, other, _ = correct(**{trait: exact})
    assert expected["notes"] == []
    np.testing.assert_array_equal(corrected, other)


@pytest.mark.parametrize("trait", ["mask_image", "weight_image"])
def test_an_affine_that_differs_by_1_mm_is_an_error(correct, image, head, tmp_path, trait):
    affine = image.affine.copy()
    affine[2, 3] += 1
    path = write(tmp_path / "far.nii.gz", np.ones(image.shape), affine)
    with pytest.raises(ValueError) as raised:
        correct(**{trait: path})
    message = str(raised.value)
    assert message.startswith(path) and str(head) in message and "\n" not in message
    for each in (affine, image.affine):  # both are printed, row by row
        rows = "; ".join(" ".join(f"{value:.6g}" for value in row) for row in each[:3])
        assert f"[{rows}]" in message
    assert [p.name for p in tmp_path.iterdir()] == ["far.nii.gz"]
