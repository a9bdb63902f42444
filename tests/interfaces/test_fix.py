"""The node that lifts negative images, in the place of niworkflows'."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.interfaces import FixN4BiasFieldCorrection, N4BiasFieldCorrection

AFFINE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.5, 1.5, 2]), [31.0, -44.0, 12.5]
)


@pytest.fixture
def make(tmp_path, rng):
    """Write a shaded image whose lowest value is as asked for: (lowest, dtype) → path."""

    def make_image(lowest, dtype=np.int16, slope=None):
        x = np.linspace(-1, 1, 20)[:, None, None]
        data = rng.choice([300.0, 500.0, 700.0], (20, 18, 16)) * np.exp(0.3 * x)
        data += lowest - data.min()
        if slope:
            image = nb.Nifti1Image(np.round(data / slope).astype(dtype), AFFINE)
            image.header.set_slope_inter(slope, 0.0)
        else:
            image = nb.Nifti1Image(data.astype(dtype), AFFINE)
        image.header["descrip"] = b"as recorded"
        path = tmp_path / "in" / "boldref.nii.gz"
        path.parent.mkdir()
        image.to_filename(path)
        return path

    return make_image


def run(node_class, folder, **inputs):
    folder.mkdir()
    settings = {"n_iterations": [2, 2], "shrink_factor": 2, "save_bias": True}
    return node_class(**settings | inputs).run(cwd=str(folder)).outputs


def as_niworkflows_writes_it(path, folder):
    """The file that niworkflows' class hands to ANTs, in its words: nibabel, float64, to file."""
    image = nb.load(path)
    data = image.get_fdata()
    lifted = folder / path.name
    image.__class__(data - data.min(), image.affine, image.header).to_filename(lifted)
    return lifted


@pytest.mark.parametrize("copy_header", [False, True])
@pytest.mark.parametrize(
    ("dtype", "slope"), [(np.int16, None), (np.int16, 0.137), (np.float32, None)]
)
def test_the_same_as_n4_of_the_lifted_file(make, tmp_path, dtype, slope, copy_header):
    path = make(-250, dtype, slope)
    fixed = run(
        FixN4BiasFieldCorrection,
        tmp_path / "fix",
        input_image=str(path),
        copy_header=copy_header,
    )
    (tmp_path / "lifted").mkdir()
    lifted = as_niworkflows_writes_it(path, tmp_path / "lifted")
    plain = run(
        N4BiasFieldCorrection,
        tmp_path / "plain",
        input_image=str(lifted),
        copy_header=copy_header,
    )
    assert fixed.negative_values is True
    assert fixed.output_image == str(tmp_path / "fix" / "boldref_corrected.nii.gz")
    assert fixed.correction["shift"] == nb.load(path).get_fdata().min() < -200
    for name in ("output_image", "bias_image"):
        ours, expected = nb.load(getattr(fixed, name)), nb.load(getattr(plain, name))
        np.testing.assert_array_equal(ours.get_fdata(), expected.get_fdata())
        assert ours.header == expected.header
    corrected = nb.load(fixed.output_image)
    assert corrected.get_data_dtype() == (dtype if copy_header else np.float32)
    np.testing.assert_array_equal(corrected.affine, nb.load(path).affine)
    # The shift stays: corrected × field is the lifted image. One step of int16 over 1000.
    product = corrected.get_fdata() * nb.load(fixed.bias_image).get_fdata()
    np.testing.assert_allclose(product, nb.load(lifted).get_fdata(), atol=0.02)
    assert not [p for p in (tmp_path / "fix").iterdir() if "lifted" in p.name]


def test_an_image_without_negative_values_is_left_as_it_is(make, tmp_path):
    path = make(0)
    fixed = run(FixN4BiasFieldCorrection, tmp_path / "fix", input_image=str(path))
    plain = run(N4BiasFieldCorrection, tmp_path / "plain", input_image=str(path))
    assert fixed.negative_values is False and fixed.correction["shift"] == 0
    np.testing.assert_array_equal(
        nb.load(fixed.output_image).get_fdata(), nb.load(plain.output_image).get_fdata()
    )


