"""The level of a field: as N4 leaves it, or with a mean or median of 1 inside the mask."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids import N4Options, correct, correct_array
from n4ax_bids.commands import ants_cli
from n4ax_bids.io.lattice import load_lattice

OPTIONS = N4Options(n_iterations=(4,), shrink_factor=2)
OF = {"mean": np.mean, "median": np.median}


@pytest.fixture
def image(tmp_path, rng):
    """An image whose field N4 does not leave at 1, with a mask."""
    ramp = np.linspace(0.5, 3, 20)[:, None, None] * np.ones((20, 18, 16))
    data = (ramp * rng.uniform(80, 120, ramp.shape)).astype(np.float32)
    mask = np.zeros(data.shape, np.float32)
    mask[3:15, 2:16, 4:12] = 1
    for name, values in (("image", data), ("mask", mask)):
        nb.Nifti1Image(values, np.diag([2, 2, 2, 1])).to_filename(tmp_path / f"{name}.nii")
    return data, mask


@pytest.mark.parametrize("scale", OF)
def test_it_is_1_inside_the_mask_and_all_outputs_agree(tmp_path, image, scale):
    data, mask = image
    names = {f"{name}_image": tmp_path / f"{name}.nii" for name in ("bias", "lattice")}
    correct(
        tmp_path / "image.nii",
        tmp_path / "out.nii",
        mask_image=tmp_path / "mask.nii",
        correct_outside=True,
        rescale_intensities=False,
        options=OPTIONS,
        field_scale=scale,
        **names,
    )
    bias, out = (nb.load(tmp_path / f"{name}.nii").get_fdata() for name in ("bias", "out"))
    assert OF[scale](bias[mask > 0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(bias * out, data, rtol=1e-5)
    lattice = load_lattice(tmp_path / "lattice.nii")["lattice"]
    settings = {"mask": mask, "zooms": (2, 2, 2), "options": OPTIONS, "return_bias": True}
    _, plain = correct_array(data, **settings)
    shift = np.log(bias) - plain
    assert np.ptp(shift) < 1e-5 and abs(shift.mean()) > 1e-4
    assert lattice.max() < np.log(bias).max() + 1  # the lattice is shifted with the field
    corrected, log_bias = correct_array(data, **settings, field_scale=scale)
    np.testing.assert_allclose(corrected, out, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_bias), bias, rtol=1e-5)


def test_weights_and_arrays_of_jax(image):
    import jax.numpy as jnp

    data, mask = image
    weight = np.where(data > 100, 1, 0).astype(np.float32)
    settings = {"zooms": (2, 2, 2), "options": OPTIONS, "return_bias": True}
    for change in (np.asarray, jnp.asarray):
        _, log_bias = correct_array(
            change(data), change(mask), change(weight), **settings, field_scale="mean"
        )
        inside = (mask > 0) & (weight > 0)
        assert np.exp(np.asarray(log_bias))[inside].mean() == pytest.approx(1, abs=1e-5)


def test_other_words_are_refused(tmp_path, image):
    with pytest.raises(ValueError, match="field_scale is 'max'; expected one of as-is, mean"):
        correct(tmp_path / "image.nii", tmp_path / "out.nii", field_scale="max")
    with pytest.raises(ValueError, match="field_scale is 'max'"):
        correct_array(image[0], field_scale="max")


def test_the_command_and_the_nodes(tmp_path, image, monkeypatch, capsys):
    from n4ax_bids.interfaces import N4BiasFieldCorrection

    monkeypatch.chdir(tmp_path)
    words = ["-i", "image.nii", "-s", "2", "-c", "[4]", "-o", "[out.nii,bias.nii]"]
    assert ants_cli.main([*words, "--field-scale", "median"]) == 0
    bias = nb.load("bias.nii").get_fdata()
    assert np.median(bias) == pytest.approx(1, abs=1e-5)
    node = N4BiasFieldCorrection(
        input_image=str(tmp_path / "image.nii"),
        field_scale="median",
        shrink_factor=2,
        n_iterations=[4],
        save_bias=True,
        dimension=3,
    )
    found = nb.load(node.run().outputs.bias_image).get_fdata()
    np.testing.assert_array_equal(found, bias)
    assert ants_cli.main([*words, "--field-scale", "max"]) == 1
    assert "field_scale is 'max'" in capsys.readouterr().err
