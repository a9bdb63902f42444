"""Sizes of the voxels of TIFF files: OME-XML, ImageJ's words, and what this package writes."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "μm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "mm": 1.0,
    "millimeter": 1.0,
    "cm": 10.0,
    "m": 1e3,
    "Å": 1e-7,
}
"""mm per unit"""
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
Sizes = tuple[float, float, float]


def ome_xml(name: str, shape: tuple[int, int, int], zooms: Sizes) -> str:
    """Return the description of a float32 stack with one page for each plane.

    Parameters
    ----------
    name : name of the image
    shape : planes, rows, columns
    zooms : size of a voxel on these axes, mm
    """
    sizes = "".join(f' Size{a}="{n}"' for a, n in zip("ZYX", shape, strict=True))
    sizes += ' SizeC="1" SizeT="1"'
    places = "".join(
        f' PhysicalSize{a}="{z!r}" PhysicalSize{a}Unit="mm"'
        for a, z in zip("ZYX", map(float, zooms), strict=True)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{OME}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{OME} {OME}/ome.xsd"><Image ID="Image:0" Name="{escape(name)}">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float"{sizes}{places}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        f'<TiffData IFD="0" PlaneCount="{shape[0]}"/></Pixels></Image></OME>'
    )


def sizes_of(file: Any) -> Sizes | None:
    """Return the size of a voxel of a TIFF file: planes, rows, columns, mm; None if it has none.

    Parameters
    ----------
    file : an open tifffile.TiffFile
    """
    if file.is_ome:
        return _of_ome(file.ome_metadata)
    if file.is_imagej:
        return _of_imagej(file)
    try:
        own = json.loads(file.pages[0].description)
        z, y, x = (float(size) for size in own["spacing_mm"])
    except (KeyError, TypeError, ValueError):
        return None
    return _positive(z, y, x)


def _of_ome(text: str) -> Sizes | None:
    """Read PhysicalSizeX, Y and Z; without Z, planes count as far apart as rows."""
    try:
        pixels = next(ElementTree.fromstring(text).iter(f"{{{OME}}}Pixels"), None)
        if pixels is None:  # another version of the schema
            every = ElementTree.fromstring(text).iter()
            pixels = next(each for each in every if each.tag.endswith("}Pixels"))
        found = []
        for axis in "XYZ":
            unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
            size = pixels.get(f"PhysicalSize{axis}")
            found.append(float(size) * MM[unit] if size else None)
    except (ElementTree.ParseError, KeyError, StopIteration, ValueError):
        return None
    x, y, z = found
    return None if x is None or y is None else _positive(y if z is None else z, y, x)


def _of_imagej(file: Any) -> Sizes | None:
    """Read ImageJ's unit and spacing, and the resolution in pixels per unit."""
    about = file.imagej_metadata or {}
    try:
        unit = MM[str(about["unit"]).replace("\\u00B5", "µ")]
        tags = file.pages[0].tags
        x, y = (
            tags[name].value[1] / tags[name].value[0] * unit
            for name in ("XResolution", "YResolution")
        )
        return _positive(float(about.get("spacing", y / unit)) * unit, y, x)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _positive(*sizes: float) -> Sizes | None:
    z, y, x = sizes
    return (z, y, x) if all(0 < size < float("inf") for size in sizes) else None
