"""Which series `realign` takes and which it refuses, in one call and step by step."""

from __future__ import annotations

import gzip
import subprocess
import sys

import nibabel as nb
import numpy as np
import pytest

import n4ax_bids
from n4ax_bids import Realign, RealignOptions
from n4ax_bids.core.motion import rigid
from n4ax_bids.io import series
from tests.core.motion.small_series import ONE_PASS, SMALL
from tests.moving_head import motions, moving_head, rms, save


@pytest.fixture(scope="module")
def moved():
    return moving_head(motions(5), noise=0.005, **SMALL)


@pytest.fixture(scope="module")
def folder(moved, tmp_path_factory):
    """A folder with the series."""
    where = tmp_path_factory.mktemp("series")
    save(where / "bold.nii.gz", moved.volumes, moved.affine)
    return where


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_read_as_far_as_it_goes(moved, tmp_path, compressed):
    whole = save(tmp_path / "bold.nii", moved.volumes, moved.affine, np.float32)
    content = whole.read_bytes()[: -moved.volumes[0].nbytes // 2]
    path = tmp_path / ("short.nii.gz" if compressed else "short.nii")
    path.write_bytes(gzip.compress(content, 1)[:-12] if compressed else content)
    done = n4ax_bids.realign(path, tmp_path / "out.nii", options=ONE_PASS)
    assert done.flagged == {4: series.TRUNCATED}
    four = save(tmp_path / "four.nii", moved.volumes[:4], moved.affine, np.float32)
    alone = n4ax_bids.realign(four, tmp_path / "alone.nii", options=ONE_PASS)
    out, expected = (nb.load(tmp_path / name).get_fdata() for name in ("out.nii", "alone.nii"))
    np.testing.assert_array_equal(out[..., :4], expected)
    assert (out[..., 4] == 0).all()
    np.testing.assert_array_equal(done.motion.q[:4], alone.motion.q)


def test_flawed_volumes_are_written_as_they_are(moved, tmp_path):
    volumes = np.concatenate([moved.volumes, np.full((1, *moved.shape), 7, np.float32)])
    volumes[3] = np.nan
    path = save(tmp_path / "bold.nii", volumes, moved.affine, np.float32)
    done = n4ax_bids.realign(path, tmp_path / "out.nii", options=ONE_PASS)
    assert list(done.flagged) == [3, 5]
    out = nb.load(tmp_path / "out.nii").get_fdata()
    assert np.isnan(out[..., 3]).all() and (out[..., 5] == 7).all()


def test_a_step_at_a_time(folder, moved):
    run = Realign(folder / "bold.nii.gz", options=ONE_PASS)
    one = run.estimate(2)
    np.testing.assert_allclose(one.q[0], run.estimate_all().motion.q[2], atol=1e-5)
    assert run.estimate_all() is run.estimate_all()
    with pytest.raises(ValueError, match="volume 5; expected 0 to 4"):
        run.estimate(5)


def test_write_may_be_called_again(folder, tmp_path):
    run = Realign(folder / "bold.nii.gz", options=ONE_PASS)
    for name in ("one.nii", "two.nii"):
        run.write(output_image=tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.nii", "two.nii"))
    assert one == two


def test_a_reference_image(folder, moved, tmp_path):
    """Against another series' reference: the motion is that between the two heads."""
    other = moving_head(np.array([[1.0, -0.5, 0.8, 0.01, -0.02, 0.01]]), **SMALL)
    target = tmp_path / "ref.nii"
    nb.Nifti1Image(other.volumes[0], other.affine).to_filename(target)
    done = Realign(folder / "bold.nii.gz", reference_image=target, options=ONE_PASS).write()
    expected = rigid.parameters(np.linalg.inv(rigid.matrix(other.q[0])) @ rigid.matrix(moved.q))
    np.testing.assert_allclose(done.motion.q, expected, atol=0.03)


def test_the_mask_of_the_common_view(folder, tmp_path):
    options = RealignOptions(register_to_mean=False, write_mask=True)
    n4ax_bids.realign(folder / "bold.nii.gz", tmp_path / "out.nii", options=options)
    out = nb.load(tmp_path / "out.nii").get_fdata()
    edge = (out == 0).any(axis=-1)
    assert edge.any() and (out[edge] == 0).all()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda p: p / "none.nii", {}, "none.nii"),
        (lambda p: p / "one.nii", {}, "expected a series"),
        (lambda p: p / "short.nii", {}, "truncated, at most 1 of 5 volumes"),
        (lambda p: p / "damaged.nii.gz", {}, "damaged gzip data"),
        (lambda p: p / "bold.nii", {"output_image": "bold.nii"}, "would be overwritten"),
        (
            lambda p: p / "bold.nii",
            {"output_image": "a.nii", "mean_image": "a.nii"},
            "two outputs",
        ),
        (lambda p: p / "bold.nii", {"output_image": "a.txt"}, "neither .nii nor .nii.gz"),
        (lambda p: p / "bold.nii", {"motion_table": "none/a.tsv"}, "no folder"),
        (lambda p: p / "bold.nii", {"reference_image": "other.nii"}, "other.nii"),
    ],
)
def test_what_does_not_fit_is_named(moved, tmp_path, monkeypatch, make, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "bold.nii", moved.volumes, moved.affine)
    nb.Nifti1Image(moved.volumes[0], moved.affine).to_filename("one.nii")
    nb.Nifti1Image(moved.volumes[0][:-1], moved.affine).to_filename("other.nii")
    content = (tmp_path / "bold.nii").read_bytes()
    (tmp_path / "short.nii").write_bytes(content[: len(content) // 3])
    packed = bytearray(gzip.compress(content, 1))
    packed[-8] ^= 1  # the checksum of what is packed
    (tmp_path / "damaged.nii.gz").write_bytes(packed)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((OSError, ValueError), match=message) as refused:
        n4ax_bids.realign(make(tmp_path), **arguments)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_wrong_kind_of_argument(folder):
    with pytest.raises(TypeError, match="expected the path of an image"):
        n4ax_bids.realign(nb.load(folder / "bold.nii.gz"))
    with pytest.raises(TypeError, match="write takes no 'mean'"):
        n4ax_bids.realign(folder / "bold.nii.gz", mean="mean.nii")
    with pytest.raises(TypeError, match=r"no 'separations' \(did you mean separation\?\)"):
        RealignOptions(separations=6)
    with pytest.raises(TypeError, match="expected RealignOptions"):
        n4ax_bids.realign(folder / "bold.nii.gz", options={"quality": 1})


def test_some_of_the_volumes(folder, moved, tmp_path):
    done = n4ax_bids.realign(
        folder / "bold.nii.gz", tmp_path / "out.nii", options=ONE_PASS, volumes=[0, 2, 3]
    )
    assert nb.load(tmp_path / "out.nii").shape == (*moved.shape, 3)
    mm, degrees = rms(done.motion.q, moved.q[[0, 2, 3]])
    assert mm <= 0.05 and degrees <= 0.05
    for wrong in ([1], [2, 1], [0, 5]):
        with pytest.raises(ValueError, match=r"volumes are .*numbers from 0 to 4 in rising order"):
            Realign(folder / "bold.nii.gz", volumes=wrong)


PEAK = """
import resource, sys
import n4ax_bids
options = n4ax_bids.RealignOptions(register_to_mean=False, max_iterations=2)
n4ax_bids.realign(sys.argv[1], sys.argv[2], options=options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.large
def test_memory_grows_with_the_series_alone(tmp_path):
    """Three hundred more volumes take the memory of these volumes, and little else."""
    moved = moving_head(motions(10), noise=0.02)
    peaks = {}
    for n in (50, 50, 350):  # compiling takes memory, so the first run does not count
        volumes = np.tile(moved.volumes, (n // 10, 1, 1, 1))
        path = save(tmp_path / f"{n}.nii", volumes, moved.affine)
        words = [sys.executable, "-c", PEAK, str(path), str(tmp_path / f"out{n}.nii")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[n] = 1024 * int(done.stdout)
    more = 300 * 4 * moved.volumes[0].size
    print("bytes for a byte of the series:", (peaks[350] - peaks[50]) / more)
    assert 0.5 * more <= peaks[350] - peaks[50] <= 2 * more
