"""One image to correct, the names of its output files, and the result of a query."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids.io import endings
from n4ax_bids.io.atomic import longest_name, n_bytes, shortened

CORRECTED = "image divided by its estimated bias field"
FIELD, LATTICE = "biasfield", "biaslattice"
DESCRIPTIONS = {
    FIELD: "estimated bias field",
    LATTICE: "B-spline control points of the natural logarithm of the bias field",
}
"""Labels of the desc entity and their meanings; the user chooses the corrected image's label."""
MASKS = {
    "brain": "mask of the brain that was found in the image, where the field was estimated",
    "head": "mask of the head that was found in the image, where the field was estimated",
    "otsu": "voxels above Otsu's threshold, where the field was estimated",
}
"""Labels of the masks that `--save-mask` writes: the kinds of mask, and their meanings."""
ROOT_PAGE, RESERVED = "images", ("group", "logs")
"""the page of images that lie in no folder, and names of folders that cannot name a page"""
BEHIND_SPACE = ("split", "recording", "chunk")
"""entities of an image that follow the entity space in BIDS names"""


@dataclass(frozen=True)
class OutputNames:
    """Absolute final names of the files that are made from one source image."""

    stem: str
    corrected: Path
    field: Path | None
    """None if the field is not wanted as an image"""
    lattice: Path | None
    """None if the method estimates no field"""
    problem: str | None = None
    """why the file system does not allow these names, or None; if it is set, the names are
    shortened, so that entries and files of the log can use them"""
    masks: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """the name of the mask for each kind of mask that may be found; only one of them is written.
    Empty if no mask is wanted"""
    further: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """files that only this method makes, by their labels"""
    absent: tuple[Path, ...] = ()
    """files that the method makes with other options only; those of an earlier run are removed"""
    is_bids: bool = True
    """whether names follow BIDS; otherwise labels are added at the end of the source's name"""

    @property
    def images(self) -> tuple[Path, ...]:
        """The images; if the corrected one exists, all others exist too."""
        fixed = (self.corrected, self.field, self.lattice)
        return (*filter(None, fixed), *self.further.values())

    def named(self, label: str) -> Path:
        """Return the name of an image that is made from the source, by its label."""
        ending = endings.split(self.corrected.name)[1]
        return self.corrected.with_name(_labelled(self.stem, label, ending, self.is_bids))

    def mask(self, kind: str) -> Path:
        """Return the name of a mask of the source, by its kind."""
        return self.corrected.with_name(mask_name(self.stem, kind, self.is_bids))

    def probseg(self, label: str) -> Path:
        """Return the name of a map of a tissue's probability, by its label."""
        return self.corrected.with_name(probseg_name(self.stem, label, self.is_bids))

    @classmethod
    def of(
        cls,
        relative: PurePath,
        output_dir: Path,
        *,
        desc: str = "biascorr",
        bias_field: bool = True,
        masks: Iterable[str] = (),
        further: Iterable[str] = (),
        probsegs: Iterable[str] = (),
        is_bids: bool = True,
    ) -> OutputNames:
        """Build the names from the source's own name, so that every entity is kept.

        Parameters
        ----------
        relative : name of the source in its dataset
        output_dir : root of the derivative dataset
        desc : label of the corrected image
        bias_field : whether the field is written as an image
        masks : kinds of mask that may be found, if the mask is written
        further : labels of images that only this method makes
        probsegs : those of them that are maps of a tissue's probability
        is_bids : whether the source has a name of BIDS
        """
        stem, ending = endings.split(relative.name)
        written = endings.WRITTEN.get(ending, ending) or ".nii.gz"
        lattice = endings.LATTICES if ending in endings.PLANES else written

        def path(label: str) -> Path:
            end = lattice if label == LATTICE else written
            return output_dir / relative.parent / _labelled(stem, label, end, is_bids)

        kinds, labels, tissues = tuple(masks), tuple(further), set(probsegs)
        names = [path(label).name for label in (desc, LATTICE, *labels)]
        names += [mask_name(stem, kind, is_bids) for kind in kinds]
        names += [probseg_name(stem, label, is_bids) for label in tissues]
        problem = too_long(max(names, key=n_bytes), output_dir)
        if problem:
            stem = short_stem(stem)
        folder = output_dir / relative.parent
        return cls(
            stem,
            path(desc),
            path(FIELD) if bias_field else None,
            path(LATTICE),
            problem,
            {kind: folder / mask_name(stem, kind, is_bids) for kind in kinds},
            {
                label: folder / probseg_name(stem, label, is_bids)
                if label in tissues
                else path(label)
                for label in labels
            },
            is_bids=is_bids,
        )


def _labelled(stem: str, label: str, ending: str, is_bids: bool = True) -> str:
    if not is_bids:
        return f"{stem}_{label}{ending}"
    entities, _, suffix = stem.rpartition("_")
    return f"{entities}_desc-{label}_{suffix}{ending}"


