"""Which JSON files may describe an image: by the parts of their names, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from n4ax_bids.app.segmentations import parse, within


def is_of(sidecar: str, image: str) -> bool:
    """Tell whether each part of a sidecar's name is in an image's, as BIDS inheritance asks.

    pybids passes over entities that it does not know, and takes the participant from the folder
    where a name has none or another one.
    """
    own, its = parse(sidecar), parse(image)
    parts = sidecar.split(".")[0].split("_")[:-1]
    known = {f"{key}-{value}" for key, value in own.entities.items()}
    return own.suffix == its.suffix and set(parts) == known and within(own.entities, its.entities)


def require_of_dataset(sidecar: Path, source: Path, relative: str) -> None:
    """Refuse a sidecar that is a link to a file of something else: outputs would repeat it.

    Links into the object store of git-annex are of the dataset. Where the image is a link as well,
    as in a view of a dataset on another disk, the sidecar may lie where the image's dataset does.

    Parameters
    ----------
    sidecar, source : the file and the image that it describes
    relative : the image's name from the dataset's root

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
