"""A long session does not come to the end of its memory maps."""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

import n4ax_bids
from n4ax_bids import N4Options, TissueOptions, ZeroShotOptions, n4
from n4ax_bids.core import memory_maps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")


@pytest.fixture
def crowded(monkeypatch):
    """Every call looks, and finds too many maps."""
    monkeypatch.setattr(memory_maps, "EVERY", 1)
    monkeypatch.setattr(memory_maps, "is_crowded", lambda: True)


def _n_maps() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


def test_letting_go_gives_maps_back(crowded):
    for i in range(60):
        jax.jit(lambda x, i=i: jnp.sin(x) * x.sum() + i)(jnp.ones(10 + i))
    held = _n_maps()
    memory_maps.make_room()
    assert _n_maps() < held - 60


def test_programs_are_let_go_in_a_crowd_alone_and_not_at_every_call(monkeypatch):
    let_go = []
    monkeypatch.setattr(jax, "clear_caches", lambda: let_go.append(True))
    monkeypatch.setattr(memory_maps, "_calls", itertools.count())
    for crowded, expected in ((False, 0), (True, 3)):
        monkeypatch.setattr(memory_maps, "is_crowded", lambda crowded=crowded: crowded)
        for _ in range(3 * memory_maps.EVERY):
            memory_maps.make_room()
        assert len(let_go) == expected


def test_the_share_is_that_of_the_system():
    assert memory_maps.is_crowded(0.0) and not memory_maps.is_crowded(1.0)


def test_where_the_system_tells_nothing_nothing_is_let_go(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(memory_maps.Path, "read_text", refused)
    assert not memory_maps.is_crowded(0.0)


def test_threads_go_on_while_another_lets_go(crowded, rng):
    image = rng.uniform(1, 2, (20, 22, 24)).astype(np.float32)
    options = N4Options(n_iterations=(3, 2), shrink_factor=1)
    expected = np.asarray(n4(image, options=options))
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: np.asarray(n4(image, options=options)), range(12)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ("n4", "n4_batch", "tissue", "zero_shot", "realign", "stack"))
def test_every_estimator_makes_room(method, crowded, monkeypatch, rng, tmp_path):
    looked = []
    monkeypatch.setattr(memory_maps, "is_crowded", lambda: looked.append(True) or False)
    _call(method, rng, tmp_path)
    assert looked


def _series(image: np.ndarray, folder: Path) -> Path:
    path = folder / "series.nii"
    nib.Nifti1Image(np.stack([image] * 2, axis=-1), np.eye(4)).to_filename(path)
    return path


def _call(method: str, rng: np.random.Generator, folder: Path) -> None:
    image = rng.uniform(1, 2, (32, 32, 32)).astype(np.float32)
    short = N4Options(n_iterations=(1,), shrink_factor=2)
    calls = {
        "n4": lambda: n4(image, options=short),
        "n4_batch": lambda: n4ax_bids.n4_batch([image] * 2, options=short),
        "tissue": lambda: n4ax_bids.tissue(image, zooms=(4, 4, 4), options=TissueOptions()),
        "zero_shot": lambda: n4ax_bids.zero_shot(image, options=ZeroShotOptions(n_steps=1)),
        "realign": lambda: n4ax_bids.Realign(_series(image, folder)).estimate_all(),
        "stack": lambda: n4ax_bids.correct_stack(
            image, None, options=n4ax_bids.StackOptions(sections=1)
        ),
    }
    calls[method]()