def mask_name(stem: str, kind: str, is_bids: bool = True) -> str:
    """Return the name of a mask of an image.

    The suffix of a mask is "mask", so the image's suffix becomes the space. This distinguishes the
    masks of a T1w and a T2w image, and `-d` finds the mask of an image by it.

    Parameters
    ----------
    stem : the image's name without extension
    kind : key of `MASKS`
    is_bids : whether the image has a name of BIDS
    """
    if not is_bids:
        return f"{stem}_{kind}mask.nii.gz"
    return "_".join([*_in_space(stem), f"desc-{kind}", "mask.nii.gz"])


def probseg_name(stem: str, label: str, is_bids: bool = True) -> str:
    """Return the name of a map of a tissue's probability, with the image's suffix as the space.

    Parameters
    ----------
    stem : the image's name without extension
    label : the tissue, such as "GM"
    is_bids : whether the image has a name of BIDS
    """
    if not is_bids:
        return f"{stem}_{label}probseg.nii.gz"
    return "_".join([*_in_space(stem), f"label-{label}", "probseg.nii.gz"])


def _in_space(stem: str) -> list[str]:
    """Return the entities of an image's name, with its suffix as the entity space."""
    *entities, suffix = stem.split("_")
    before = [each for each in entities if each.split("-")[0] not in BEHIND_SPACE]
    behind = [each for each in entities if each not in before]
    return [*before, f"space-{suffix}", *behind]


def short_stem(stem: str) -> str:
    """Return a shorter name for an image whose own name is too long for the file system."""
    digest = digest_of(stem)
    start, _, suffix = stem.rpartition("_")
    return f"{shortened(start[::-1], 100)[::-1]}-{digest}_{shortened(suffix, 20)}"


def digest_of(name: str) -> str:
    """Return eight characters that distinguish names."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def page_of(relative: str) -> str:
    """Return the name of the page that shows an image: its first folder, such as "sub-01".

    Parameters
    ----------
    relative : path of the image in its dataset or folder
    """
    first, *below = PurePath(relative).parts
    return first if below and first not in RESERVED else ROOT_PAGE


def too_long(name: str, folder: Path) -> str | None:
    """Return why the file system does not allow the name of an output, or None if it does."""
    most = longest_name(folder)
    if n_bytes(name) <= most:
        return None
    return (
        f"its output {name} would have a name of {n_bytes(name)} bytes, and the file system of "
        f"{folder} takes {most}; expected a shorter name of the image"
    )


@dataclass(frozen=True)
class Job:
    """One image to correct.

    Parameters
    ----------
    source : the image, absolute
    relative : path of the image in the dataset, with "/", as in a BIDS URI
    outputs : absolute final names of what is made from it
    entities : BIDS entities of the source's name
    sidecars : JSON files that describe the source, from the dataset's root downwards
    mask, weight : files of other pipelines, absolute
    problem : the reason if the names of files already show that it cannot be corrected
    mask_transform, weight_transform : transform files of other pipelines from the source to the
        mask and the weight, absolute
    volumes : numbers of the volumes of a series that are taken; None for all
    texts : other text files that decide the outputs, such as a list of b-values, absolute
    reference : the image whose field it gets; None for an image that gets its own
    unique_name : the name in logs and of figures, if the rule for BIDS names does not apply
    """

    source: Path
    relative: str
    outputs: OutputNames
    entities: Mapping[str, Any]
    sidecars: tuple[Path, ...]
    mask: Path | None = None
    weight: Path | None = None
    problem: str | None = None
    mask_transform: Path | None = None
    weight_transform: Path | None = None
    volumes: tuple[int, ...] | None = None
    texts: tuple[Path, ...] = ()
    unique_name: str = ""
    reference: Job | None = None

    @property
    def name(self) -> str:
        """The source's name without extension, made unique among the participant's images.

        BIDS repeats the labels of the folders in the name of a file. If a name lacks them, two
        sessions may have files of the same name; then the session and a digest are added.
        """
        if self.unique_name:
            return self.unique_name
        stem, (subject, *above, _) = self.outputs.stem, PurePath(self.relative).parts
        session = next((part for part in above if part.startswith("ses-")), None)
        rest = stem.removeprefix(f"{subject}_")
        if rest != stem and (session is None or f"_{session}_" in stem):
            return stem
        digest = digest_of(self.relative)
        return f"{subject}_{(session or 'file')[:20]}-{digest}_{rest}"


@dataclass(frozen=True)
class Selection:
    """The result of a query: the jobs, and (file, reason) for each image that was left out."""

    jobs: tuple[Job, ...]
    skipped: tuple[tuple[str, str], ...]
    applied: tuple[Job, ...] = ()
    """images that get the field of one of the jobs"""

    @property
    def everything(self) -> tuple[Job, ...]:
        """All jobs; those that need the field of another come last."""
        return self.jobs + self.applied
