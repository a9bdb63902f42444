"""OME-Zarr images, versions 0.4 and 0.5, written by slabs, with a pyramid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.planes.base import partial_name
from n4ax_bids.planes.ome_zarr import MM, ZarrSource, at_once

SMALLEST = 64
"""rows or columns below which no further level is made"""


class ZarrSink:
    """An OME-Zarr image in float32 with a pyramid, under a name that ends in .partial.

    Chunks and shards are those of the source if that is Zarr. Each level has half the rows and
    columns of the one before, and half the planes where those are no farther apart than pixels.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        zooms: tuple[float, float, float],
        like: ZarrSource | None = None,
        *,
        version: str | None = None,
        resume_at: int = 0,
    ) -> None:
        import zarr

        self._path, self._part, self._zooms = path, partial_name(path), zooms
        self._version = version or (like.version if like else "0.5")
        self._like = like
        lead = like.lead if like else ()
        self._lead = (0,) * len(lead)
        chunks = like.array.chunks if like else (1, min(shape[1], 1024), min(shape[2], 1024))
        shards = getattr(like.array, "shards", None) if like else None
        form: Any = 3 if self._version == "0.5" else 2
        self._group: Any
        self._array: Any
        self._at_once: dict[str, int] = {}
        if resume_at:
            self._group = zarr.open_group(self._part, mode="r+")
            self._array = self._group["0"]
            return
        self._group = zarr.open_group(self._part, mode="w", zarr_format=form)
        self._array = self._group.create_array(
            "0",
            shape=(*lead, *shape),
            dtype="float32",
            chunks=chunks,
            shards=shards if form == 3 else None,
            **_names(form, len(lead)),
        )

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        import zarr

        with zarr.config.set(self._at_once):
            self._array[(*self._lead, slice(start, start + len(planes)))] = planes

    def limit(self, n_bytes: float) -> None:
        """Limit the memory that writing takes besides the planes themselves."""
        self._at_once = at_once(self._array, n_bytes)

    def flush(self) -> None:
        """Chunks are complete once they are written."""

    def close(self) -> None:
        """Make the pyramid, describe it, and give the image its name."""
        import zarr

        with zarr.config.set(self._at_once):
            self._describe(self._pyramid())
        os.replace(self._part, self._path)

    def _pyramid(self) -> list[dict[str, Any]]:
        """Write the coarser levels; return the descriptions of all levels."""
        datasets, array, zooms = [], self._array, np.array(self._zooms)
        units = np.array([MM.get(a.get("unit", "millimeter"), 1.0) for a in self._axes()[-3:]])
        first = np.zeros(3)
        for level in range(100):
            datasets.append(_dataset(str(level), zooms / units, first / units, len(self._lead)))
            n = np.array(array.shape[-3:])
            factors = np.array(
                [2 if zooms[0] * 2 <= zooms[1:].min() * 2.5 and n[0] > 1 else 1, 2, 2]
            )
            if min(n[1:]) < 2 * SMALLEST:
                break
            array = self._halved(array, str(level + 1), factors)
            first = first + zooms * (factors - 1) / 2
            zooms = zooms * factors
        return datasets

    def _axes(self) -> list[dict[str, str]]:
        if self._like is not None and self._like.image is not None:
            return list(self._like.image["axes"])
        return [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]

    def _halved(self, array: Any, name: str, factors: np.ndarray) -> Any:
        """Write the next level: means of blocks, one chunk after the other."""
        new = [max(1, n // f) for n, f in zip(array.shape[-3:], factors, strict=True)]
        lead = array.shape[:-3]
        form = 3 if self._version == "0.5" else 2
        chunks = (
            *array.chunks[:-3],
            *(min(c, n) for c, n in zip(array.chunks[-3:], new, strict=True)),
        )
        made = self._group.create_array(
            name,
            shape=(*lead, *new),
            dtype="float32",
            chunks=chunks,
            overwrite=True,  # what a run left that ended while it made the pyramid
            **_names(form, len(lead)),
        )
        steps = chunks[-3:]
        for place in np.ndindex(*(-(-n // c) for n, c in zip(new, steps, strict=True))):
            ends = [
                (k * c, min((k + 1) * c, n)) for k, c, n in zip(place, steps, new, strict=True)
            ]
            made[(*self._lead, *(slice(*each) for each in ends))] = self._means(
                array, ends, factors
            )
        return made

    def _means(self, array: Any, ends: list[tuple[int, int]], factors: np.ndarray) -> np.ndarray:
        """Return the means of the blocks that are voxels of a box in the next level."""
        box = [slice(a * f, b * f) for (a, b), f in zip(ends, factors.tolist(), strict=True)]
        part = np.asarray(array[(*self._lead, *box)])
        counts = (n for (a, b), f in zip(ends, factors, strict=True) for n in (b - a, f))
        means: np.ndarray = part.reshape(*counts).mean(axis=(1, 3, 5))
        return means

    def _describe(self, datasets: list[dict[str, Any]]) -> None:
        import yaozarrs

        image = {
            "name": self._path.name.split(".")[0],
            "axes": self._axes(),
            "datasets": datasets,
            "type": "mean",
        }
        if self._version == "0.5":
            ome: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
            yaozarrs.validate_ome_object(ome)
            self._group.attrs.update({"ome": ome})
        else:
            attributes = {"multiscales": [{**image, "version": "0.4"}]}
            yaozarrs.validate_ome_object(attributes)
            self._group.attrs.update(attributes)

    def stop(self) -> None:
        """Leave the unfinished image under its name."""


def _names(form: int, n_lead: int) -> dict[str, Any]:
    """Return what Zarr 3 needs to know about axes, and what OME-Zarr 0.4 about chunks' names."""
    if form == 2:
        return {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    names = ["t", "c"][2 - n_lead :] if n_lead else []
    return {"dimension_names": [*names, "z", "y", "x"]}


def _dataset(path: str, zooms: np.ndarray, first: np.ndarray, n_lead: int) -> dict[str, Any]:
    """Describe a level: its scale, and where the centre of its first voxel lies."""
    scale = [1.0] * n_lead + zooms.tolist()
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if first.any():
        translation = [0.0] * n_lead + first.tolist()
        transforms.append({"type": "translation", "translation": translation})
    return {"path": path, "coordinateTransformations": transforms}
