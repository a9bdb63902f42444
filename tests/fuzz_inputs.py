"""What `tests.fuzz` draws: damaged NIfTI files, hostile texts, odd names of files."""

from __future__ import annotations

import gzip
import json

import nibabel as nb
import numpy as np
from hypothesis import strategies as st

SPECIAL = (0, 1, 2, 127, 128, 255)


def _valid_file(two: bool, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of a small NIfTI file."""
    kind = nb.Nifti2Image if two else nb.Nifti1Image
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) % 100 + 1
    image = kind(values.astype(dtype), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 2)
    return image.to_bytes()


@st.composite
def nifti_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a file's name and a NIfTI file whose header, extensions or length are damaged."""
    two = draw(st.booleans())
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "float64"]))
    shape = draw(st.sampled_from([(4, 5, 6), (4, 5), (4, 5, 1), (3, 3, 3, 2), (1, 1, 1)]))
    content = bytearray(_valid_file(two, dtype, shape))
    header = 544 if two else 352
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, header - 1))
        patch = draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from(SPECIAL).map(lambda value: bytes([value])),
                st.floats(width=32).map(lambda value: np.float32(value).tobytes()),
                st.integers(-(2**15), 2**15 - 1).map(lambda value: np.int16(value).tobytes()),
                st.integers(-(2**63), 2**63 - 1).map(lambda value: np.int64(value).tobytes()),
            )
        )
        content[place : place + len(patch)] = patch
    if draw(st.booleans()):
        content[header:header] = draw(st.binary(max_size=64))
        content[header - 4] = draw(st.sampled_from([0, 1, 2]))
    if draw(st.integers(0, 3)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    name = draw(st.sampled_from(["image.nii", "image.nii.gz"]))
    compressed = name.endswith(".gz") != (draw(st.integers(0, 9)) == 0)
    stored = gzip.compress(bytes(content), 1) if compressed else bytes(content)
    if compressed and draw(st.integers(0, 3)) == 0:
        damaged = bytearray(stored)
        damaged[draw(st.integers(0, len(damaged) - 1))] ^= 1 << draw(st.integers(0, 7))
        stored = bytes(damaged)
    return name, stored


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(codec=None), max_size=12),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_keys = st.sampled_from(
    [
        *("ImageType", "ImageTypeText", "Name", "GeneratedBy", "DatasetDOI", "Authors", "License"),
        *("SkullStripped", "BIDSVersion", "DatasetType", "DatasetLinks", "t1w", "Description"),
    ]
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Draw a text as a dataset may have it: JSON of any kind, damaged JSON, or bytes."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        depth = draw(st.sampled_from([10, 1000, 100_000]))
        opening = draw(st.sampled_from([b"[", b'{"a":']))
        return opening * depth
    value = draw(st.dictionaries(st.one_of(_keys, st.text(max_size=8)), _values, max_size=5))
    encoded = json.dumps(value).encode()
    encoding = draw(st.sampled_from(["plain", "plain", "bom", "utf-16", "latin-1", "cut"]))
    if encoding == "bom":
        return b"\xef\xbb\xbf" + encoded
    if encoding == "utf-16":
        return encoded.decode().encode("utf-16")
    if encoding == "latin-1":
        return encoded[:-1] + b', "\xe9": "\xe9"}'
    if encoding == "cut":
        return encoded[: draw(st.integers(0, len(encoded)))]
    return encoded


TEXTS = (
    "dataset_description.json",
    "T1w.json",
    "sub-01/anat/sub-01_T1w.json",
    "participants.tsv",
    ".bidsignore",
    "../filter.json",
    "../config.toml",
    "../out/dataset_description.json",
    "../out/descriptions.tsv",
    "../out/.bidsignore",
    "../out/logs/images/sub-01/anat/sub-01_T1w.json",
)


_name = st.one_of(
    st.sampled_from(["sub-01_T1w.nii.gz", "sub-01_T1w.json", "sub-01_acq-%s_T1w.nii.gz"]),
    st.text(min_size=1, max_size=20).map(lambda text: f"sub-01_{text}_T1w.nii.gz".encode()),
    st.binary(min_size=1, max_size=20).map(lambda text: b"sub-01_acq-" + text + b"_T1w.nii"),
    st.binary(min_size=1, max_size=30),
    st.sampled_from([b"sub-01_acq-\x1b[31mred_T1w.nii", b"sub-01_acq-a\nb_T1w.nii.gz"]),
)
_place = st.sampled_from(["", "sub-01", "sub-01/anat", "sub-01/ses-1/anat", "sub-01/anat/old"])


@st.composite
def names(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Draw places and names of files, as bytes that a file system can hold."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(_name)
        name = name.encode() if isinstance(name, str) else name
        name = name.replace(b"/", b"_").replace(b"\0", b"_")[:250]
        if name not in (b".", b".."):
            found.append((draw(_place), name))
    return found
