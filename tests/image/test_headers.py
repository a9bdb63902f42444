"""The headers that `correct` writes: they tell of the scan, and not of the image's values."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.ants import N4BiasFieldCorrection as AntsN4
from nipype.interfaces.mixins import CopyHeaderInterface
from nipype.utils.imagemanip import copy_header

from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.io import volume
from tests.image.files import ants, needs_ants, run, save

OF_VALUES = {
    "cal_min": 5,
    "cal_max": 900,
    "intent_code": 1001,
    "intent_p1": 1,
    "intent_p2": 2,
    "intent_p3": 3,
    "intent_name": b"statistic",
    "aux_file": b"render3",
}
OF_THE_SCAN = {
    "descrip": b"TE=3",
    "dim_info": 57,
    "slice_code": 1,
    "slice_start": 1,
    "slice_end": 15,
    "slice_duration": 0.1,
    "toffset": 7,
    "xyzt_units": 10,
    "sform_code": 2,
    "qform_code": 1,
}
EMPTY = {"descrip": b"", "xyzt_units": 10, "sform_code": 1, "qform_code": 1}
"""What ANTs writes in the place of these; 0 for all others."""


@pytest.fixture(params=[nb.Nifti1Image, nb.Nifti2Image])
def labelled(folder, request):
    """The image with a header that says much."""
    data = nb.load(folder / "image.nii.gz").get_fdata()
    fields = OF_VALUES | OF_THE_SCAN
    if request.param is nb.Nifti1Image:
        fields |= {"glmin": 2, "glmax": 77}
    return save(folder / "labelled.nii", data, np.int16, request.param, **fields)


def fields_of(path, names):
    header = nb.load(path).header
    return {name: header[name].item() for name in names if name in header.keys()}


@pytest.mark.parametrize("output_dtype", ["float32", "source"])
def test_headers_say_nothing_of_the_values_of_the_image(folder, labelled, output_dtype):
    done = run(folder, "labelled.nii", output_dtype=output_dtype)
    for path in (done.output_image, done.bias_image):
        assert fields_of(path, volume.OF_VALUES) == {
            name: b"" if isinstance(value, bytes) else 0
            for name, value in fields_of(labelled, volume.OF_VALUES).items()
        }
        assert fields_of(path, OF_THE_SCAN) == fields_of(labelled, OF_THE_SCAN)
        np.testing.assert_array_equal(nb.load(path).affine, nb.load(labelled).affine)


@needs_ants
def test_ants_says_nothing_of_them_either(folder):
    """Nor of the scan, which we keep: slices, times and texts are those of the same scan."""
    data = nb.load(folder / "image.nii.gz").get_fdata()
    fields = OF_VALUES | OF_THE_SCAN | {"glmin": 2, "glmax": 77}
    save(folder / "labelled.nii", data, np.int16, **fields)
    ants(folder, *"-d 3 -i labelled.nii -s 4 -c [1,0] -o [theirs.nii,field.nii]".split())
    for name in ("theirs.nii", "field.nii"):
        found = fields_of(folder / name, [*volume.OF_VALUES, *OF_THE_SCAN])
        empty = {name: b"" if isinstance(fields[name], bytes) else 0 for name in fields}
        assert found == empty | EMPTY


def test_copy_header_is_nipypes(folder, labelled):
    """Field for field what nipype's hook makes of the files, in its own types."""
    assert issubclass(AntsN4, CopyHeaderInterface)
    plain = run(folder, "labelled.nii")
    for name, (_, keep_dtype) in AntsN4._copy_header_map.items():
        copy_header(str(labelled), str(getattr(plain, name)), keep_dtype=keep_dtype)
    (folder / "node").mkdir()
    node = N4BiasFieldCorrection(
        input_image=str(labelled),
        n_iterations=[2, 2],
        shrink_factor=2,
        copy_header=True,
        save_bias=True,
        device="cpu",
    )
    made = node.run(cwd=str(folder / "node")).outputs
    for name in AntsN4._copy_header_map:
        ours, theirs = nb.load(getattr(made, name)), nb.load(getattr(plain, name))
        assert ours.header == theirs.header, name
        np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())


def test_the_type_of_the_source_without_its_header(folder, labelled):
    (folder / "node").mkdir()
    node = N4BiasFieldCorrection(
        input_image=str(labelled),
        n_iterations=[2],
        shrink_factor=2,
        output_dtype="source",
        save_bias=True,
    )
    made = node.run(cwd=str(folder / "node")).outputs
    assert nb.load(made.output_image).get_data_dtype() == np.int16
    assert nb.load(made.bias_image).get_data_dtype() == np.float32
    assert fields_of(made.bias_image, ["cal_max"]) == {"cal_max": 0}
