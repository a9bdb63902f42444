"""Chooses mask and weight of each image from the derivatives of other pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from n4ax_bids.app.request import Request
from n4ax_bids.app.select.segmentations import Segmentations

WHITE_MATTER = "WM"


class Found(NamedTuple):
    """The files found for an image; `problem` says why it cannot be corrected, if it cannot."""

    mask: Path | None = None
    weight: Path | None = None
    problem: str | None = None
    mask_transform: Path | None = None
    """from the image's space to the mask's space, if a pipeline has averaged several images"""
    weight_transform: Path | None = None


class Masks:
    """The masks and tissue probabilities in the derivatives of a request.

    Parameters
    ----------
    request : the run; its derivatives are read only if mask or weight come from them
    """

    def __init__(self, request: Request) -> None:
        self._wants_mask = request.mask == "derivatives"
        self._weight, self._names = request.weight, ", ".join(request.derivatives)
        self._files = Segmentations(request.derivatives)

    def of(self, image: str) -> Found:
        """Return mask and weight of an image.

        The mask is desc-brain_mask. If there is none, the probability of white matter is the
        weight.

        Parameters
        ----------
        image : name of the image, with or without folders
        """
        try:
            return self._of(image)
        except ValueError as error:
            return Found(problem=str(error))

    def _of(self, image: str) -> Found:
        weight = self._files.probability(image, self._weight) if self._weight else None
        if self._weight and weight is None:
            return Found(problem=f"no label-{self._weight}_probseg of it in {self._names}")
        mask = None
        if self._wants_mask:
            mask = self._files.mask(image)
            if mask is None and weight is None:
                weight = self._files.probability(image, WHITE_MATTER)
            if mask is None and weight is None:
                return Found(
                    problem="no desc-brain_mask and no "
                    f"label-{WHITE_MATTER}_probseg of it in {self._names}"
                )
        return Found(
            mask=mask and mask.path,
            weight=weight and weight.path,
            mask_transform=mask and mask.transform,
            weight_transform=weight and weight.transform,
        )
