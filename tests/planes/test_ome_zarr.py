"""OME-Zarr: valid by the specification's models, read by ome-zarr itself, damage named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from n4ax_bids.planes.ome_zarr import ZarrSource
from n4ax_bids.planes.ome_zarr_sink import ZarrSink
from n4ax_bids.stacks.files import open_source
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB, raising

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
    assert [axis["unit"] for axis in node.metadata["axes"]] == ["millimeter"] * 3
    models = pytest.importorskip("ome_zarr_models")
    group = models.open_ome_zarr(zarr.open_group(path, mode="r"), version=version)
    assert group.ome_zarr_version == version


@pytest.mark.parametrize("version", ("0.4", "0.5"))
def test_scale_units_chunks_and_version_are_those_of_the_source(version, known, whole, tmp_path):
    form = 2 if version == "0.4" else 3
    group = zarr.open_group(tmp_path / "in.ome.zarr", mode="w", zarr_format=form)
    more = {"shards": (1, 8, 64, 64)} if form == 3 else {}
    array = group.create_array(
        "s0",
        shape=(1, *known.image.shape),
        dtype="f4",
        chunks=(1, 4, 32, 32),
        **more,
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
    how = {"options": OPTIONS, "memory_gb": 9 * PLANE_GB}
    stream(source.name, tmp_path / "out.ome.zarr", correction=whole.correction, **how)
    made = ZarrSource(tmp_path / "out.ome.zarr")
    assert made.version == version and made.zooms == source.zooms
    assert made.array.chunks == source.array.chunks
    assert made.array.shards == source.array.shards
    assert made.image["axes"] == axes
    np.testing.assert_allclose(made.read(0, 28), whole.corrected, rtol=1e-6, atol=1e-7)


def test_a_pyramid_is_made_anew_if_its_run_was_interrupted(rng, tmp_path, monkeypatch):
    values, path = rng.uniform(1, 2, (3, 300, 270)).astype(np.float32), tmp_path / "x.ome.zarr"
    sink = ZarrSink(path, values.shape, ZOOMS)
    sink.write(0, values)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sink, "_means", raising(KeyboardInterrupt))
        sink.close()
    ZarrSink(path, values.shape, ZOOMS, resume_at=3).close()
    halved = values.reshape(3, 150, 2, 135, 2).mean(axis=(2, 4))
    made = zarr.open(path, mode="r")
    np.testing.assert_allclose(made["1"][:], halved, rtol=1e-6)
    again = halved[:, :, :134].reshape(3, 75, 2, 67, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(made["2"][:], again, rtol=1e-6)


def test_the_pyramid_is_made_chunk_by_chunk(known, tmp_path, monkeypatch):
    """A few planes of a large stack with thick chunks would not fit into memory."""
    image = np.tile(known.image, (1, 4, 4))
    sink = ZarrSink(tmp_path / "x.zarr", image.shape, ZOOMS)
    array = sink._group.create_array("thick", shape=image.shape, dtype="f4", chunks=(14, 56, 56))
    array[:] = image
    largest, before = [], ZarrSink._means

    def means(self, array, ends, factors):
        largest.append(np.prod([b - a for a, b in ends]))
        return before(self, array, ends, factors)

    monkeypatch.setattr(ZarrSink, "_means", means)
    made = sink._halved(array, "1", np.array([2, 2, 2]))
    expected = image.reshape(14, 2, 112, 2, 112, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(made[:], expected, rtol=1e-6)
    assert max(largest) == 14 * 56 * 56


def test_a_damaged_chunk_is_named(rng, tmp_path):
    path = write(tmp_path / "x.ome.zarr", image(rng), "0.5")
    chunk = next(each for each in (path / "0" / "c" / "3").rglob("*") if each.is_file())
    chunk.write_bytes(b"rubbish")
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(ValueError, match="x.ome.zarr: planes .* a chunk is damaged"):
        # Without shrinking, the finest level is read first.
        stream(path, out, mask=None, options=replace(OPTIONS, shrink_factor=1))
    assert not out.exists()


def test_a_missing_chunk_is_named(known, whole, tmp_path):
    path = write(tmp_path / "x.ome.zarr", known.image, "0.5")
    chunk = next(each for each in (path / "0" / "c" / "3").rglob("*") if each.is_file())
    chunk.unlink()
    how = {"options": OPTIONS, "correction": whole.correction}
    done = stream(path, tmp_path / "out.ome.zarr", mask=None, **how)
    (note,) = [each for each in done.notes if "chunks have no file" in each]
    assert "1 of 28 chunks" in note and "0/c/3/0/0" in note


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "parsec"}, "unit parsec of axis z; expected one of micrometer, millimeter"),
        ({"scale": [-1, 1, 1]}, "voxels of -0.001, 0.001, 0.001 mm; expected positive sizes"),
        ({"scale": [1, 1]}, "is no OME-Zarr image .*scale"),
        ({"scale": ["a", 1, 1]}, "is no OME-Zarr image .*scale"),
        ({"path": "../other/0"}, "is no OME-Zarr image .*path"),
        ({"datasets": []}, "is no OME-Zarr image .*datasets"),
        ({"version": "0.9"}, "OME-Zarr version 0.9; expected 0.4 or 0.5"),
    ],
)
def test_odd_metadata_is_named(tmp_path, change, message):
    path = tmp_path / "a.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", shape=(2, 8, 8), dtype="float32", dimension_names=["z", "y", "x"])
    scale = {"type": "scale", "scale": change.get("scale", [1, 1, 1])}
    dataset = {"path": change.get("path", "0"), "coordinateTransformations": [scale]}
    unit = change.get("unit", "micrometer")
    image = {
        "axes": [{"name": name, "type": "space", "unit": unit} for name in "zyx"],
        "datasets": change.get("datasets", [dataset]),
    }
    version = change.get("version", "0.5")
    group.attrs["ome"] = {"version": version, "multiscales": [image]}
    with pytest.raises(ValueError, match=f"a.ome.zarr: {message}"):
        ZarrSource(path)
