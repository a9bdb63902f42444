"""What inputs of `tests.fuzz` have to pass: each is read, or refused in one line with its name."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n4ax_bids.app.status import Status

DESCRIPTION = {"Name": "fuzz", "BIDSVersion": "1.10.0", "DatasetType": "raw"}


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
