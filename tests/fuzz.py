"""Hostile files by the thousand: NIfTI headers, JSON texts and file names, made by hypothesis.

Whatever a file holds, the program answers with an error that names it, in one line, or reads it.
It prints nothing else: neither a warning of Python's nor a line that a library writes to the
terminal past Python. `tests/test_fuzz.py` runs each target on some dozens or hundreds of inputs
that are the same each time. For longer, with other inputs each time:

    python -m tests.fuzz --minutes 60 headers texts names
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from n4ax_bids.app.status import Status

SPECIAL = (0, 1, 2, 127, 128, 255)
DESCRIPTION = {"Name": "fuzz", "BIDSVersion": "1.10.0", "DatasetType": "raw"}


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


def check_header(file: tuple[str, bytes]) -> str:
    """Read a damaged image in every way that the program does; return how that ended."""
    from n4ax_bids.image.demand import axes, memory_needed
    from n4ax_bids.io import geometry, grids, volume
    from n4ax_bids.options import N4Options

    name, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        ended = []
        for read in (
            volume.load_header,
            axes,
            lambda path: memory_needed(path, N4Options(shrink_mm=4)),
            volume.load,
        ):
            ended.append(_told(read, path))
        if ended[-1] == "read":
            image = volume.load(path)
            geometry.read_geometry(path, image.data.ndim)
            geometry.closest_axes(image.affine)
            # An affine with infinite numbers is not the same as itself, which is said.
            _told(lambda path: grids.on_grid(image, image), path)
            volume.save(Path(folder) / "copy.nii", image.data, image)
        return ended[-1]


def _told(read: Callable[[Path], Any], path: Path) -> str:
    """Require that a file is read, or refused in one line that names it."""
    try:
        read(path)
    except (OSError, ValueError) as error:
        message = str(error)
        assert path.name in message, f"the message does not name the file: {message}"
        assert "\n" not in message, f"the message has several lines: {message}"
        return "refused"
    return "read"


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


def check_text(file: tuple[str, bytes]) -> str:
    """Run over a dataset with one text that holds anything; return the exit status' name."""
    name, content = file
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        _make(raw)
        path = Path(os.path.normpath(raw / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        words = [str(raw), str(out), "participant", "--skip-bids-validation"]
        if name.endswith("filter.json"):
            words += ["--bids-filter-file", str(path)]
        if name.endswith("config.toml"):
            words += ["--config-file", str(path)]
        status = _status([*words, "--skip-normalized", "yes", "--dry-run"])
        _write_texts(raw, out)
        return status


def _write_texts(raw: Path, out: Path) -> None:
    """Write what a run writes of a dataset's texts, without a solve."""
    from n4ax_bids.app.outputs import root_files, sidecars
    from n4ax_bids.app.reports import contents
    from n4ax_bids.app.request import Request
    from n4ax_bids.app.select import dataset
    from n4ax_bids.app.status import Refusal

    request = Request(bids_dir=raw, output_dir=out, validate=False)
    out.mkdir(exist_ok=True)
    try:
        description = dataset.read_description(raw)
        selection = dataset.select(request)
        root_files.write(request, description, selection)
    except Refusal:
        return
    for job in selection.jobs:
        try:
            metadata = dataset.read_metadata(job)
        except (OSError, ValueError) as error:
            assert "\n" not in str(error)
            continue
        dataset.notes(job, metadata, request)
        correction = {"mask": "otsu", "notes": (), "lattice": {}, "method": "n4", "details": {}}
        from n4ax_bids.app.outputs.derivatives import encode

        for content in sidecars.of(job, metadata, correction, request).values():
            encode(content).encode("utf-8")
    contents.of_subject("sub-01", request).digest  # noqa: B018


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


def check_names(files: list[tuple[str, bytes]]) -> str:
    """Look at a dataset with files of any name; what is printed has no control characters."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        _make(raw)
        for place, name in files:
            parent = raw / place
            parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError), open(bytes(parent) + b"/" + name, "wb") as file:
                file.write(b"x")
        words = [str(raw), str(out), "participant", "--skip-bids-validation", "--dry-run"]
        return _status(words)


def _make(raw: Path) -> None:
    (raw / "sub-01" / "anat").mkdir(parents=True)
    (raw / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    (raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(b"x")


def _status(words: list[str]) -> str:
    """Run the program; require a status of its list other than that for an internal error."""
    from n4ax_bids.app import cli

    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        printed.flush()
    said = printed.buffer.getvalue().decode("utf-8")
    assert status != Status.INTERNAL, said
    control = [c for c in said if ord(c) < 32 and c != "\n" or 0x7F <= ord(c) < 0xA0]
    assert not control, f"control characters {control!r} in {said!r}"
    return Status(status).name


TARGETS: dict[str, tuple[st.SearchStrategy, Callable[[Any], str]]] = {
    "headers": (nifti_files(), check_header),
    "texts": (st.tuples(st.sampled_from(TEXTS), texts()), check_text),
    "names": (names(), check_names),
}
"""What is fuzzed: inputs, and the check that each has to pass."""


@contextlib.contextmanager
def nothing_printed() -> Iterator[None]:
    """Require that a block writes nothing to the terminal and warns of nothing.

    Libraries in C and C++ write to the file descriptors themselves. Warnings that Python does not
    show to users (of deprecation, of resources) are left out.
    """
    with tempfile.TemporaryFile() as written, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        kept = {number: os.dup(number) for number in (1, 2)}
        for number in kept:
            os.dup2(written.fileno(), number)
        try:
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
        written.seek(0)
        text = written.read()
    assert not text, f"printed: {text[:1000]!r}"
    assert not warned, f"warned: {'; '.join(map(str, warned))}"


def run(target: str, n_examples: int, start: int, until: float = float("inf")) -> Counter[str]:
    """Check a target on drawn inputs; return how many ended in which way.

    Parameters
    ----------
    target : a key of `TARGETS`
    n_examples : number of inputs
    start : seed of the random numbers
    until : time of the monotonic clock, s; inputs that come later are not checked

    Raises
    ------
    Exception
        What the smallest input raises that fails.
    """
    inputs, check = TARGETS[target]
    ended: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=n_examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(inputs)
    def each(value: Any) -> None:
        if time.monotonic() < until:
            with nothing_printed():
                how = check(value)
            ended[how] += 1

    each()
    return ended


def main() -> int:
    """Run targets in turn until the time is over; return 1 if an input has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    sums: dict[str, Counter[str]] = {target: Counter() for target in arguments.targets}
    while time.monotonic() < end:
        for target in arguments.targets:
            start = random.randrange(2**32)
            try:
                sums[target] += run(target, 100, start, end)
            except Exception:
                traceback.print_exc()
                print(f"{target}: failed with seed {start}")
                return 1
    for target, ended in sums.items():
        print(f"{target}: {ended.total()} inputs, {dict(ended.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
