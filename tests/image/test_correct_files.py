"""The files that `correct` writes: where it may, what their headers say, and what it records."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.ants import N4BiasFieldCorrection as AntsN4
from nipype.interfaces.mixins import CopyHeaderInterface
from nipype.utils.imagemanip import copy_header

from n4ax_bids.commands import ants_cli
from n4ax_bids.correct import correct
from n4ax_bids.image import steps as correct_steps
from n4ax_bids.image.rescale import NOT_RESCALED
from n4ax_bids.interfaces import FixN4BiasFieldCorrection, N4BiasFieldCorrection
from n4ax_bids.io import volume
from n4ax_bids.options import N4Options

SHAPE = (20, 18, 16)
SHORT = N4Options(n_iterations=(2, 2), shrink_factor=2)
needs_ants = pytest.mark.skipif(
    not importlib.util.find_spec("ants"), reason="antspyx is not installed"
)


def save(path, data, dtype, kind=nb.Nifti1Image, **fields):
    image = kind(np.asarray(data, dtype), np.diag([1.5, 1.7, 2, 1]))
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


@pytest.fixture
def folder(tmp_path, rng):
    """An image with contrast, a mask that is 255 in most of it, one that is 1 there."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    data = rng.choice([300.0, 500.0, 700.0], SHAPE) * np.exp(0.3 * axes[0])
    inside = sum(x**2 for x in axes) < 1.2
    save(tmp_path / "image.nii.gz", data, np.int16)
    save(tmp_path / "mask255.nii.gz", 255 * inside, np.uint8)
    save(tmp_path / "mask1.nii.gz", inside, np.uint8)
    one = np.float32(1)
    for ulps in (4, 5):
        near = (one.view(np.int32) + np.int32(ulps)).view(np.float32)
        save(tmp_path / f"mask1+{ulps}ulp.nii.gz", near * inside, np.float32)
    return tmp_path


def run(folder, name="image.nii.gz", **kwargs):
    outputs = {"output_image": folder / "corrected.nii", "bias_image": folder / "bias.nii"}
    return correct(folder / name, **outputs | {"options": SHORT, "device": "cpu"} | kwargs)


# The record says what was done.


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


# No output takes the place of an input.


def linked(folder, kind):
    """Another path to the image."""
    image, other = folder / "image.nii.gz", folder / "sub" / "other.nii.gz"
    other.parent.mkdir(exist_ok=True)
    if kind == "link":
        other.symlink_to(image)
    elif kind == "link to a link":
        (folder / "sub" / "first.nii.gz").symlink_to("../image.nii.gz")
        other.symlink_to("first.nii.gz")
    elif kind == "hard link":
        os.link(image, other)
    elif kind == "folder link":
        (folder / "there").symlink_to(folder)
        return folder / "there" / "image.nii.gz"
    elif kind == "dots":
        return f"{folder}/./sub/../image.nii.gz"
    elif kind == "relative":
        return "image.nii.gz"
    elif kind == "case":
        return folder / "IMAGE.nii.gz"
    return image if kind == "same" else other


KINDS = (
    *("same", "link", "link to a link", "hard link", "folder link", "dots", "relative", "case"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["output_image", "bias_image", "lattice_image"])
def test_no_output_replaces_the_image(folder, monkeypatch, kind, output):
    monkeypatch.chdir(folder)
    if kind == "case":  # a disk that knows no case, in the only point that matters here
        kept = os.path.samefile

        def samefile(*paths):
            return kept(*(Path(path).with_name(Path(path).name.lower()) for path in paths))

        monkeypatch.setattr(os.path, "samefile", samefile)
    image = folder / "image.nii.gz"
    before = image.read_bytes()
    place = linked(folder, kind)
    monkeypatch.setattr(correct_steps, "load_image", None)  # it is refused before any work
    for source, target in ((image, place), (place, image)):
        with pytest.raises(ValueError, match="is the input image itself") as raised:
            correct(source, **{"output_image": None, output: target})
        assert str(raised.value).startswith(f"{Path(target).absolute()}: ")
        assert "\n" not in str(raised.value)
    assert image.read_bytes() == before


def test_each_door_refuses_to_replace_the_image(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for output in ("image.nii.gz", "[out.nii,./image.nii.gz]", "[,image.nii.gz]"):
        assert ants_cli.main(["-i", "image.nii.gz", "-o", output]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "image.nii.gz: is the input image itself" in error
    for node_class in (N4BiasFieldCorrection, FixN4BiasFieldCorrection):
        for output in ("output_image", "bias_image", "lattice_image"):
            node = node_class(input_image="image.nii.gz", **{output: "image.nii.gz"})
            with pytest.raises(ValueError, match="is the input image itself"):
                node.run(cwd=str(folder))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_mask_and_weight_are_kept_as_well(folder):
    os.link(folder / "mask1.nii.gz", folder / "linked.nii.gz")
    for kind in ("mask", "weight"):
        for name in ("mask1.nii.gz", "linked.nii.gz"):
            with pytest.raises(ValueError, match=f"is the {kind} itself, which would be"):
                run(folder, bias_image=folder / name, **{f"{kind}_image": folder / "mask1.nii.gz"})


def test_two_outputs_need_two_names(folder, monkeypatch):
    monkeypatch.setattr(correct_steps, "load_image", None)
    (folder / "there").symlink_to(folder)
    for other in ("out.nii", "there/out.nii", "./out.nii", "OUT.nii"):
        for output in ("bias_image", "lattice_image"):
            with pytest.raises(ValueError, match="two outputs have this name"):
                correct(
                    folder / "image.nii.gz", folder / "out.nii", **{output: f"{folder}/{other}"}
                )
    accents = ("cafe\u0301.nii", "caf\u00e9.nii")
    with pytest.raises(ValueError, match="two outputs have this name"):
        correct(folder / "image.nii.gz", folder / accents[0], bias_image=folder / accents[1])


def test_a_name_in_another_case_is_another_file_where_the_disk_says_so(folder):
    if (folder / "IMAGE.nii.gz").exists():
        pytest.skip("the disk knows no case")
    assert run(folder, output_image=folder / "IMAGE.nii.gz").output_image.is_file()


def test_other_links_may_be_replaced(folder):
    """A link to a file that is no input, such as an earlier result, gives way to the new one."""
    (folder / "earlier.nii").write_bytes(b"earlier")
    (folder / "corrected.nii").symlink_to("earlier.nii")
    done = run(folder)
    assert not done.output_image.is_symlink()
    assert (folder / "earlier.nii").read_bytes() == b"earlier"


# What the headers say.

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


ANTS = """
import json, sys
from ants.internal import get_lib_fn
sys.exit(get_lib_fn("N4BiasFieldCorrection")(json.loads(sys.argv[1])))
"""


def ants(cwd, *words):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash."""
    command = [sys.executable, "-c", ANTS, json.dumps(words)]
    subprocess.run(command, check=True, timeout=300, cwd=cwd)
