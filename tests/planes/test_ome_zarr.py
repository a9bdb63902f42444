"""OME-Zarr: valid by the specification's models, read by ome-zarr itself, damage named."""

from __future__ import annotations

import numpy as np
import pytest

from n4ax_bids.planes.ome_zarr import ZarrSink, ZarrSource
from n4ax_bids.stack_files import open_source
from n4ax_bids.streaming import stream
from tests.core.stack.stacks import ellipsoid
from tests.test_streaming import OPTIONS, PLANE_GB

zarr = pytest.importorskip("zarr")
yaozarrs = pytest.importorskip("yaozarrs")

SHAPE, ZOOMS = (6, 160, 130), (0.010, 0.0014, 0.0014)


def image(rng):
    return rng.uniform(1, 2, SHAPE).astype(np.float32)


def write(path, values, version, like=None):
    sink = ZarrSink(path, values.shape, ZOOMS, like, version=version)
    sink.write(0, values[:4])
    sink.write(4, values[4:])
    sink.close()
    return path


@pytest.mark.parametrize("version", ("0.4", "0.5"))
def test_what_is_written_is_valid_and_read_by_others(version, rng, tmp_path):
    values = image(rng)
    path = write(tmp_path / "x.ome.zarr", values, version)
    yaozarrs.validate_zarr_store(str(path))
    reader = pytest.importorskip("ome_zarr.reader")
    from ome_zarr.io import parse_url

    (node, *_) = list(reader.Reader(parse_url(str(path)))())
    assert [level.shape for level in node.data] == [SHAPE, (6, 80, 65)]
    np.testing.assert_array_equal(np.asarray(node.data[0]), values)
    halved = values[:, :, :130].reshape(6, 80, 2, 65, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(np.asarray(node.data[1]), halved, rtol=1e-6)
    scales = [each[0]["scale"] for each in node.metadata["coordinateTransformations"]]
    np.testing.assert_allclose(scales, [ZOOMS, (0.010, 0.0028, 0.0028)])


@pytest.mark.parametrize("version", ("0.4", "0.5"))
def test_scale_units_chunks_and_version_are_those_of_the_source(version, tmp_path):
    known = ellipsoid()
    form = 2 if version == "0.4" else 3
    group = zarr.open_group(tmp_path / "in.ome.zarr", mode="w", zarr_format=form)
    more = {"shards": (8, 32, 64)} if form == 3 else {}
    array = group.create_array(
        "s0",
        shape=(1, *known.image.shape),
        dtype="f4",
        chunks=(1, 4, 32, 32),
        **{"shards": (1, 8, 64, 64)} if more else {},
    )
    array[0] = known.image
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    transforms = [{"type": "scale", "scale": [1.0, 1000.0, 1000.0, 1000.0]}]
    datasets = [{"path": "s0", "coordinateTransformations": transforms}]
    entry = {"axes": axes, "datasets": datasets}
    if form == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    else:
        group.attrs["multiscales"] = [entry | {"version": "0.4"}]
    source = open_source(tmp_path / "in.ome.zarr")
    assert source.zooms == (1.0, 1.0, 1.0) and source.version == version
    stream(source.name, tmp_path / "out.ome.zarr", options=OPTIONS, memory_gb=9 * PLANE_GB)
    made = ZarrSource(tmp_path / "out.ome.zarr")
    assert made.version == version and made.zooms == source.zooms
    assert made.array.chunks == source.array.chunks
    assert made.array.shards == source.array.shards
    assert made.image["axes"] == axes
    expected = np.empty_like(known.image)
    stream(known.image, expected, options=OPTIONS)
    np.testing.assert_allclose(made.read(0, 28), expected, rtol=1e-6, atol=1e-7)


def test_a_damaged_chunk_is_named(rng, tmp_path):
    path = write(tmp_path / "x.ome.zarr", image(rng), "0.5")
    chunk = next(each for each in (path / "0" / "c" / "3").rglob("*") if each.is_file())
    chunk.write_bytes(b"rubbish")
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(ValueError, match="x.ome.zarr: planes .* a chunk is damaged"):
        stream(path, out, mask=None, options=OPTIONS)
    assert not out.exists()


def test_a_missing_chunk_is_named(rng, tmp_path):
    path = write(tmp_path / "x.ome.zarr", image(rng), "0.5")
    chunk = next(each for each in (path / "0" / "c" / "3").rglob("*") if each.is_file())
    chunk.unlink()
    done = stream(path, tmp_path / "out.ome.zarr", mask=None, options=OPTIONS)
    (note,) = [each for each in done.notes if "chunks have no file" in each]
    assert "1 of 6 chunks" in note and "0/c/3/0/0" in note


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: zarr.open_group(p, mode="w"), "is no OME-Zarr image"),
        (lambda p: zarr.save_array(p, np.ones((2, 3, 4, 5))), r"shape \(2, 3, 4, 5\)"),
        (lambda p: zarr.save_array(p, np.ones((3, 4, 5), bool)), "values of type bool"),
    ],
)
def test_what_is_no_stack_is_refused(make, message, tmp_path):
    make(tmp_path / "x.zarr")
    with pytest.raises(ValueError, match=f"x.zarr: {message}"):
        open_source(tmp_path / "x.zarr")
