"""Finds the masks and segmentations of other pipelines that belong to an image, by their names.

The choice of mask and weight and the report both use this module, so they use the same files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from n4ax_bids.app.select.vocabulary import numbered_keys
from n4ax_bids.arguments import same_number
from n4ax_bids.io.names import why_unfit

OF_THE_FILE = ("desc", "label")
"""entities that say what a segmentation shows, not to which image it belongs"""
REFERENCE = "T1w"
"""the space of a file whose name has none, if a pipeline has averaged several images"""
EXTENSIONS = (".nii", ".nii.gz")


class Name(NamedTuple):
    """A BIDS file name in its parts."""

    entities: Mapping[str, str]
    suffix: str
    extension: str


class Segmentation(NamedTuple):
    """A file of another pipeline that belongs to an image."""

    path: Path
    transform: Path | None
    """ITK transform from the image's space to the file's space, if there is one"""


class Segmentations:
    """The masks, probabilities and labels in folders of other pipelines.

    A file belongs to an image if it has the same participant and the image has all its entities,
    apart from those that say what the file shows. If the file has a space, this must be the
    image's suffix. Of several files, the one that shares most entities with the image is taken.

    Parameters
    ----------
    folders : derivative datasets by name; the first one that has a file is used
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)

    def mask(self, image: str) -> Segmentation | None:
        """Return the brain mask of an image, desc-brain_mask.

        Parameters
        ----------
        image : name of the image, with or without folders

        Raises
        ------
        ValueError
            If two files fit equally well.
        """
        return self._first(image, "mask", desc="brain")

    def probability(self, image: str, label: str) -> Segmentation | None:
        """Return the probability of a tissue, label-<label>_probseg without desc; as `mask`."""
        return self._first(image, "probseg", label=label)

    def labels(self, image: str, root: Path) -> Iterator[Segmentation]:
        """Yield the best dseg file of an image for each desc in one folder, those without first.

        Files with the same desc that fit equally well are ambiguous and left out.
        """
        by_desc: dict[str, list[tuple[Name, Path]]] = {}
        for name, path in _files(root, image):
            if name.suffix == "dseg" and "label" not in name.entities and _fits(name, image):
                by_desc.setdefault(name.entities.get("desc", ""), []).append((name, path))
        for desc in sorted(by_desc):
            best = _nearest(by_desc[desc], image)
            if len(best) == 1:
                yield self._with_transform(root, image, *best[0])

    def _first(self, image: str, suffix: str, **what: str) -> Segmentation | None:
        for root in self.folders.values():
            found = self.within(root, image, suffix, **what)
            if found:
                return found
        return None

    def within(self, root: Path, image: str, suffix: str, **what: str) -> Segmentation | None:
        """Return the file of an image in one folder, by suffix, desc and label; as `mask`."""
        fitting = [
            (name, path)
            for name, path in _files(root, image)
            if name.suffix == suffix
            and {key: name.entities[key] for key in OF_THE_FILE if key in name.entities} == what
            and _fits(name, image)
        ]
        if not fitting:
            return None
        best = _nearest(fitting, image)
        if len(best) > 1:
            paths = sorted(path for _, path in best)
            raise ValueError(f"{paths[0]} and {paths[1]} are both of it; expected one")
        return self._with_transform(root, image, *best[0])

    def _with_transform(self, root: Path, image: str, name: Name, path: Path) -> Segmentation:
        """Add the transform of the image, if the pipeline has averaged several images.

        The name of this transform has all entities of the image.
        """
        wanted = parse(image)
        space = name.entities.get("space", REFERENCE)
        if wanted.suffix != space:
            return Segmentation(path, None)
        of_transform = {"from": "orig", "to": space, "mode": "image"}
        for other, transform in _files(root, image):
            own = dict(other.entities)
            if other.suffix != "xfm" or other.extension not in (".txt", ".tfm", ".mat", ".h5"):
                continue
            if {key: own.pop(key, None) for key in of_transform} != of_transform:
                continue
            if len(own) == len(wanted.entities) and within(own, wanted.entities):
                return Segmentation(path, transform)
        return Segmentation(path, None)


def parse(name: str) -> Name:
    """Split a BIDS file name, with or without folders, into its parts."""
    stem, dot, extension = name.rpartition("/")[2].partition(".")
    *pairs, suffix = stem.split("_")
    found = (re.fullmatch(r"([a-zA-Z0-9]+)-(.+)", pair) for pair in pairs)
    return Name({pair[1]: pair[2] for pair in found if pair}, suffix, dot + extension)


def _fits(name: Name, image: str) -> bool:
    wanted = parse(image)
    if name.extension not in EXTENSIONS:
        return False
    if name.entities.get("space") not in (None, wanted.suffix):
        return False
    skipped = (*OF_THE_FILE, "space")
    own = {key: value for key, value in name.entities.items() if key not in skipped}
    return "sub" in own and within(own, wanted.entities)


def _repeats(name: str) -> bool:
    """Return whether a file name has an entity twice, as in sub-02_sub-01_desc-brain_mask.

    Either label could be meant, so the file belongs to no image.
    """
    keys = [part.partition("-")[0] for part in name.split(".")[0].split("_") if "-" in part]
    return len(set(keys)) < len(keys)


def within(own: Mapping[str, str], entities: Mapping[str, str]) -> bool:
    """Return whether an image has all these entities with the same labels."""
    return all(key in entities and _same(key, value, entities[key]) for key, value in own.items())


def _same(key: str, one: str, other: str) -> bool:
    return one == other or (key in numbered_keys() and same_number(one, other))


def _nearest(files: list[tuple[Name, Path]], image: str) -> list[tuple[Name, Path]]:
    """Return the files that share most entities with the image; run-01 prefers run-01 to run-1."""
    wanted = parse(image).entities.items()
    ranks = [
        (len(set(name.entities) - {*OF_THE_FILE}), len(name.entities.items() & wanted))
        for name, _ in files
    ]
    return [file for file, rank in zip(files, ranks, strict=True) if rank == max(ranks)]


def _files(root: Path, image: str) -> list[tuple[Name, Path]]:
    """Return files of another pipeline that may be of an image: of its session and of all.

    They lie in a folder of the image's own datatype: a mask in `anat` is on another grid than an
    image of `func`, and its name does not say so.
    """
    entities = parse(image).entities
    subject = root / f"sub-{entities.get('sub')}"
    datatype = image.split("/")[-2] if "/" in image else "anat"
    folders = [subject / datatype, subject]  # some tools make no folders of datatypes
    if "ses" in entities:
        session = subject / f"ses-{entities['ses']}"
        folders += [session / datatype, session]
    found, seen = [], set()
    for folder in folders:
        real = os.path.realpath(folder)  # a link may give a folder a second name
        if folder.is_dir() and real not in seen:
            seen.add(real)
            found += _listed(folder, folder.stat().st_mtime_ns)
    return found


@lru_cache(maxsize=8)
def _listed(folder: Path, _: int) -> list[tuple[Name, Path]]:
    """Return the masks, segmentations and transforms in a folder, cached until it changes."""
    return [
        (name, path)
        for path in sorted(folder.iterdir())
        if (name := parse(path.name)).suffix in ("mask", "probseg", "dseg", "xfm")
        and not path.name.startswith(".")
        and not why_unfit(path.name)
        and not _repeats(path.name)
    ]
