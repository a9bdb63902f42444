"""Masks and tissue probabilities of other pipelines, found for each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from n4ax_bids.app.index import index
from n4ax_bids.app.request import Request

WHITE_MATTER = "WM"
_IMAGES = (".nii", ".nii.gz")
_OF_A_MASK = ("suffix", "extension", "datatype", "desc", "label")
"""entities that say what a mask is, not whose"""


class Found(NamedTuple):
    """What there is for an image; `problem` is why it cannot be corrected."""

    mask: Path | None = None
    weight: Path | None = None
    problem: str | None = None


class Masks:
    """The masks and probabilities in the folders of a request.

    Parameters
    ----------
    request : the run; its derivatives are indexed where mask or weight come from them
    """

    def __init__(self, request: Request) -> None:
        self._wants_mask = request.mask == "derivatives"
        self._weight, self._names = request.weight, ", ".join(request.derivatives)
        self._folders: list[dict[tuple, list]] = []
        if self._wants_mask or self._weight:
            self._folders = [_by_kind(path, request) for path in request.derivatives.values()]

    def of(self, entities: Mapping[str, Any]) -> Found:
        """Return mask and weight of an image.

        A mask is desc-brain_mask; where there is none, the white matter's probability is the
        weight. Its other entities must be those of the image, and the one that shares most of
        them is taken. A space must be the image's own, by the name of its suffix.
        """
        try:
            weight = self._weight and self._one(entities, "probseg", "label", self._weight)
            if self._weight and weight is None:
                return Found(problem=f"no label-{self._weight}_probseg of it in {self._names}")
            mask = None
            if self._wants_mask:
                mask = self._one(entities, "mask", "desc", "brain")
                if mask is None and weight is None:
                    weight = self._one(entities, "probseg", "label", WHITE_MATTER)
                if mask is None and weight is None:
                    return Found(
                        problem="no desc-brain_mask and no "
                        f"label-{WHITE_MATTER}_probseg of it in {self._names}"
                    )
        except ValueError as error:
            return Found(problem=str(error))
        return Found(mask, weight or None)

    def _one(self, entities: Mapping[str, Any], *kind: str) -> Path | None:
        for folder in self._folders:
            fitting = [
                (len(own), path)
                for own, path in folder.get((*kind, entities["subject"]), ())
                if _fits(own, entities)
            ]
            if fitting:
                most = max(n for n, _ in fitting)
                best = sorted(path for n, path in fitting if n == most)
                if len(best) > 1:
                    raise ValueError(f"{best[0]} and {best[1]} are both of it; expected one")
                return best[0]
        return None


def _fits(own: Mapping[str, Any], entities: Mapping[str, Any]) -> bool:
    place = own.get("space")
    if place not in (None, entities["suffix"]):
        return False
    return all(entities.get(name) == value for name, value in own.items() if name != "space")


def _by_kind(folder: Path, request: Request) -> dict[tuple, list]:
    layout = index(folder, participants=request.participants)
    kinds = defaultdict(list)
    files: Iterable[Any] = layout.get(suffix=["mask", "probseg"], extension=list(_IMAGES))
    for file in files:
        entities = dict(file.entities)
        what = "desc" if entities["suffix"] == "mask" else "label"
        if what == "label" and "desc" in entities:
            continue
        own = {name: value for name, value in entities.items() if name not in _OF_A_MASK}
        key = (entities["suffix"], what, entities.get(what), entities.get("subject"))
        kinds[key].append((own, folder / file.relpath))
    return kinds
