"""Puts files in place in the derivative dataset, and removes those that are out of date.

The names of the images are in `n4ax_bids.app.job.OutputNames`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.job import FIELD, MASKS, OutputNames
from n4ax_bids.app.machine import presence
from n4ax_bids.io import endings, trees
from n4ax_bids.io.text import read_bytes
from n4ax_bids.methods import METHODS

NAME = "n4ax_bids"
LINK = "raw"


def sidecar_path(image: Path) -> Path:
    """Return the path of the JSON file that describes an image, a table or a text."""
    stem = endings.stem(image.name)
    for ending in (".tsv", ".txt", ".bval", ".bvec"):  # the last two share that of their series
        stem = stem.removesuffix(ending)
    return image.with_name(stem + ".json")


def encode(content: Mapping[str, Any]) -> str:
    """Return JSON text, the same for equal contents; numbers that are not finite become null."""
    return json.dumps(finite(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def require_inside(output_dir: Path, targets: Iterable[Path], *, links: bool = False) -> None:
    """Refuse to write through links that lead out of the output folder.

    Parameters
    ----------
    output_dir : root of the derivative dataset
    targets : files in it
    links : also refuse a target that is itself a link out of the folder; for files that are read
        before they are written. Objects of git-annex belong to the dataset wherever they are

    Raises
    ------
    ValueError
        One line that names the link and its target.
    """
    root, targets = os.path.realpath(output_dir), list(targets)
    for folder in dict.fromkeys(target.parent for target in targets):
        real = os.path.realpath(folder)
        if os.path.commonpath([root, real]) == root:
            continue
        above = [folder, *folder.parents]
        above = above[: above.index(output_dir)] if output_dir in above else above
        link = next((each for each in reversed(above) if each.is_symlink()), folder)
        raise ValueError(
            f"{link}: a link that leads out of the output folder, to {os.path.realpath(link)}; "
            "expected a folder (link the output folder as a whole, or remove the link)"
        )
    for target in targets if links else ():
        real = os.path.realpath(target)
        if os.path.commonpath([root, real]) != root and "/annex/objects/" not in real:
            raise ValueError(
                f"{target}: a link that leads out of the output folder, to {real}; expected a "
                "file (remove the link)"
            )


def _holds(path: Path, data: bytes) -> bool:
    """Return whether a file holds exactly these bytes."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != len(data):
        return False
    try:
        return read_bytes(path, limit=len(data)) == data
    except (OSError, ValueError):  # it has gone, changed, or cannot be read: write it again
        return False


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all; do nothing if it holds the text already."""
    data = text.encode("utf-8")
    if _holds(path, data):
        return
    staged = presence.hidden(path)
    try:
        staged.write_bytes(data)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def publish(files: Iterable[tuple[Path, Path]]) -> None:
    """Move complete files to their final names, in the given order.

    All of them are on the final file system before the first one gets its name, so a full disk
    leaves none of them behind.

    Parameters
    ----------
    files : (current path, final path) of each file
    """
    staged = []
    files = list(files)
    for source, target in files:
        if target.is_dir() and not (trees.is_tree(source) and trees.is_tree(target)):
            raise IsADirectoryError(f"{target}: cannot be written, a folder has this name")
    try:
        for source, target in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            hidden = presence.hidden(target)
            staged.append((hidden, target))
            shutil.move(source, hidden)
        for hidden, target in staged:
            if trees.is_tree(target):  # a folder can be renamed only to a name that is free
                trees.remove(target)
            os.replace(hidden, target)
    finally:
        for hidden, _ in staged:
            if hidden.is_dir():
                shutil.rmtree(hidden, ignore_errors=True)
            else:
                hidden.unlink(missing_ok=True)


def remove_unwanted(outputs: OutputNames, kind: str | None = None) -> None:
    """Remove the field, masks and further images of an earlier run that this run does not write.

    They would not belong to the new corrected image.

    Parameters
    ----------
    outputs : files of this run
    kind : kind of the mask that is written; None for no mask
    """
    for path in outputs.absent:
        path.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)
    if outputs.lattice is None:
        return
    for each in MASKS:
        mask = outputs.mask(each)
        if kind != each:
            mask.unlink(missing_ok=True)
            sidecar_path(mask).unlink(missing_ok=True)
    ours = {output for method in METHODS.values() for output in method.outputs}
    for label, probseg in {(output.label, output.probseg) for output in ours}:
        if label in outputs.further:
            continue
        other = outputs.probseg(label) if probseg else outputs.named(label)
        trees.remove(other)
        sidecar_path(other).unlink(missing_ok=True)
    if outputs.field is None:
        field = outputs.named(FIELD)
        trees.remove(field)
        sidecar_path(field).unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """Return a value for JSON: None for a number that is not finite, text for a path."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    return value
