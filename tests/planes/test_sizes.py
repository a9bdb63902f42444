"""Sizes of the voxels of TIFF files, as read and as written."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.planes import sizes
from n4ax_bids.planes.pictures import TiffSink, TiffSource

tifffile = pytest.importorskip("tifffile")

PLANES = np.arange(2 * 6 * 5, dtype=np.uint16).reshape(2, 6, 5)
OME = {"axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeY": 5, "PhysicalSizeZ": 60}
MICRONS = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
IMAGEJ = {"imagej": True, "resolution": (0.25, 0.2)}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"metadata": OME}, (0.060, 0.005, 0.004)),  # µm where there is no unit
        ({"metadata": OME | MICRONS}, (60e-6, 5e-6, 4e-6)),
        ({"metadata": {"axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeY": 5}}, (0.005,) * 2),
        ({"metadata": {"axes": "ZYX"}}, None),
        ({"metadata": OME | {"PhysicalSizeX": 0}}, None),
        (
            IMAGEJ | {"metadata": {"axes": "ZYX", "spacing": 60, "unit": "um"}},
            (0.06, 0.005, 0.004),
        ),
        (IMAGEJ | {"metadata": {"axes": "ZYX", "spacing": 60, "unit": "furlong"}}, None),
    ],
)
def test_sizes_are_read(tmp_path, how, expected):
    path = tmp_path / ("a.tif" if "imagej" in how else "a.ome.tif")
    tifffile.imwrite(path, PLANES, **how)
    found = TiffSource(path).zooms
    if expected is None:
        assert found is None
    else:
        assert found[: len(expected)] == pytest.approx(expected, rel=1e-5)


def test_another_version_of_the_schema_and_damage():
    text = sizes.ome_xml("a <b>", (2, 6, 5), (0.06, 0.005, 0.004))
    assert sizes._of_ome(text) == (0.06, 0.005, 0.004)
    assert sizes._of_ome(text.replace("2016-06", "2015-01")) == (0.06, 0.005, 0.004)
    for damaged in (
        text[:-9],
        text.replace("mm", "furlong"),
        text.replace("0.06", "wide"),
        "<a/>",
    ):
        assert sizes._of_ome(damaged) is None


@pytest.mark.parametrize("name", ("a.ome.tif", "a.ome.btf", "a.tif"))
def test_sizes_are_written(tmp_path, name):
    path = tmp_path / name
    sink = TiffSink(path, PLANES.shape, (0.06, 0.005, 0.004))
    sink.write(0, PLANES[:1].astype(np.float32))
    sink.write(1, PLANES[1:].astype(np.float32))
    sink.close()
    source = TiffSource(path)
    assert source.zooms == (0.06, 0.005, 0.004) and source.shape == PLANES.shape
    np.testing.assert_array_equal(source.read(0, 2), PLANES)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome == (".ome." in name) and file.is_bigtiff == name.endswith("btf")
        if file.is_ome:
            assert (file.series[0].axes, file.series[0].shape) == ("ZYX", PLANES.shape)
