"""Files that are corrected at the same time, as on a GPU, where they share solves."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from n4ax_bids.core.n4 import joint
from n4ax_bids.core.n4 import solve as solving
from n4ax_bids.correct import correct
from n4ax_bids.options import N4Options
from n4ax_bids.runtime import device
from tests.ball import bright_ball, write
from tests.turns import CPU, n_waiting, share_turns

OPTIONS = N4Options(shrink_factor=2, n_iterations=(3, 2))


@pytest.fixture(autouse=True)
def like_a_gpu(monkeypatch):
    monkeypatch.setattr(solving, "_gpu", lambda voxels: CPU)
    share_turns(monkeypatch)


@pytest.fixture
def sizes(monkeypatch):
    """How many images each solve had."""
    found, kept = [], joint.JointN4.solve

    def counted(self, others):
        found.append(1 + len(others))
        return kept(self, others)

    monkeypatch.setattr(joint.JointN4, "solve", counted)
    return found


def images(folder, rng):
    """Write three images of one grid, of different brightness."""
    paths = [folder / f"{number}.nii.gz" for number in range(3)]
    for number, path in enumerate(paths):
        write(path, bright_ball(rng)[0] * np.float32(1 + number))
    return paths


def corrected(path, out, **mask):
    out.mkdir(exist_ok=True)
    record = correct(
        path,
        out / path.name,
        bias_image=out / f"bias-{path.name}",
        options=OPTIONS,
        device="cpu",
        **(mask or {"auto_mask": "otsu"}),
    )
    return record, (out / path.name).read_bytes(), (out / f"bias-{path.name}").read_bytes()


def at_once(paths, out, **mask):
    """Correct files in threads while the device is busy, and let it go when all wait."""
    with ThreadPoolExecutor(len(paths)) as pool:
        with device.use(CPU):
            running = [pool.submit(corrected, path, out, **mask) for path in paths]
            while n_waiting() + sum(one.done() for one in running) < len(paths):
                time.sleep(0.01)
    return running


def test_the_files_have_the_bytes_of_files_that_were_corrected_alone(tmp_path, rng, sizes):
    paths = images(tmp_path, rng)
    alone = [corrected(path, tmp_path / "alone") for path in paths]
    assert sizes == [1, 1, 1]
    together = [one.result() for one in at_once(paths, tmp_path / "together")]
    assert sizes == [1, 1, 1, 3]
    for (record, *files), (expected, *as_alone) in zip(together, alone, strict=True):
        assert files == as_alone
        assert record.details == expected.details
        assert record.seconds["solve"] > 0
    assert len({files[1] for _, *files in together}) == 3


def test_an_image_that_fails_names_itself_and_the_others_are_written(tmp_path, rng, sizes):
    """It has one value inside the mask, which the solve finds out."""
    paths = images(tmp_path, rng)
    data, inside = bright_ball(rng)
    mask = write(tmp_path / "mask.nii.gz", inside)
    write(paths[1], np.where(inside, np.float32(7), data))
    first, bad, last = at_once(paths, tmp_path / "out", mask_image=mask)
    with pytest.raises(ValueError, match=r"1\.nii\.gz: image is constant \(7"):
        bad.result()
    assert sizes == [3]
    assert first.result() and last.result()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0.nii.gz",
        "2.nii.gz",
        "bias-0.nii.gz",
        "bias-2.nii.gz",
    ]
