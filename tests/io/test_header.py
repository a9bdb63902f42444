"""Damaged headers: only one line with the file's name comes out; junk is passed over."""

from __future__ import annotations

import errno
import gzip
import struct
import warnings

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.image.demand import axes, memory_needed
from n4ax_bids.io import geometry, volume, voxels
from n4ax_bids.options import N4Options

DATA = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
COMMENT = struct.pack("<ii", 32, 6) + b"a comment".ljust(24, b"\0")
JUNK = {
    "a size below 0": b"\xff" * 16,
    "text": b"x" * 32,
    "a size beyond the voxels": struct.pack("<ii", 4000, 6) + b"a" * 8,
    "a size of 0": struct.pack("<ii", 0, 6) + b"a" * 8,
    "a code below 0": struct.pack("<ii", 16, -6) + b"a" * 8,
    "less than an extension": b"abc",
}


def with_extensions(path, between, extender=b"\1\0\0\0"):
    image = nb.Nifti1Image(DATA, np.diag([2, 3, 4, 1.0]))
    image.to_filename(path)
    content = path.read_bytes()
    start = bytearray(content[:348])
    start[108:112] = struct.pack("<f", 352 + len(between))
    path.write_bytes(bytes(start) + extender + between + content[352:])
    return path


@pytest.mark.parametrize("before", [b"", COMMENT])
@pytest.mark.parametrize("junk", JUNK)
def test_junk_between_header_and_voxels_is_passed_over(tmp_path, junk, before):
    path = with_extensions(tmp_path / "x.nii", before + JUNK[junk])
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T  # ITK reads the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = volume.load(path)
    np.testing.assert_array_equal(image.data, itk)
    (note,) = image.notes
    assert note.startswith("x.nii: ") and "not a header extension" in note
    volume.save(tmp_path / "y.nii", image.data, image)
    written = nb.load(tmp_path / "y.nii")
    kept = [(each.get_code(), each.get_content()) for each in written.header.extensions]
    assert kept == ([(6, b"a comment")] if before else [])
    assert volume.load_header(tmp_path / "y.nii")["vox_offset"] == 352 + len(before)
    assert volume.load(tmp_path / "y.nii").notes == ()
    np.testing.assert_array_equal(written.get_fdata(), DATA)


@pytest.mark.parametrize(
    ("between", "extender"),
    [
        (b"", b"\0\0\0\0"),
        (b"\0" * 48, b"\0\0\0\0"),
        (b"\0" * 48, b"\1\0\0\0"),  # padding
        (b"junk" * 4, b"\0\0\0\0"),  # the header says that there is no extension
        (COMMENT + b"\0" * 32, b"\1\0\0\0"),
        (struct.pack("<ii", 16, 9999) + b"unknown!", b"\1\0\0\0"),  # a code that we do not know
        (struct.pack("<ii", 16, 2) + b"no DICOM", b"\1\0\0\0"),  # not ours to look into
    ],
)
def test_what_the_standard_allows_needs_no_note(tmp_path, between, extender):
    image = volume.load(with_extensions(tmp_path / "x.nii", between, extender))
    assert image.notes == ()
    np.testing.assert_array_equal(image.data, DATA)
    volume.save(tmp_path / "y.nii", image.data, image)
    again = volume.load(tmp_path / "y.nii").header.extensions
    assert [e.get_content() for e in again] == [e.get_content() for e in image.header.extensions]
    assert bool(again) == (extender[0] == 1 and any(between))


def mutated(rng, klass, endianness):
    """Return the bytes of an image some of whose header fields hold anything."""
    image = klass(DATA, np.diag([2, 3, 4, 1.0]), klass.header_class(endianness=endianness))
    image.header.extensions.append(nb.nifti1.Nifti1Extension(6, b"a comment"))
    content = bytearray(image.to_bytes())
    n = klass.header_class.sizeof_hdr
    if rng.random() < 0.7:
        header = klass.header_class(bytes(content[:n]), endianness=endianness, check=False)
        fields = header.structarr
        for name in rng.choice(header.keys(), rng.integers(1, 4)):
            field = fields[name]
            if field.dtype.kind not in "fiu":
                continue
            values = np.atleast_1d(field)
            values[rng.integers(values.size)] = _anything(rng, field.dtype)
            fields[name] = values.reshape(field.shape)
        content[:n] = header.binaryblock
    else:
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(n + 40)] = rng.integers(256)
    if rng.random() < 0.1:
        del content[rng.integers(len(content)) :]
    if rng.random() < 0.3:
        content = bytearray(gzip.compress(bytes(content), 1))
        if rng.random() < 0.5:
            content[rng.integers(len(content))] = rng.integers(256)
    return bytes(content)


