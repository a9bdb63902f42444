"""The worked example of docs/serial-sections.md, run as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from n4ax_bids.commands import stack_cli
from n4ax_bids.stacks.files import load_correction, open_source
from tests.stacks.streams import rise_of

pytestmark = pytest.mark.large

PAGE = Path(__file__).parents[1] / "docs" / "serial-sections.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Run the example's lines in a folder."""
    for package in ("tifffile", "zarr", "yaozarrs", "matplotlib"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(blocks("python")[0], {})
        commands = [text for text in blocks("sh") if text.startswith("n4ax-stack")]
        for text in commands:
            assert stack_cli.main(shlex.split(text.replace("\\\n", " "))[1:]) == 0
    assert len(commands) == 2
    return folder


def test_the_field_is_recovered(example):
    """Planes are ten times as far apart as pixels; with axes exchanged this fails."""
    field = np.load(example / "field.npy")
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in field.shape), indexing="ij")
    inner = 2.25 * (z**2 / 4 + y**2 + x**2) <= 0.95
    before = open_source(example / "stack.tif").read(0, 40)[inner]
    after = open_source(example / "corrected.ome.zarr").read(0, 40)[inner]
    spread = [values.std() / values.mean() for values in (before, after)]
    assert spread[1] < 0.15 * spread[0] and spread[1] < 0.025  # 0.02 is noise


def test_the_files_of_the_example_are_there(example):
    assert (example / "stack.png").stat().st_size > 10_000
    assert len(load_correction(example / "lattices.npz").sections) == 4
    assert open_source(example / "bias.ome.zarr").zooms == (0.1, 0.01, 0.01)
    assert (PAGE.parent / "serial-sections.png").exists()


def test_the_program_for_workers_saves_a_correction(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).uniform(1, 2, (28, 24, 20)).astype(np.float32)
    zarr.save_array("stack.zarr", values)
    first, worker = blocks("python")[2:]
    exec(first, {})
    assert len(load_correction("correction.npz").sections) == 5
    assert not zarr.open("out.zarr", mode="r")[:].any()  # no planes yet
    for words in (["0", "16"], ["16", "28"]):
        monkeypatch.setattr("sys.argv", ["worker.py", *words])
        exec(worker, {})
    assert zarr.open("out.zarr", mode="r")[:].any(axis=(1, 2)).all()


def test_the_second_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("volume.npy", rng.uniform(1, 2, (100, 24, 20)).astype(np.float32))
    before = np.load("volume.npy")
    exec(blocks("python")[1], {})
    assert not np.array_equal(np.load("volume.npy"), before)


def test_chunks_that_are_decoded_stay_within_the_budget(tmp_path):
    """S13 for OME-Zarr: zarr decodes ten chunks at a time, which took 1.6 times this budget."""
    zarr = pytest.importorskip("zarr")
    n, budget = 48, 262_144_000
    y, x = np.mgrid[-1:1:1024j, -1:1:1024j]
    plane = (np.where(y**2 + x**2 < 0.6, 1.0, 0.1) * np.exp(0.3 * x)).astype(np.float32)
    plane += np.random.default_rng(0).normal(0, 0.02, plane.shape).astype(np.float32)
    stack = zarr.create_array(
        tmp_path / "in.zarr", shape=(n, 1024, 1024), dtype="float32", chunks=(16, 256, 256)
    )
    for k in range(0, n, 16):
        stack[k : k + 16] = np.broadcast_to(plane, (16, 1024, 1024))
    figures = rise_of(tmp_path / "in.zarr", tmp_path / "out.zarr", budget)
    assert figures["rise"] <= 1.2 * budget, figures
