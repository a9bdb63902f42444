"""Levels of an OME-Zarr pyramid: which of them an estimate reads, and where their voxels lie."""

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
from n4ax_bids.stacks.steps import plan_stream, thinned_stack
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS
from tests.stacks.streams import PLANE_GB

zarr = pytest.importorskip("zarr")
pytest.importorskip("yaozarrs")


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