def test_n4_itself_shifts_nothing(make, tmp_path):
    path = make(-250)
    plain = run(N4BiasFieldCorrection, tmp_path / "plain", input_image=str(path))
    assert nb.load(plain.output_image).get_fdata().min() < -100
    assert plain.correction["shift"] == 0 and plain.correction["non_positive"] > 0


def test_outside_a_mask_the_shift_stays_too(make, tmp_path):
    path = make(-250)
    mask = np.zeros((20, 18, 16), np.uint8)
    mask[4:16, 3:15, 2:14] = 1
    nb.Nifti1Image(mask, AFFINE).to_filename(tmp_path / "mask.nii.gz")
    fixed = run(
        FixN4BiasFieldCorrection,
        tmp_path / "fix",
        input_image=str(path),
        mask_image=str(tmp_path / "mask.nii.gz"),
    )
    outside = mask == 0
    lifted = nb.load(path).get_fdata() + 250
    kept = nb.load(fixed.output_image).get_fdata()
    np.testing.assert_allclose(kept[outside], lifted[outside], atol=0.02)  # one step of int16


def test_the_node_says_so_after_each_run_anew(make, tmp_path):
    """niworkflows' class remembers an earlier image; each of our runs speaks for itself."""
    negative = make(-250)
    positive = tmp_path / "positive.nii.gz"
    nb.Nifti1Image(nb.load(negative).get_fdata() + 300, AFFINE).to_filename(positive)
    node = FixN4BiasFieldCorrection(input_image=str(negative), n_iterations=[1])
    assert node.run(cwd=str(tmp_path)).outputs.negative_values is True
    node.inputs.input_image = str(positive)
    assert node.run(cwd=str(tmp_path)).outputs.negative_values is False


@pytest.mark.clients
def test_traits_are_those_of_niworkflows(niworkflows):
    from niworkflows.interfaces.fixes import FixN4BiasFieldCorrection as Theirs

    theirs, ours = Theirs(), FixN4BiasFieldCorrection()
    assert set(theirs.inputs.copyable_trait_names()) <= set(ours.inputs.copyable_trait_names())
    outputs = theirs.output_spec(), ours.output_spec()
    assert set(outputs[0].copyable_trait_names()) <= set(outputs[1].copyable_trait_names())
    assert outputs[0].negative_values is outputs[1].negative_values is False


@pytest.mark.clients
@pytest.mark.parametrize(
    ("what", "copy_header"),
    [("int16", False), ("int16", True), ("scaled", True), ("float32", False), ("real", True)],
)
def test_the_same_as_niworkflows_and_ants(
    niworkflows, ants_on_path, make, tmp_path, test_data, what, copy_header, monkeypatch
):
    """One level of few iterations, so that only rounding differs; 2e-6 is 17 float32 roundings.

    (In so small an image one voxel at the histogram's end, which ITK drops or keeps by the last
    bit, moves a longer solve by more.)
    """
    from niworkflows.interfaces.fixes import FixN4BiasFieldCorrection as Theirs

    if what == "real":
        path, dimension = test_data("slice2d-ixi002/T2w.nii.gz"), 2
    else:
        slope = 0.137 if what == "scaled" else None
        path, dimension = make(-250, np.float32 if what == "float32" else np.int16, slope), 3
    inputs = {
        "input_image": str(path),
        "dimension": dimension,
        "copy_header": copy_header,
        "n_iterations": [2],
        "convergence_threshold": 0.0,
        "shrink_factor": 2,
        "save_bias": True,
    }
    ours = run(FixN4BiasFieldCorrection, tmp_path / "ours", **inputs)
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path / "theirs")  # where their class puts its file
    theirs = Theirs(**inputs).run().outputs
    assert ours.negative_values is theirs.negative_values is True
    for name in ("bias_image", "output_image"):
        mine, their = nb.load(getattr(ours, name)), nb.load(getattr(theirs, name))
        assert Path(getattr(ours, name)).name == Path(getattr(theirs, name)).name
        assert mine.get_data_dtype() == their.get_data_dtype()
        scale = np.abs(their.get_fdata()).max()
        # A value between two steps of int16 may go to either.
        tolerance = 2e-6 if mine.get_data_dtype() == np.float32 else 1.01 * 2**-16
        assert np.abs(mine.get_fdata() - their.get_fdata()).max() <= tolerance * scale
