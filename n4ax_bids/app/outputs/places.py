"""Decides where a run may write, and refuses folders where it would damage a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from n4ax_bids.app.job import CORRECTED
from n4ax_bids.app.machine import presence
from n4ax_bids.app.machine.presence import Presence
from n4ax_bids.app.outputs import derivatives, root_files
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.text import read_json, read_text

OF_LOGS = ("images", "claims", "skipped")
"""folders in `logs` that a run writes to"""
AT_THE_ROOT = ("dataset_description.json", ".bidsignore", "descriptions.tsv")
"""files that a run reads and writes again"""


def check_places(request: Request) -> None:
    """Refuse an output or work folder where the run would damage a dataset.

    Raises
    ------
    Refusal
        One line that names the folder and a better place.
    """
    if request.is_bids:
        _check_dataset(request)
    try:
        inside = [request.output_dir / "logs" / name for name in ("", *OF_LOGS)]
        derivatives.require_inside(request.output_dir, [folder / "x" for folder in inside])
        texts = [request.output_dir / name for name in (*AT_THE_ROOT, root_files.MARK)]
        derivatives.require_inside(request.output_dir, texts, links=True)
    except ValueError as error:
        raise Refusal(Status.USAGE, str(error)) from error
    out = request.output_dir.resolve()
    _check_kind(out, request)
    if request.is_bids:
        _check_description(out / "dataset_description.json")
        _check_labels(out / "descriptions.tsv", request.desc)


def _check_kind(out: Path, request: Request) -> None:
    """Refuse a dataset in the output folder of `n4ax-files`, and the reverse."""
    has_dataset = os.path.lexists(out / "dataset_description.json")
    if not request.is_bids and has_dataset:
        why = "holds a BIDS dataset; expected a folder for the outputs of n4ax-files alone"
    elif request.is_bids and os.path.lexists(out / root_files.MARK):
        why = "holds outputs of n4ax-files; expected an empty folder or one of n4ax-bids"
    else:
        return
    raise Refusal(Status.USAGE, f"{out}: the output folder {why}")


def _check_dataset(request: Request) -> None:
    """Refuse an output or work folder that lies in the input dataset, or around it."""
    raw, out = request.bids_dir.resolve(), request.output_dir.resolve()
    if out == raw:
        raise Refusal(Status.USAGE, f"{out}: the output folder is the input dataset itself")
    if raw in out.parents and raw / "derivatives" not in out.parents:
        raise Refusal(
            Status.USAGE,
            f"{out}: the output folder lies inside the input dataset; expected a place outside "
            f"it or {raw / 'derivatives' / derivatives.NAME}",
        )
    if out in raw.parents and out / "sourcedata" not in (raw, *raw.parents):
        raise Refusal(Status.USAGE, f"{out}: the output folder contains the input dataset {raw}")
    work = request.work_dir.resolve() if request.work_dir else out
    if (work == raw or raw in work.parents) and out not in (work, *work.parents):
        raise Refusal(Status.USAGE, f"{work}: the work folder lies inside the input dataset")


def check_folders(request: Request) -> None:
    """Refuse a file in the place of a folder that is needed; a missing folder is fine.

    Raises
    ------
    Refusal
        One line that names the file, which may be a parent of the folder.
    """
    places = {
        "the output folder": request.output_dir,
        "a folder for unfinished files (-w)": request.work_dir,
        "a folder for the index (--bids-database-dir)": request.bids_database_dir,
    }
    for what, path in places.items():
        for each in (path, *path.parents) if path else ():
            if each.is_dir():
                break
            kind = "a file" if each.exists() else "a link to what is not there"
            if each == path and each.exists():
                raise Refusal(Status.USAGE, f"{path}: {kind}; expected {what}")
            if os.path.lexists(each):
                why = f"{each}: {kind}; expected a folder for {path}"
                raise Refusal(Status.CANNOT_WRITE, why)


def _check_description(path: Path) -> None:
    try:
        made_by = read_json(path)["GeneratedBy"][0]["Name"]
    except FileNotFoundError:
        return
    except ValueError as error:
        raise Refusal(Status.USAGE, str(error)) from error
    except (LookupError, TypeError):
        made_by = None
    if made_by != derivatives.NAME:
        raise Refusal(
            Status.USAGE,
            f"{path.parent}: the output folder holds another dataset, made by "
            f"{made_by or 'an unknown program'}; expected an empty folder or our own",
        )


def _check_labels(path: Path, desc: str) -> None:
    """Refuse a second label for corrected images, because field and lattice exist only once."""
    try:
        lines = read_text(path, skip_mark=True).splitlines()
    except FileNotFoundError:
        return
    except ValueError as error:
        raise Refusal(Status.USAGE, str(error)) from error
    rows = (line.split("\t") for line in lines)
    there = [row[0].removeprefix("desc-") for row in rows if row[1:] == [CORRECTED]]
    if there and desc not in there:
        raise Refusal(
            Status.USAGE,
            f"{path.parent}: the output folder holds images with --desc {there[0]}; expected the "
            f"same label or another folder, because the fields there belong to them",
        )


@contextmanager
def at_work(request: Request) -> Iterator[tuple[Presence, Path]]:
    """Register the run in the output folder; yield its presence and a folder for unfinished files.

    Removes what killed runs have left in these folders.

    Raises
    ------
    Refusal
        If a folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            here, work = stack.enter_context(
                presence.at_work(request.output_dir, request.work_dir)
            )
        except OSError as error:
            raise _cannot_write(Path(error.filename or request.output_dir), error) from error
        for own in dict.fromkeys((here.folder, work)):
            everything = request.clean_workdir and own == work
            presence.remove_leftovers(own.parent, own, everything=everything)
        yield here, work


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing in the block into a refusal."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> Refusal:
    return Refusal(Status.CANNOT_WRITE, f"{path}: cannot write here: {error.strerror or error}")