def _anything(rng, dtype):
    if dtype.kind == "f":
        return rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e-30, 1e30, 0.5, 1.000002, 360, 1e9])
    info = np.iinfo(dtype)
    return rng.choice([info.min, info.max, 0, 1, 2, 3, 4, 5, 7, 16, 64, 127], None)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("klass", [nb.Nifti1Image, nb.Nifti2Image])
def test_whatever_a_header_holds_the_error_is_one_line(tmp_path, klass, endianness):
    """750 files for each format; what can be read can be written as well, and read again."""
    rng = np.random.default_rng(ord(endianness))
    path, again = tmp_path / "x.nii", tmp_path / "y.nii"
    ended = {"read": 0, "refused": 0}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        for number in range(750):
            path.write_bytes(mutated(rng, klass, endianness))
            try:
                axes(path)
                memory_needed(path, N4Options(shrink_mm=2.0))
                image = volume.load(path)
            except (OSError, ValueError) as error:
                message = str(error)
                assert str(path) in message and "\n" not in message, number
                ended["refused"] += 1
                continue
            ended["read"] += 1
            assert min(image.zooms) > 0 and np.isfinite(image.affine).all(), number
            again.unlink(missing_ok=True)
            volume.write(again, image.data, image)
            np.testing.assert_array_equal(volume.load(again).data, image.data)
    assert min(ended.values()) > 100


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output error"),
        (OverflowError("too large"), ValueError, "too large"),
        (struct.error("unpack requires\n4 bytes"), ValueError, "unpack requires 4 bytes"),
        (MemoryError(), ValueError, "do not fit into memory"),
        (KeyError("x"), ValueError, "'x'"),
        (TypeError(), ValueError, "TypeError"),
    ],
)
def test_foreign_errors_name_the_file(tmp_path, monkeypatch, error, kind, words):
    path = with_extensions(tmp_path / "x.nii", b"")

    def fails(*_):
        raise error

    monkeypatch.setattr(voxels, "_read_voxels", fails)
    with pytest.raises(kind) as raised:
        volume.load(path)
    assert str(path) in str(raised.value) and words in str(raised.value)
    assert "\n" not in str(raised.value) and raised.value.__cause__ is error


def test_a_header_that_ends_early(tmp_path):
    path = with_extensions(tmp_path / "x.nii", b"")
    path.write_bytes(path.read_bytes()[:347])
    with pytest.raises(ValueError, match=r"x\.nii: not a NIfTI file"):
        volume.load_header(path)


@pytest.mark.parametrize("klass", [nb.Nifti1Image, nb.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("n_axes", [8, 99, -1])
def test_a_number_of_axes_that_nifti_does_not_have(tmp_path, klass, endianness, n_axes):
    header = klass.header_class(endianness=endianness)
    image = klass(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), header)
    path = tmp_path / "image.nii"
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    kind = np.dtype(np.int16 if klass is nb.Nifti1Image else np.int64).newbyteorder(endianness)
    place = 40 if klass is nb.Nifti1Image else 16
    content[place : place + kind.itemsize] = np.array(n_axes, kind).tobytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"image.nii: .*dim\[0\] is {n_axes}; expected 1 to 7"):
        volume.load(path)


