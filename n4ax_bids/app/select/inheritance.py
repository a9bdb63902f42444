"""Finds the JSON files that describe an image, by their names and folders."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.app.select.segmentations import parse, within
from n4ax_bids.io import endings

NOT, BY_NUMBER, EXACT = range(3)
"""how the labels of a sidecar agree with those of an image"""
IMAGES = (*endings.NIFTI, *endings.PLANES)

Sidecars = Mapping[Path, list[tuple[Path, ItemsView[str, Any]]]]
"""for each folder, the path and the entities of each sidecar in it"""


def by_folder(sidecars: Iterable[Any]) -> Sidecars:
    """Return the path and the entities of each sidecar of an index, by its folder."""
    folders: dict[Path, list[tuple[Path, ItemsView[str, Any]]]] = defaultdict(list)
    for sidecar in sidecars:
        entities = {key: value for key, value in sidecar.entities.items() if key != "extension"}
        path = Path(sidecar.relpath)
        folders[path.parent].append((path, entities.items()))
    return folders


def inherited(
    bids_dir: Path, relative: Path, entities: Mapping[str, Any], sidecars: Sidecars
) -> tuple[Path, ...]:
    """Return the sidecars in the image's folder and above it whose entities the image has too."""
    found = [
        (len(folder.parts), len(own), likeness, path)
        for folder in relative.parents
        for path, own in sidecars.get(folder, ())
        if own <= entities.items()
        and is_of(path.name, relative.name)
        and (likeness := _likeness(path, relative, bids_dir))
    ]
    exact = {each[:2] for each in found if each[2] == EXACT}
    found = [each for each in found if each[2] == EXACT or each[:2] not in exact]
    # The index holds no folders; if a folder has the name of a sidecar, reading it reports this.
    names = (Path(f"{entities['suffix']}.json"), relative.with_name(_stem(relative) + ".json"))
    folders = [bids_dir / name for name in names if (bids_dir / name).is_dir()]
    return (*(bids_dir / path for *_, path in sorted(found)), *folders)


def _likeness(sidecar: Path, image: Path, bids_dir: Path) -> int:
    """Return how well the labels of a sidecar agree with an image; pybids compares only numbers.

    A sidecar of run-01 also describes run-1, unless there is an image run-01, to which it belongs.
    """
    wanted, name = parse(sidecar.name).entities, image.name
    for key, label in parse(image.name).entities.items():
        if wanted.get(key, label) != label:
            name = re.sub(rf"(?<![^_]){key}-[^_.]+", f"{key}-{wanted[key]}", name)
    if name == image.name:
        return EXACT
    stem = _stem(image.with_name(name))
    others = (bids_dir / image.with_name(stem + ending) for ending in IMAGES)
    return NOT if any(map(os.path.lexists, others)) else BY_NUMBER


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def is_of(sidecar: str, image: str) -> bool:
    """Return whether an image has every part of a sidecar's name, as BIDS inheritance requires.

    pybids ignores unknown entities, and takes the participant from the folder even if the name has
    none or another one.
    """
    own, its = parse(sidecar), parse(image)
    parts = sidecar.split(".")[0].split("_")[:-1]
    known = {f"{key}-{value}" for key, value in own.entities.items()}
    return own.suffix == its.suffix and set(parts) == known and within(own.entities, its.entities)


def texts(source: Path, root: Path, ending: str) -> Iterator[Path]:
    """Yield the texts with an ending, such as ".bval", that may belong to a series, nearest first.

    Parameters
    ----------
    source : the series
    root : root of its dataset
    ending : with the dot
    """
    own = source.name.split(".")[0].split("_")
    for folder in source.parents:
        found = [
            path
            for path in sorted(folder.glob(f"*{own[-1]}{ending}"))
            if set(path.name.removesuffix(ending).split("_")) <= set(own) and path.is_file()
        ]
        yield from sorted(found, key=lambda path: -path.name.count("_"))
        if folder == root:
            return


def require_of_dataset(sidecar: Path, source: Path, relative: str) -> None:
    """Refuse a sidecar that is a link out of the dataset, because outputs would repeat its text.

    Links into the object store of git-annex belong to the dataset. If the image is a link as well,
    as in a view of a dataset on another disk, the sidecar may be in the dataset to which the image
    links.

    Parameters
    ----------
    sidecar, source : the file and the image that it describes
    relative : path of the image in the dataset

    Raises
    ------
    ValueError
        One line that names the link and where it leads.
    """
    depth = len(PurePath(relative).parts)
    real = os.path.realpath(sidecar)
    if _is_inside(real, os.path.realpath(source.parents[depth - 1])):
        return
    image = Path(os.path.realpath(source))
    around = image.parents[min(depth, len(image.parents)) - 1]
    around = image.parent if around == Path(around.anchor) else around
    if "/annex/objects/" in real or _is_inside(real, str(around)):
        return
    raise ValueError(
        f"{sidecar}: a link to {real}, which is outside the dataset; expected a file of the "
        "dataset (copy it there if it belongs to the image)"
    )


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))
