"""OME-Zarr images, versions 0.4 and 0.5, and the levels of their pyramids, read by slabs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MM = {
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "nanometer": 1e-6,
    "centimeter": 10.0,
    "meter": 1e3,
    "angstrom": 1e-7,
}
"""mm per unit of an axis"""


BUFFERS = 3
"""copies of a chunk while it is read, changed and written: stored, decoded, merged"""


def at_once(array: Any, n_bytes: float) -> dict[str, int]:
    """Return zarr's setting for how many chunks are in work at a time, within so many bytes."""
    import zarr

    outer = getattr(array, "shards", None) or array.chunks
    chunk = int(np.prod(outer, dtype=np.int64)) * np.dtype(array.dtype).itemsize
    usual = int(zarr.config.get("async.concurrency"))
    return {"async.concurrency": int(max(1, min(usual, n_bytes // (BUFFERS * chunk))))}


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr array or group."""
    return any((path / name).exists() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"))


class ZarrLevel:
    """A level of an OME-Zarr image, or a plain Zarr array, of three axes and leading ones of 1."""

    def __init__(self, path: Path, array: Any, name: str) -> None:
        self.name, self._path, self.array = name, path, array
        self.lead = array.shape[:-3]
        if array.ndim < 3 or any(n != 1 for n in self.lead):
            raise ValueError(
                f"{name}: shape {array.shape}; expected planes, rows and columns, and one channel "
                "and time"
            )
        self.shape = (int(array.shape[-3]), int(array.shape[-2]), int(array.shape[-1]))
        self.dtype = np.dtype(array.dtype)
        if self.dtype.kind not in "iuf":
            raise ValueError(f"{name}: values of type {self.dtype}; expected real numbers")
        self.zooms: tuple[float, float, float] | None = None
        self._at_once: dict[str, int] = {}

    def limit(self, n_bytes: float) -> None:
        """Limit the memory that reading takes besides the planes themselves."""
        self._at_once = at_once(self.array, n_bytes)

    @property
    def slab(self) -> int:
        """Planes of a shard or chunk, which slabs between them would read or write repeatedly."""
        return int((getattr(self.array, "shards", None) or self.array.chunks)[-3])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes; a chunk that is damaged is refused."""
        import zarr

        try:
            with zarr.config.set(self._at_once):
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


class ZarrSource(ZarrLevel):
    """The finest level of an OME-Zarr image, or a plain Zarr array of three axes."""

    def __init__(self, path: Path) -> None:
        import zarr

        self.image: dict[str, Any] | None = None
        """the multiscales entry; None for a plain array"""
        try:
            self._node: Any = zarr.open(path, mode="r")
        except Exception as error:
            raise ValueError(f"{path}: cannot be read ({_line(error)})") from error
        self.version, self._path = "0.5", path
        array, zooms = self._node, None
        if isinstance(self._node, zarr.Group):
            self.version, self.image = _multiscales(path, dict(self._node.attrs))
            array, zooms = self._finest(self.image)
        super().__init__(path, array, str(path))
        self.zooms = zooms

    def _finest(self, image: dict[str, Any]) -> tuple[Any, tuple[float, float, float]]:
        names = [axis["name"] for axis in image["axes"]]
        if names[-3:] != ["z", "y", "x"]:
            raise ValueError(f"{self._path}: axes {', '.join(names)}; expected z, y, x at the end")
        first = image["datasets"][0]
        units = [self._mm(axis) for axis in image["axes"][-3:]]
        z, y, x = (float(size) for size in _placed(image, first)[0] * units)
        if not all(0 < size < np.inf for size in (z, y, x)):
            raise ValueError(
                f"{self._path}: voxels of {z:g}, {y:g}, {x:g} mm; expected positive sizes"
            )
        try:
            return self._node[first["path"]], (z, y, x)
        except KeyError:
            raise ValueError(f"{self._path}: level {first['path']} is missing") from None

    def _mm(self, axis: dict[str, Any]) -> float:
        """Return the mm of an axis's unit; without a unit, numbers count as mm."""
        unit = axis.get("unit") or "millimeter"
        if unit not in MM:
            known = ", ".join(MM)
            raise ValueError(
                f"{self._path}: unit {unit} of axis {axis['name']}; expected one of {known}"
            )
        return MM[unit]

    def levels(self) -> tuple[Level, ...]:
        """Return the coarser levels of the pyramid.

        Levels that are missing are left out, and those whose voxels do not hold a whole number of
        this image's voxels on each axis.
        """
        found = []
        for described in self.image["datasets"][1:] if self.image else ():
            assert self.image is not None
            size, first = _placed(self.image, self.image["datasets"][0])
            its_size, its_first = _placed(self.image, described)
            try:
                array = self._node[described["path"]]
                level = ZarrLevel(self._path, array, f"{self._path}/{described['path']}")
            except (KeyError, ValueError):
                continue
            factors = np.rint(its_size / size)
            # At the far end, a voxel must lie where whole numbers put it, within half its size.
            drift = np.abs(its_size / size - factors) * level.shape
            most = -(-np.array(self.shape) // np.maximum(factors, 1))
            whole = (factors >= 1) & (drift <= factors / 2)
            if (whole & (level.shape <= most) & (level.shape >= most - 1)).all():
                a, b, c = (int(factor) for factor in factors)
                z, y, x = (float(place) for place in (its_first - first) / size)
                found.append(Level(level, (a, b, c), (z, y, x)))
        return tuple(found)


class Level(NamedTuple):
    """A coarser level of a pyramid, and where it lies."""

    source: ZarrLevel
    factors: tuple[int, int, int]
    """voxels of the finest level on each axis of one of this level"""
    first: tuple[float, float, float]
    """centre of the first voxel, in voxels of the finest level"""


def _placed(image: dict[str, Any], dataset: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the size of a level's voxels and the centre of its first one, in the axes' units."""
    size, first = np.ones(3), np.zeros(3)
    more = image.get("coordinateTransformations") or ()
    for each in (*dataset["coordinateTransformations"], *more):
        if each["type"] == "scale":
            size, first = size * each["scale"][-3:], first * each["scale"][-3:]
        elif each["type"] == "translation":
            first = first + each["translation"][-3:]
    return size, first


def _multiscales(path: Path, attributes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return version and multiscales entry, checked against the specification's models."""
    import yaozarrs

    ome = attributes.get("ome", attributes)
    try:
        yaozarrs.validate_ome_object(ome if "version" in ome else attributes)
        image = ome["multiscales"][0]
    except Exception as error:
        raise ValueError(f"{path}: is no OME-Zarr image ({_fault(error)})") from error
    version = str(ome.get("version", image.get("version", "0.4")))
    if not re.match(r"0\.[1-5](\D|\Z)", version):
        raise ValueError(f"{path}: OME-Zarr version {version}; expected 0.4 or 0.5")
    return ("0.5" if version.startswith("0.5") else "0.4"), image


def _fault(error: Exception) -> str:
    """Return the first thing that the specification's models find wrong with an image."""
    errors: Any = getattr(error, "errors", list)
    for each in errors():
        place = [str(part) for part in each["loc"]]
        if "image" in place:
            where = place[place.index("image") + 1 :]
            return _line(ValueError(f"{'.'.join(where)}: {each['msg']}"))
    return _line(error)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
