"""OME-Zarr: valid by the specification's models, read by ome-zarr itself, damage named."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from n4ax_bids.core.stack.call import correct_stack
from n4ax_bids.core.stack.levels import on_level
from n4ax_bids.core.stack.samples import Along, thinning
from n4ax_bids.options import StackOptions
from n4ax_bids.planes.ome_zarr import ZarrLevel, ZarrSource
from n4ax_bids.planes.ome_zarr_sink import ZarrSink
from n4ax_bids.stacks.files import open_source
from n4ax_bids.stacks.steps import plan_stream, thinned_stack
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS, ellipsoid, solved
from tests.stacks.test_streaming import PLANE_GB, raising

zarr = pytest.importorskip("zarr")
yaozarrs = pytest.importorskip("yaozarrs")

SHAPE, ZOOMS = (6, 160, 130), (0.010, 0.0014, 0.0014)


@pytest.fixture(scope="module")
def known():
    return ellipsoid()


@pytest.fixture(scope="module")
def whole():
    return solved()


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


def write_pyramid(path, image, factors, translated=True):
    """Write levels of block means; `factors` of each level count voxels of the finest one."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    datasets = []
    for k, factor in enumerate([(1, 1, 1), *factors]):
        n = [size // f for size, f in zip(image.shape, factor, strict=True)]
        part = image[tuple(slice(size * f) for size, f in zip(n, factor, strict=True))]
        blocks = part.reshape(n[0], factor[0], n[1], factor[1], n[2], factor[2])
        values = blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)
        group.create_array(f"s{k}", data=values, chunks=(7, 56, 56))
        scale = [1000.0 * f for f in factor]
        steps = [{"type": "scale", "scale": scale}]
        if translated:
            first = [1000.0 * (f - 1) / 2 for f in factor]
            steps.append({"type": "translation", "translation": first})
        datasets.append({"path": f"s{k}", "coordinateTransformations": steps})
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    entry = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    return path


def reads(monkeypatch):
    """Record which planes of which array are read."""
    seen, before = [], ZarrLevel.read

    def read(self, start, stop):
        seen.append((self.name.rpartition("/")[2], start, stop))
        return before(self, start, stop)

    monkeypatch.setattr(ZarrLevel, "read", read)
    return seen


def test_the_estimate_reads_a_level_of_the_pyramid(known, whole, tmp_path, monkeypatch):
    """Blocks of the level are those of the finest one, so that the answer is the same.

    The intensities are whole numbers, whose means are exact in any order.
    """
    image = np.rint(1000 * known.image)
    path = write_pyramid(tmp_path / "in.ome.zarr", image, [(1, 2, 2), (1, 4, 4)])
    seen = reads(monkeypatch)
    out = np.empty_like(known.image)
    done = stream(path, out, options=OPTIONS, memory_gb=9 * PLANE_GB)
    np.testing.assert_array_equal(out, correct_stack(image, options=OPTIONS).corrected)
    assert {name for name, _, _ in seen} == {"in.ome.zarr", "s1"}
    for name in ("in.ome.zarr", "s1"):
        planes = [k for each, *ends in seen if each == name for k in range(*ends)]
        assert planes == list(range(28))  # each once
    assert done.correction.how == whole.correction.how


def test_a_level_with_fewer_planes_serves_where_no_plane_counts_alone(known, tmp_path):
    path = write_pyramid(tmp_path / "in.ome.zarr", known.image, [(2, 2, 2)])
    options = StackOptions(**vars(OPTIONS) | {"sections": 1})
    for more in (OPTIONS, replace(options, match="plane"), replace(options, profile_sigma=2)):
        assert plan_stream(path, None, None, more, 1).level is None
    thin = []
    for given in (path, known.image):
        plan = plan_stream(given, None, None, options, 5 * PLANE_GB)
        values, _, _ = thinned_stack(plan, lambda *_: None)
        thin.append(values.reshape(14, 2, 28, 28).mean(axis=1))  # blocks along Z as well
    assert plan_stream(path, None, None, options, 1).level.name.endswith("s1")
    np.testing.assert_allclose(thin[0], thin[1], rtol=1e-6)


@pytest.mark.parametrize("first", (0.0, 0.5))
def test_samples_lie_where_the_level_says(first):
    """Level of 2, samples 4 apart: voxel k of the level lies at first + 2 k."""
    shape = (6, 41, 40)
    options = StackOptions(shrink_factor=4)
    how = thinning(options, shape, (1, 1, 1))
    on = on_level(options, how, shape, (6, 20, 20), (1, 2, 2), (0, first, first))
    assert on.grid.blocks[0] == Along(2, 0, 10)
    np.testing.assert_allclose(on.how.positions[0], first + 1 + 4 * np.arange(10))
    np.testing.assert_array_equal(on.planes, np.arange(6))


def test_the_level_nearest_to_the_wanted_distance_is_taken(known, tmp_path):
    path = write_pyramid(tmp_path / "in.ome.zarr", known.image, [(1, 2, 2), (1, 4, 4), (1, 8, 8)])
    for shrink, level, apart in (
        (1, None, 1),
        (2, "s1", 2),
        (3, "s1", 2),
        (4, "s2", 4),
        (6, "s1", 6),
    ):
        options = StackOptions(**vars(OPTIONS) | {"shrink_factor": shrink})
        plan = plan_stream(path, "tissue", None, options, 1)
        assert (plan.level and plan.level.name.rpartition("/")[2]) == level
        assert plan.how.blocks[0].factor == apart
    itk = StackOptions(**vars(OPTIONS) | {"sampling": "itk"})
    assert plan_stream(path, "tissue", None, itk, 1).level is None


def test_a_level_without_a_translation_begins_at_the_same_centre(known, tmp_path):
    path = write_pyramid(tmp_path / "in.ome.zarr", known.image, [(1, 2, 2)], translated=False)
    (level,) = ZarrSource(path).levels()
    assert level.factors == (1, 2, 2) and level.first == (0, 0, 0)
    plan = plan_stream(path, known.mask, None, OPTIONS, 5 * PLANE_GB)
    assert plan.how.blocks[0].start == -0.5
    thin, _, inside = thinned_stack(plan, lambda *_: None)
    np.testing.assert_allclose(thin, level.source.read(0, 28), rtol=1e-6)
    shares = known.mask.reshape(28, 28, 2, 28, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(inside, shares >= 0.5)


def test_levels_that_do_not_fit_are_left_out(known, tmp_path):
    path = write_pyramid(tmp_path / "in.ome.zarr", known.image, [(1, 2, 2), (1, 4, 4)])
    meta = path / "zarr.json"
    meta.write_text(meta.read_text().replace("4000.0", "3300.0"))
    assert [each.source.name[-2:] for each in ZarrSource(path).levels()] == ["s1"]
    shutil.rmtree(path / "s1")
    assert ZarrSource(path).levels() == ()


def test_a_damaged_chunk_of_a_level_is_named(known, tmp_path):
    path = write_pyramid(tmp_path / "in.ome.zarr", known.image, [(1, 2, 2)])
    (path / "s1" / "c" / "1" / "0" / "0").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="in.ome.zarr/s1: planes .* a chunk is damaged"):
        stream(path, np.empty_like(known.image), options=OPTIONS)


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
