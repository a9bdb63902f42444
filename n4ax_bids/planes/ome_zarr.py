"""OME-Zarr images, versions 0.4 and 0.5, by slabs; a pyramid is written with the image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.planes.base import partial_name

MM = {
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "nanometer": 1e-6,
    "centimeter": 10.0,
    "meter": 1e3,
    "angstrom": 1e-7,
}
"""mm per unit of an axis"""
SMALLEST = 64
"""rows or columns below which no further level is made"""


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr array or group."""
    return any((path / name).exists() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"))


class ZarrSource:
    """The finest level of an OME-Zarr image, or a plain Zarr array of three axes."""

    def __init__(self, path: Path) -> None:
        import zarr

        self.name, self._path = str(path), path
        self.zooms: tuple[float, float, float] | None = None
        self.image: dict[str, Any] | None = None
        """the multiscales entry; None for a plain array"""
        try:
            node = zarr.open(path, mode="r")
        except Exception as error:
            raise ValueError(f"{path}: cannot be read ({_line(error)})") from error
        self.version = "0.5"
        if isinstance(node, zarr.Group):
            self.version, self.image = _multiscales(path, dict(node.attrs))
            array = self._finest(node)
        else:
            array = node
        self.array: Any = array
        self.lead = array.shape[:-3]
        if array.ndim < 3 or any(n != 1 for n in self.lead):
            raise ValueError(
                f"{path}: shape {array.shape}; expected planes, rows and columns, and one channel "
                "and time"
            )
        self.shape = (int(array.shape[-3]), int(array.shape[-2]), int(array.shape[-1]))
        self.dtype = np.dtype(array.dtype)
        if self.dtype.kind not in "iuf":
            raise ValueError(f"{path}: values of type {self.dtype}; expected real numbers")

    def _finest(self, group: Any) -> Any:
        assert self.image is not None
        first = self.image["datasets"][0]
        names = [axis["name"] for axis in self.image["axes"]]
        if names[-3:] != ["z", "y", "x"]:
            raise ValueError(f"{self._path}: axes {', '.join(names)}; expected z, y, x at the end")
        scale = first["coordinateTransformations"][0]["scale"]
        units = [MM.get(axis.get("unit", "millimeter"), 1.0) for axis in self.image["axes"]]
        z, y, x = (float(s) * unit for s, unit in zip(scale[-3:], units[-3:], strict=True))
        self.zooms = (z, y, x)
        try:
            return group[first["path"]]
        except KeyError:
            raise ValueError(f"{self._path}: level {first['path']} is missing") from None

    @property
    def slab(self) -> int:
        """Planes of a chunk: reading other numbers decompresses chunks more than once."""
        return int(self.array.chunks[-3])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes; a chunk that is damaged is refused."""
        try:
            return np.asarray(self.array[(0,) * len(self.lead) + (slice(start, stop),)])
        except Exception as error:
            raise ValueError(
                f"{self.name}: planes {start} to {stop - 1} cannot be read, a chunk is damaged "
                f"({_line(error)})"
            ) from error

    def notes(self) -> tuple[str, ...]:
        """Name what has no file: programs leave out chunks of 0, but a chunk may also be lost."""
        outer = getattr(self.array, "shards", None) or self.array.chunks
        grid = [-(-n // c) for n, c in zip(self.array.shape, outer, strict=True)]
        folder = self._path / self.array.path
        keys = (self.array.metadata.encode_chunk_key(place) for place in np.ndindex(*grid))
        missing = [key for key in keys if not (folder / key).exists()]
        if not missing:
            return ()
        return (
            f"{self.name}: {len(missing)} of {int(np.prod(grid))} chunks have no file and read as "
            f"{self.array.fill_value}, the first is {self.array.path}/{missing[0]}".replace(
                "//", "/"
            ),
        )


def _multiscales(path: Path, attributes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return version and multiscales entry, checked against the specification's models."""
    import yaozarrs

    ome = attributes.get("ome", attributes)
    try:
        yaozarrs.validate_ome_object(ome if "version" in ome else attributes)
        image = ome["multiscales"][0]
    except Exception as error:
        raise ValueError(f"{path}: is no OME-Zarr image ({_line(error)})") from error
    version = str(ome.get("version", image.get("version", "0.4")))
    return ("0.5" if version.startswith("0.5") else "0.4"), image


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


class ZarrSink:
    """An OME-Zarr image in float32 with a pyramid, under a name that ends in .partial.

    Chunks and shards are those of the source if that is Zarr. Each level has half the rows and
    columns of the one before, and half the planes where those are no farther apart than pixels.
    """

    resumable = True

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

        self.made, self._part, self._zooms = path, partial_name(path), zooms
        self._version = version or (like.version if like else "0.5")
        self._like = like
        lead = like.lead if like else ()
        self._lead = (0,) * len(lead)
        chunks = like.array.chunks if like else (1, min(shape[1], 1024), min(shape[2], 1024))
        shards = getattr(like.array, "shards", None) if like else None
        form: Any = 3 if self._version == "0.5" else 2
        self._group: Any
        self._array: Any
        if resume_at and self._part.exists():
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

    @property
    def slab(self) -> int:
        """Planes of a chunk or shard; slabs that begin elsewhere would write one twice."""
        return int((getattr(self._array, "shards", None) or self._array.chunks)[-3])

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        self._array[(*self._lead, slice(start, start + len(planes)))] = planes

    def flush(self) -> None:
        """Chunks are complete once they are written."""

    def close(self) -> None:
        """Make the pyramid, describe it, and give the image its name."""
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
        self._describe(datasets)
        os.replace(self._part, self.made)

    def _axes(self) -> list[dict[str, str]]:
        if self._like is not None and self._like.image is not None:
            return list(self._like.image["axes"])
        return [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]

    def _halved(self, array: Any, name: str, factors: np.ndarray) -> Any:
        """Write the next level: means of blocks, a few planes at a time."""
        new = [max(1, n // f) for n, f in zip(array.shape[-3:], factors, strict=True)]
        lead = array.shape[:-3]
        form = 3 if self._version == "0.5" else 2
        chunks = (
            *array.chunks[:-3],
            *(min(c, n) for c, n in zip(array.chunks[-3:], new, strict=True)),
        )
        made = self._group.create_array(
            name, shape=(*lead, *new), dtype="float32", chunks=chunks, **_names(form, len(lead))
        )
        step = max(1, int(chunks[-3]))
        fz, fy, fx = (int(f) for f in factors)
        for start in range(0, new[0], step):
            stop = min(start + step, new[0])
            part = np.asarray(array[(*self._lead, slice(start * fz, stop * fz))])
            part = part[:, : new[1] * fy, : new[2] * fx]
            blocks = part.reshape(stop - start, -1, new[1], fy, new[2], fx)
            made[(*self._lead, slice(start, stop))] = blocks.mean(axis=(1, 3, 5))
        return made

    def _describe(self, datasets: list[dict[str, Any]]) -> None:
        import yaozarrs

        image = {
            "name": self.made.name.split(".")[0],
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
