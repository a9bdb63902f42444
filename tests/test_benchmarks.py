"""Every benchmark runs at tiny sizes and writes its page, also where only the core's needs are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RUN = "import sys, runpy; {}runpy.run_module('benchmarks.{}', run_name='__main__')"
ABSENT = ("nibabel", "nipype", "SimpleITK", "ants", "bids", "isal", "nilearn", "matplotlib")
BARE = f"sys.modules.update(dict.fromkeys({ABSENT!r}));"


def page_of(name: str, folder: Path, before: str = "", *flags: str) -> str:
    """Run one with --quick and return its page."""
    code = RUN.format(before, name)
    done = subprocess.run(
        [sys.executable, "-c", code, "--quick", "--out", str(folder), *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return folder.joinpath(f"{name}.md").read_text(encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    """The cells of all tables' rows."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines if "---" not in line]


@pytest.mark.parametrize(
    "name",
    (
        "speed",
        "command",
        "scaling",
        "iteration",
        "memory",
        "report",
        "masks",
        "samples",
        "adaptive",
        "presets",
        "invariance",
        "host_work",
    ),
)
def test_a_page_is_written(name, tmp_path):
    page = page_of(name, tmp_path)
    assert page.startswith("# ") and f"`python -m benchmarks.{name} --quick`" in page
    assert re.search(r"\d of \d+ cores used .* on cpu", page.replace("\n  ", " "))
    assert re.search(r"jax \d.*numpy \d.*SimpleITK\s+\d.*antspyx \d", page.replace("\n  ", " "))
    assert len(rows(page)) >= 2
    assert str(tmp_path) not in page and str(ROOT) not in page
    for link in re.findall(r"\]\((.+?)\)", page):
        assert tmp_path.joinpath(link).stat().st_size < 60_000


def test_jax_numpy_and_scipy_are_enough(tmp_path):
    page = page_of("speed", tmp_path, BARE)
    assert "not installed, so left out: SimpleITK, antspyx" in page
    assert any("–" in cells for cells in rows(page))


def test_an_image_can_be_given(tmp_path):
    import numpy as np

    from n4ax_bids.phantoms import phantom

    np.save(tmp_path / "given.npy", phantom((20, 18, 16)).image)
    page = page_of("iteration", tmp_path, BARE, "--image", str(tmp_path / "given.npy"))
    assert "`given.npy`, 20×18×16" in page and "--image=given.npy" in page


def day_with_a_gpu(folder: Path, *flags: str) -> dict:
    """Rehearse it with jax, numpy and scipy alone, and return what it found."""
    absent = (*ABSENT, "threadpoolctl", "PIL", "jinja2")
    before = f"sys.modules.update(dict.fromkeys({absent!r}));"
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(before, "gpu_day"), "--quick", *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "no time" not in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["failed"], found["skipped"]) == ({}, [])
    return found["parts"]


def test_the_day_with_a_gpu_follows_the_code(tmp_path):
    parts = day_with_a_gpu(tmp_path, "--only", "primitives", "iterations", "tests")
    pieces = [found for found in parts["primitives"].values() if isinstance(found, dict)]
    assert pieces and all(found["equal"] for found in pieces)
    assert parts["primitives"]["tally equals tally without idle"]
    assert parts["primitives"]["no TF32"]
    assert all(found["voxels"] > 0 for found in parts["iterations"].values())
    assert "tests collected" in parts["tests"]["end"]


@pytest.mark.large  # the shorter test above rehearses most of it
def test_the_whole_day_with_a_gpu_is_rehearsed(tmp_path):
    parts = day_with_a_gpu(tmp_path)
    assert all(isinstance(found, dict) for found in parts["candidates"].values())
    again = [found for found in parts["repeats"].values() if isinstance(found, dict)]
    assert again and all(found["distinct"] == 1 for found in again)
    solved = [found for found in parts["references"].values() if found != "no data"]
    assert all(found["within"] for found in solved)
    assert len({found["digest"] for found in parts["processes"].values()}) == 1


def test_every_level_of_compression_has_a_row():
    from benchmarks.files import encodings

    table = rows("\n".join(encodings({"zeros": np.zeros((40, 30, 20), np.float32, order="F")})))
    assert [cells[0] for cells in table[1:]] == ["stored", "0", "1", "2", "3"]
    stored, *packed = (float(cells[2]) for cells in table[1:])
    assert stored == 0.096 and all(0 < each < stored for each in packed)
