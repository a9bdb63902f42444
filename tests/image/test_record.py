"""What `correct` records is what was done to the image."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.commands import ants_cli
from n4ax_bids.image.rescale import NOT_RESCALED
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.io import volume
from n4ax_bids.options import N4Options
from tests.image.files import ants, needs_ants, run, save


@pytest.mark.parametrize(
    ("mask", "rescaled"),
    [("mask255", False), ("mask1+5ulp", False), ("mask1+4ulp", True), ("mask1", True)],
)
def test_rescaled_is_what_was_rescaled(folder, mask, rescaled):
    mask = folder / f"{mask}.nii.gz"
    done = run(folder, mask_image=mask)
    assert done.rescaled is rescaled
    assert ((done.rescale_slope, done.rescale_intercept) == (1, 0)) is not rescaled
    assert done.notes == (() if rescaled else (f"{mask}: {NOT_RESCALED}",))
    image, corrected, bias = (
        volume.load(path).data
        for path in (folder / "image.nii.gz", done.output_image, done.bias_image)
    )
    inside = volume.load(mask).data != 0
    expected = done.rescale_slope * image / bias + done.rescale_intercept
    np.testing.assert_allclose(corrected[inside], expected[inside], rtol=1e-5)
    off = run(folder, mask_image=mask, rescale_intensities=False)
    assert not off.rescaled and off.notes == ()  # nobody asked for it
    equal = np.array_equal(corrected, volume.load(off.output_image).data)
    assert equal is not rescaled


def test_the_other_numbers_are_of_what_was_done_too(folder):
    """Fewer iterations than asked for, factors that the image is too thin for, a type's slope."""
    data = nb.load(folder / "image.nii.gz").get_fdata()[:, :, :3]
    save(folder / "thin.nii", data, np.int16)
    options = N4Options(n_iterations=(50, 2), convergence_threshold=0.02, shrink_factor=4)
    done = run(folder, "thin.nii", options=options, output_dtype="source")
    assert done.details.n_iterations[0] < 50 and done.details.converged[0]
    assert done.details.convergence[0] <= 0.02
    assert done.details.shrink_factors == (4, 4, 1) and done.details.n_voxels_used == 5 * 4 * 3
    assert done.mask == "none" and done.shift == 0 and not done.rescaled
    written = nb.load(done.output_image)
    stored = (written.dataobj.slope, written.dataobj.inter)
    assert (done.stored_slope, done.stored_intercept) == pytest.approx(stored)
    assert stored != (1, 0)
    otsu = run(folder, auto_mask="otsu")  # rescaling is asked for, but needs a mask file
    assert not otsu.rescaled and otsu.notes == ()


@needs_ants
def test_ants_rescales_the_same_masks(folder):
    names = ("mask255", "mask1+5ulp", "mask1+4ulp", "mask1")
    for name in names:
        for switch in "01":
            words = f"-d 3 -i image.nii.gz -x {name}.nii.gz -s 2 -c [2x2,0] -r {switch}"
            ants(folder, *words.split(), "-o", f"{name}_{switch}.nii")
    for name in names:
        off, on = (volume.load(folder / f"{name}_{switch}.nii").data for switch in "01")
        done = run(folder, mask_image=folder / f"{name}.nii.gz")
        assert (not np.array_equal(off, on)) is done.rescaled, name


def test_a_mask_without_ones_is_said_by_each_door(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = "-i image.nii.gz -x mask255.nii.gz -s 2 -c [2x2,0] -o corrected.nii"
    assert ants_cli.main(words.split()) == 0
    assert capsys.readouterr().err.endswith(f": mask255.nii.gz: {NOT_RESCALED}\n")
    node = N4BiasFieldCorrection(
        input_image="image.nii.gz", mask_image="mask255.nii.gz", n_iterations=[2], shrink_factor=2
    )
    done = node.run(cwd=str(folder)).outputs.correction
    assert done["rescaled"] is False and done["rescale_slope"] == 1
    assert done["notes"] == [f"{folder / 'mask255.nii.gz'}: {NOT_RESCALED}"]
