"""Planes as TIFF or PNG files in a folder, and TIFF files of many pages."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.planes import sizes
from n4ax_bids.planes.base import partial_name

TIFF, PNG = (".tif", ".tiff", ".btf"), (".png",)
OME = (".ome.tif", ".ome.tiff", ".ome.btf")


def planes_in(folder: Path) -> list[Path]:
    """Return the files of the planes in a folder, in the order of the numbers in their names."""
    found = [
        each
        for each in folder.iterdir()
        if each.suffix.lower() in TIFF + PNG and not each.name.startswith(".")
    ]
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[Any, ...]:
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


class PicturesSource:
    """A folder with one file for each plane, or one such file."""

    zooms: tuple[float, float, float] | None = None

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._files = planes_in(folder) if folder.is_dir() else [folder]
        if not self._files:
            raise ValueError(f"{folder}: holds no .tif or .png file; expected one for each plane")
        first = _picture(self._files[0])
        self.shape = (len(self._files), int(first.shape[0]), int(first.shape[1]))
        self.dtype = first.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes."""
        planes = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for k, path in enumerate(self._files[start:stop]):
            plane = _picture(path)
            if plane.shape != self.shape[1:] or plane.dtype != self.dtype:
                raise ValueError(
                    f"{path}: {plane.shape} pixels of type {plane.dtype}; expected "
                    f"{self.shape[1:]} of {self.dtype}, as in {self._files[0].name}"
                )
            planes[k] = plane
        return planes


def _picture(path: Path) -> np.ndarray:
    """Read one plane of grey values."""
    try:
        if path.suffix.lower() in TIFF:
            import tifffile

            plane = np.asarray(tifffile.imread(path))
        else:
            from PIL import Image

            with Image.open(path) as image:
                plane = np.asarray(image)
    except Exception as error:  # the readers do not say which errors a damaged file causes
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if plane.ndim != 2 or plane.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: shape {plane.shape} of type {plane.dtype}; expected one plane of grey values"
        )
    return plane


class TiffSource:
    """One TIFF file with a page for each plane, such as .ome.tif."""

    def __init__(self, path: Path) -> None:
        import tifffile

        self.name, self._path = str(path), path
        self.zooms: tuple[float, float, float] | None = None
        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape, self.dtype = tuple(series.shape), np.dtype(series.dtype)
                self.zooms = sizes.sizes_of(file)
        except Exception as error:
            raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
        shape = (1, *shape) if len(shape) == 2 else shape
        while len(shape) > 3 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) != 3 or self.dtype.kind not in "iuf":
            raise ValueError(
                f"{path}: shape {shape} of type {self.dtype}; expected a page of grey values for "
                "each plane"
            )
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive planes."""
        import tifffile

        try:
            with tifffile.TiffFile(self._path) as file:
                pages: Any = file.series[0].pages
                if len(pages) == self.shape[0]:
                    found = [np.asarray(pages[k].asarray()) for k in range(start, stop)]
                    return np.stack(found).reshape(-1, *self.shape[1:])
                if file.series[0].dataoffset is None:
                    whole: Any = file.series[0].asarray()
                else:  # one page for all planes, as ImageJ writes large stacks
                    whole = tifffile.memmap(self._path, mode="r", series=0)
                return np.array(whole.reshape(self.shape)[start:stop])
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self._path}: planes {start} to {stop - 1} cannot be read ({reason})"
            ) from error


def _is_big(shape: tuple[int, int, int]) -> bool:
    """Return whether float32 planes exceed what a classic TIFF file can hold."""
    return 4 * shape[0] * shape[1] * shape[2] > 3 << 30


class TiffSink:
    """A folder with one float32 TIFF file for each plane, or one file with a page for each."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        zooms: tuple[float, float, float],
        *,
        resume_at: int = 0,
    ) -> None:
        self._path, self._part, self._n = path, partial_name(path), shape[0]
        self._file: Any = None
        # TIFF has no tag for the distance of planes.
        self._about = json.dumps({"spacing_mm": list(zooms), "unit": "mm"})
        self._resolution = (10 / zooms[2], 10 / zooms[1])  # pixels per centimetre
        if path.suffix.lower() not in TIFF:
            if not resume_at and self._part.exists():  # of an earlier run
                shutil.rmtree(self._part)
            self._part.mkdir(exist_ok=True)
        else:
            import tifffile

            big = _is_big(shape) or path.suffix.lower() == ".btf"
            self._file = tifffile.TiffWriter(self._part, bigtiff=big)
            if path.name.lower().endswith(OME):
                self._about = sizes.ome_xml(path.name.split(".")[0], shape, zooms)

    def write(self, start: int, planes: np.ndarray) -> None:
        """Write consecutive planes."""
        import tifffile

        how: dict[str, Any] = {
            "description": self._about.encode(),  # OME-XML is UTF-8
            "resolution": self._resolution,
            "resolutionunit": "CENTIMETER",
            "metadata": None,
            "photometric": "minisblack",
        }
        for k, plane in enumerate(planes):
            if self._file is not None:
                if start + k and self._about.startswith("<"):  # OME-XML is in the first page alone
                    how["description"] = None
                self._file.write(plane, **how)
            else:
                digits = max(4, len(str(self._n - 1)))
                tifffile.imwrite(self._part / f"plane_{start + k:0{digits}d}.tif", plane, **how)

    def flush(self) -> None:
        """Files of planes are complete once they are written."""

    def close(self) -> None:
        """Give the output its name."""
        self.stop()
        os.replace(self._part, self._path)

    def stop(self) -> None:
        """Close the unfinished file."""
        if self._file is not None:
            self._file.close()