SIGNALLING = struct.pack("<I", 0x7F800001)
"""a NaN at which numpy warns when it is converted"""
ODD = {
    "a signalling NaN in the q-form": (1, 0, {"quatern_b": SIGNALLING, "qoffset_x": SIGNALLING}),
    "a signalling NaN in the s-form": (0, 1, {"srow_x": SIGNALLING}),
    "signalling NaN as voxel sizes": (1, 2, {"pixdim": SIGNALLING * 4}),
    "voxels too small for a normal number": (1, 2, {"pixdim": struct.pack("<ff", 1, 1e-41)}),
    "an s-form with a number too small": (1, 2, {"srow_x": struct.pack("<ff", 1, 4e-43)}),
    "an s-form as large as can be": (1, 2, {"srow_x": struct.pack("<ff", 1, 3e38)}),
    "a q-form as large as can be": (1, 0, {"quatern_b": struct.pack("<f", 3e38)}),
    "rows that cannot be told apart": (0, 1, {"srow_y": struct.pack("<ff", 2, 0)}),
}
HUGE = {
    "a quaternion whose square is too large": (1, 0, {"quatern_c": -9.5e306}),
    "an s-form whose square is too large": (1, 2, {"srow_x": [1, 1.2e241, 0, 0]}),
    "an s-form beyond float32": (0, 1, {"srow_y": [0, 1e39, 0, 0]}),
    "an s-form of metres beyond all numbers": (
        1,
        1,
        {"srow_x": [1e307, 0, 0, 0], "xyzt_units": 1},
    ),
    "voxel sizes beyond all numbers": (1, 0, {"pixdim": [1, 1e307, 2, 3, 1, 1, 1, 1]}),
}


def write_header(path, klass, codes, fields):
    """Write a small image whose header has fields as bytes or as numbers, just as they are."""
    header = klass.header_class()
    header.set_data_shape((4, 5, 6))
    header.set_data_dtype(np.uint8)
    header["pixdim"][1:4] = header["srow_x"][0], header["srow_y"][1], header["srow_z"][2] = 1, 2, 3
    header["qform_code"], header["sform_code"] = codes
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    block = bytearray(header.binaryblock)
    for name, value in fields.items():
        if not isinstance(value, bytes):
            value = np.asarray(value, header[name].dtype).tobytes()
        start = header.template_dtype.fields[name][1]
        block[start : start + len(value)] = value
    path.write_bytes(bytes(block) + bytes(4) + bytes(range(120)))
    return path


@pytest.mark.parametrize("odd", [*ODD, *HUGE])
def test_odd_numbers_in_a_header_print_nothing(tmp_path, odd, capfd):
    """Neither numpy's warnings nor what ITK writes to the terminal past Python reach a user."""
    *codes, fields = (ODD | HUGE)[odd]
    klass = nb.Nifti1Image if odd in ODD else nb.Nifti2Image
    path = write_header(tmp_path / "x.nii", klass, codes, fields)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        image = volume.load(path)
        volume.load_header(path)
        axes(path)
        memory_needed(path, N4Options(shrink_mm=4))
        found = geometry.read_geometry(path, 3)
        geometry.closest_axes(image.affine)
        volume.save(tmp_path / "y.nii", image.data, image)
    assert [str(each.message) for each in warned] == []
    assert capfd.readouterr() == ("", "")
    assert np.isfinite(found.direction).all() and min(found.spacing) > 0


def test_voxels_at_infinity_are_refused(tmp_path):
    fields = {"pixdim": [1, 1e307, 2, 3, 1, 1, 1, 1], "xyzt_units": 1}
    path = write_header(tmp_path / "x.nii", nb.Nifti2Image, (1, 0), fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"x\.nii: damaged .* puts voxels at infinity"):
            volume.load(path)


def test_a_quaternion_of_any_length_is_a_rotation(tmp_path):
    """By 180 degrees, as for the NIfTI library with lengths that it can square."""
    affines = [
        volume.load(
            write_header(
                tmp_path / "x.nii", nb.Nifti2Image, (1, 0), {"quatern_b": b, "quatern_c": b}
            )
        ).affine
        for b in (1e3, 1e307)
    ]
    np.testing.assert_allclose(*affines, atol=1e-12)
    np.testing.assert_allclose(affines[0][:3, :3], [[0, 2, 0], [1, 0, 0], [0, 0, -3]], atol=1e-12)
