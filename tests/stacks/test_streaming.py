"""Stacks that need not fit into memory: slabs, buffers, files, interrupted runs, memory."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.core.stack.call import thinned_stack as thinned_at_once
from n4ax_bids.core.stack.correction import correct_planes
from n4ax_bids.options import StackOptions
from n4ax_bids.stacks import streaming
from n4ax_bids.stacks.files import load_correction, open_source, save_correction
from n4ax_bids.stacks.steps import plan_stream, thinned_stack
from n4ax_bids.stacks.streaming import stream
from tests.core.stack.stacks import OPTIONS, ellipsoid, solved

ROOT = Path(__file__).parents[2]
PLANE_GB = 56 * 56 * (4 + 44) / 0.6e9  # the budget of one plane


@pytest.fixture(scope="module")
def known():
    return ellipsoid()


@pytest.fixture(scope="module")
def whole():
    return solved()


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-7)


def require_same_samples(given, image, memory_gb):
    """What is read slab by slab is what the estimate gets of the whole array, to the bit."""
    thin, _, _ = thinned_stack(plan_stream(given, "tissue", None, OPTIONS, memory_gb), nothing)
    expected = thinned_at_once(image, None, (1.0, 1.0, 1.0), OPTIONS)
    np.testing.assert_array_equal(thin, expected.thin)


def nothing(step, done, of):
    """Progress that nobody looks at."""


@pytest.mark.parametrize("planes", (1, 7, 1000))
def test_the_height_of_slabs_changes_nothing(known, whole, planes):
    out, bias = np.empty_like(known.image), np.empty_like(known.image)
    heights, memory_gb = [], planes * 1.001 * PLANE_GB
    require_same_samples(known.image, known.image, memory_gb)
    done = stream(
        known.image,
        out,
        bias_out=bias,
        options=OPTIONS,
        memory_gb=memory_gb,
        correction=None if planes == 7 else whole.correction,
        progress=lambda step, n, of: heights.append(n) if step == "correct" else None,
    )
    assert heights[0] == min(planes, 28)
    assert done.corrected is out and done.bias is bias
    close(out, whole.corrected)
    close(bias, whole.bias)


def test_in_place_equals_the_separate_call(known, whole):
    image = known.image.copy()
    done = stream(image, image, options=OPTIONS, memory_gb=5 * PLANE_GB)
    assert done.corrected is image
    close(image, whole.corrected, 1e-5)


@pytest.mark.parametrize("name", ("out", "bias_out"))
@pytest.mark.parametrize(
    "wrong", (np.empty((28, 56, 55), np.float32), np.empty((28, 56, 56)), [1.0])
)
def test_wrong_buffers_are_refused(known, name, wrong):
    buffers = {"out": np.empty_like(known.image), "bias_out": None} | {name: wrong}
    with pytest.raises(ValueError, match=f"^{name} must be a float32 array"):
        stream(known.image, **buffers)


def test_buffers_that_overlap_are_refused(known):
    memory = np.zeros((30, 56, 56), np.float32)
    with pytest.raises(ValueError, match="out must be an array of its own; .* with vol"):
        stream(memory[:28], memory[1:29])
    with pytest.raises(ValueError, match="bias_out must be an array of its own; .* with out"):
        stream(known.image, memory[:28], bias_out=memory[:28])
    with pytest.raises(ValueError, match="bias_out must be an array of its own; .* with vol"):
        stream(memory[:28], np.empty_like(known.image), bias_out=memory[:28])


def write_as(kind: str, folder: Path, image: np.ndarray) -> object:
    """Write a stack; return what `stream` takes."""
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    path = folder / f"in{kind}"
    if kind in (".nii", ".nii.gz"):
        nb.Nifti1Image(image.T, np.eye(4)).to_filename(path)
    elif kind == ".tif":
        tifffile.imwrite(path, image)
    elif kind == "/":
        path = folder / "in"
        path.mkdir()
        for k, plane in enumerate(image):  # planes 2 and 10 are in the order of their numbers
            tifffile.imwrite(path / f"plane{k}.tif", plane)
    elif kind == ".npy":
        np.save(path, image)
        return np.load(path, mmap_mode="r")
    elif kind == "zarr":
        return zarr.array(image, chunks=(4, 32, 32))
    else:
        zarr.save_array(path, image)
    return path


@pytest.mark.parametrize("kind", (".nii", ".nii.gz", ".tif", "/", ".npy", "zarr", ".zarr"))
def test_every_kind_of_stack_gives_the_same(kind, known, whole, tmp_path):
    """S19."""
    given = write_as(kind, tmp_path, known.image)
    out = np.empty_like(known.image)
    require_same_samples(given, known.image, 9 * PLANE_GB)
    # The solve of the same samples is that of `whole`; memory maps are estimated once more.
    done = stream(
        given,
        out,
        options=OPTIONS,
        memory_gb=9 * PLANE_GB,
        correction=None if kind == ".npy" else whole.correction,
    )
    close(out, whole.corrected)
    for one, other in zip(done.correction.sections, whole.correction.sections, strict=True):
        close(one.log_field.lattice, other.log_field.lattice)


def test_png_planes_are_whole_numbers(known, tmp_path):
    image = pytest.importorskip("PIL.Image")
    counts = np.clip(known.image * 1000, 0, 65535).astype(np.uint16)
    for k, plane in enumerate(counts):
        image.fromarray(plane).save(tmp_path / f"{k:02d}.png")
    source = open_source(tmp_path)
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(source.read(3, 9), counts[3:9])


def test_a_large_stack_of_imagej_is_not_read_at_once(known, tmp_path, monkeypatch):
    """Its planes follow the page of the first one, and need not fit into memory."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "in.tif", known.image, imagej=True, truncate=True)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", raising(AssertionError))
    np.testing.assert_array_equal(open_source(tmp_path / "in.tif").read(3, 9), known.image[3:9])


def test_one_plane_is_a_stack(known, tmp_path):
    nb.Nifti1Image(known.image[14].T, np.eye(4)).to_filename(tmp_path / "in.nii")
    source = open_source(tmp_path / "in.nii")
    assert source.shape == (1, 56, 56)
    np.testing.assert_array_equal(source.read(0, 1)[0], known.image[14])


def test_damage_in_a_nifti_file_is_named(known, tmp_path):
    nb.Nifti1Image(known.image.T, np.eye(4)).to_filename(tmp_path / "in.nii")
    stored = bytearray((tmp_path / "in.nii").read_bytes())
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(stored)[:-8] + b"12345678")
    with pytest.raises(ValueError, match="in.nii.gz: damaged gzip data"):
        open_source(tmp_path / "in.nii.gz").read(20, 28)
    stored[108:112] = np.float32(np.nan).tobytes()
    (tmp_path / "in.nii").write_bytes(stored)
    with pytest.raises(ValueError, match="in.nii: the header says that voxels begin at byte nan"):
        open_source(tmp_path / "in.nii")


@pytest.mark.parametrize("name", ("o.nii", "o.nii.gz", "o.tif", "folder", "o.ome.zarr"))
def test_every_kind_of_output_holds_the_same(name, known, whole, tmp_path):
    for needed in ("tifffile", "zarr"):
        pytest.importorskip(needed)
    out, bias = tmp_path / name, tmp_path / f"bias_{name}"
    done = {"options": OPTIONS, "correction": whole.correction}
    stream(known.image, out, bias_out=bias, memory_gb=9 * PLANE_GB, **done)
    close(open_source(out).read(0, 28), whole.corrected)
    close(open_source(bias).read(0, 28), whole.bias)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, f"bias_{name}"])


def test_a_nifti_header_is_kept(known, whole, tmp_path):
    affine = np.array([[0, 0, -2, 5], [1.5, 0, 0, 6], [0, 1, 0, 7], [0, 0, 0, 1.0]])
    image = nb.Nifti1Image((known.image * 900).astype(np.int16).T, affine)
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "in.nii.gz")
    path, done = tmp_path / "in.nii.gz", whole.correction
    np.testing.assert_allclose(plan_stream(path, None, None, OPTIONS, 1).zooms, (2, 1, 1.5))
    options = StackOptions(**vars(OPTIONS) | {"zero_outside": False})
    stream(path, tmp_path / "out.nii", options=options, correction=done)
    made = nb.load(tmp_path / "out.nii")
    np.testing.assert_allclose(made.affine, affine)
    assert made.get_data_dtype() == np.float32
    given = nb.load(tmp_path / "in.nii.gz").get_fdata(dtype=np.float32).T
    expected = correct_planes(given, done, 0).image
    close(made.get_fdata(dtype=np.float32).T, expected)


def test_a_mask_file_is_read_by_slabs(known, whole, tmp_path):
    nb.Nifti1Image(known.mask.astype(np.uint8).T, np.eye(4)).to_filename(tmp_path / "mask.nii")
    out, mask, small = np.empty_like(known.image), tmp_path / "mask.nii", 3 * PLANE_GB
    plan = plan_stream(known.image, mask, None, OPTIONS, small)
    thin, _, inside = thinned_stack(plan, nothing)
    expected = thinned_at_once(known.image, known.mask, (1.0, 1.0, 1.0), OPTIONS)
    np.testing.assert_array_equal(inside, expected.mask)
    np.testing.assert_array_equal(thin, expected.thin)
    done = {"options": OPTIONS, "correction": whole.correction}
    stream(known.image, out, mask=mask, memory_gb=small, **done)
    everywhere = correct_planes(known.image, whole.correction, 0).image
    close(out, np.where(known.mask, everywhere, 0))


def test_a_correction_is_saved_and_shared_out(known, whole, tmp_path):
    """Two workers fill one array, each some of its planes."""
    save_correction(tmp_path / "c.npz", whole.correction)
    loaded = load_correction(tmp_path / "c.npz")
    assert [(each.start, each.stop) for each in loaded.sections] == [(0, 14), (14, 28)]
    out = np.zeros_like(known.image)
    for planes in ((0, 11), (11, 28)):
        stream(known.image, out, options=OPTIONS, correction=tmp_path / "c.npz", planes=planes)
    close(out, whole.corrected)


def test_workers_in_processes_of_their_own_fill_one_array(known, whole, tmp_path):
    """The worker of docs/serial-sections.md, twice at the same time, on ranges of chunks."""
    zarr = pytest.importorskip("zarr")
    page = (ROOT / "docs" / "serial-sections.md").read_text(encoding="utf-8")
    (worker,) = re.findall(r"`worker.py`:\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (words,) = re.findall(r"^(python worker.py .*) & wait$", page, re.MULTILINE)
    (tmp_path / "worker.py").write_text(worker)
    zarr.save_array(tmp_path / "stack.zarr", known.image)
    shape = known.image.shape
    zarr.create_array(tmp_path / "out.zarr", shape=shape, dtype="float32", chunks=(8, 56, 56))
    save_correction(tmp_path / "correction.npz", whole.correction)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen([sys.executable, *each.split()[1:]], cwd=tmp_path, env=env)
        for each in words.split(" & ")
    ]
    assert [each.wait(timeout=300) for each in workers] == [0, 0]
    close(zarr.open(tmp_path / "out.zarr", mode="r")[:], whole.corrected)


def test_a_dask_array_gives_dask_arrays(known, whole):
    dask = pytest.importorskip("dask.array")
    lazy = dask.from_array(known.image, chunks=(14, 31, 56))
    require_same_samples(lazy, known.image, 9 * PLANE_GB)
    done = stream(lazy, options=OPTIONS, correction=whole.correction)
    assert done.corrected.chunks == lazy.chunks and done.corrected.dtype == np.float32
    close(done.corrected.compute(scheduler="threads", num_workers=2), whole.corrected)
    close(done.bias[3:5, :7].compute(), whole.bias[3:5, :7])


KILLED = """
import os, signal, sys
import numpy as np
from n4ax_bids.stacks.streaming import stream
from tests.stacks.test_streaming import OPTIONS, PLANE_GB

def progress(step, n, of):
    if step == "correct" and n >= 9:
        os.kill(os.getpid(), signal.SIGKILL)

how = {"memory_gb": 3.01 * PLANE_GB, "progress": progress, "correction": sys.argv[3]}
stream(sys.argv[1], sys.argv[2], options=OPTIONS, **how)
"""


@pytest.mark.parametrize("name", ("out.nii", "folder", "out.ome.zarr"))
def test_a_killed_run_leaves_no_final_file_and_is_resumed(name, known, whole, tmp_path):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / name
    before = given.read_bytes()
    save_correction(tmp_path / "c.npz", whole.correction)
    call = [sys.executable, "-c", KILLED, str(given), str(out), str(tmp_path / "c.npz")]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(call, check=False, env={**os.environ, "PYTHONPATH": root}, cwd=root)
    assert done.returncode == -signal.SIGKILL
    assert given.read_bytes() == before and not out.exists()
    assert (tmp_path / f"{name}.partial").exists()
    seen = []
    stream(
        given,
        out,
        options=OPTIONS,
        resume=True,
        progress=lambda step, n, of: seen.append((step, n)),
    )
    assert [step for step, _ in seen] == ["correct"]  # neither read nor estimated again
    close(open_source(out).read(0, 28), whole.corrected)
    assert not list(tmp_path.glob("*partial*"))


def interrupt(whole, given, out, **more):
    """Stop a run when its first slab of three planes is written."""

    def stop(step, n, of):
        if step == "correct":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        how = {"memory_gb": 3.01 * PLANE_GB, "correction": whole.correction, **more}
        stream(given, out, options=OPTIONS, progress=stop, **how)


@pytest.mark.parametrize(
    "other", ({"options": StackOptions(**vars(OPTIONS) | {"strength": 0.5})}, {"mask": None})
)
def test_another_call_is_not_resumed(known, whole, tmp_path, other):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    with pytest.raises(ValueError, match="another input or other options"):
        stream(given, out, **{"options": OPTIONS, "resume": True} | other)


@pytest.mark.parametrize("text", ("{", "[1]", "{}", '{"call": 1, "planes": null}'))
def test_a_damaged_journal_is_named(known, tmp_path, text):
    for name in ("o.nii.partial", "o.nii.partial.npz"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "o.nii.partial.json").write_text(text)
    with pytest.raises(ValueError, match="o.nii.partial.json: is damaged; expected"):
        stream(known.image, tmp_path / "o.nii", resume=True)


def test_a_run_whose_output_is_gone_starts_anew(known, whole, tmp_path):
    """An output that begins in the middle would hold 0 in the planes before."""
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    (tmp_path / "out.nii.partial").unlink()
    seen = []
    stream(
        given,
        out,
        options=OPTIONS,
        resume=True,
        correction=whole.correction,
        memory_gb=3.01 * PLANE_GB,
        progress=lambda step, n, of: seen.append(n),
    )
    assert seen[0] == 3
    close(open_source(out).read(0, 28), whole.corrected)


@pytest.mark.parametrize("name", ("out.nii", "folder", "out.ome.zarr"))
def test_a_second_run_forgets_the_planes_of_the_first(name, known, whole, tmp_path, monkeypatch):
    """It writes anew; if it ends before its first slab, no plane is there to be resumed from."""
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / name
    interrupt(whole, given, out)
    how = {"options": OPTIONS, "correction": whole.correction}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(streaming, "correct_slabs", raising(KeyboardInterrupt))
        stream(given, out, **how)
    stream(given, out, resume=True, **how)
    close(open_source(out).read(0, 28), whole.corrected)


def raising(error):
    def function(*_):
        raise error

    return function


def test_a_resumed_run_keeps_its_correction(known, whole, tmp_path):
    given, out = write_as(".nii", tmp_path, known.image), tmp_path / "out.nii"
    interrupt(whole, given, out)
    other = whole.correction._replace(scales=2 * whole.correction.scales)
    stream(given, out, options=OPTIONS, resume=True, correction=other)
    close(open_source(out).read(0, 28), whole.corrected)


def test_a_run_in_place_says_that_it_cannot_be_resumed(known):
    with pytest.raises(ValueError, match="fills an array cannot be resumed"):
        stream(known.image, np.empty_like(known.image), resume=True)


@pytest.mark.parametrize("names", (("o.nii.gz", None), ("o.nii", "b.nii.gz"), ("o", "b.tif")))
def test_files_written_in_one_go_say_so_too(known, tmp_path, names):
    out, bias = (name and tmp_path / name for name in names)
    with pytest.raises(ValueError, match=r"(o.nii.gz|b.nii.gz|b.tif): a compressed file"):
        stream(known.image, out, bias_out=bias, resume=True)


def test_a_field_in_an_array_cannot_be_resumed_either(known, tmp_path):
    with pytest.raises(ValueError, match="fills an array cannot be resumed"):
        stream(known.image, tmp_path / "o.nii", bias_out=np.empty_like(known.image), resume=True)


@pytest.mark.parametrize(
    ("out", "bias", "planes", "message"),
    [
        ("o.nii", None, (0, 7), "expected arrays as outputs"),
        (None, "b.nii", (0, 7), "expected arrays as outputs"),
        (None, None, (7, 29), r"planes is \(7, 29\); expected 0 to 28"),
        ("o.nii", "o.nii", None, "the name of the corrected stack"),
    ],
)
def test_outputs_that_would_be_wrong_are_refused(known, tmp_path, out, bias, planes, message):
    given = tmp_path / out if out else np.empty_like(known.image)
    with pytest.raises(ValueError, match=message):
        stream(known.image, given, bias_out=bias and tmp_path / bias, planes=planes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
@pytest.mark.parametrize("name", ("out.nii", "out.tif", "planes", "out.zarr"))
def test_a_full_disk_is_named_and_nothing_is_final(name, known, whole, tmp_path):
    """A limit for the size of a file fails as a full disk does: with an error of the system."""
    import resource

    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "tried").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, usual[1]))  # a plane has 12 kB
    try:
        with pytest.raises(OSError, match=rf"File too large.*{name}"):
            streaming.stream(
                known.image,
                tmp_path / "tried" / name,
                options=OPTIONS,
                correction=whole.correction,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not (tmp_path / "tried" / name).exists()


def test_an_output_inside_the_input_is_refused(known, tmp_path):
    import tifffile

    (tmp_path / "planes").mkdir()
    for k, plane in enumerate(known.image[:3]):
        tifffile.imwrite(tmp_path / "planes" / f"{k}.tif", plane)
    for name in ("new", "new.zarr"):
        with pytest.raises(ValueError, match="lies inside the input"):
            stream(tmp_path / "planes", tmp_path / "planes" / name, options=OPTIONS)
    with pytest.raises(ValueError, match="lies inside the input"):
        stream(tmp_path / "planes", tmp_path / "new", bias_out=tmp_path / "planes/new")


@pytest.mark.parametrize(
    ("vol", "message"),
    [
        ("nothing.nii", "nothing.nii: no such file"),
        (np.ones((3, 3)), r"vol has shape \(3, 3\)"),
        (7, "vol is 7; expected an array or a path"),
        (np.ones((3, 3, 3), complex), "vol has the type complex128; expected real numbers"),
        (np.ones((3, 3, 3), object), "vol has the type object; expected real numbers"),
        (np.ones((3, 3, 3), "U1"), "vol has the type <U1; expected real numbers"),
    ],
)
def test_what_is_no_stack_is_refused(vol, message, tmp_path):
    with pytest.raises((OSError, TypeError, ValueError), match=message):
        stream(vol, tmp_path / "out.nii")


def test_an_existing_output_is_not_overwritten(known, tmp_path):
    (tmp_path / "out.nii").write_text("mine")
    with pytest.raises(FileExistsError, match="out.nii: exists already"):
        stream(known.image, tmp_path / "out.nii")
    assert (tmp_path / "out.nii").read_text() == "mine"


MEMORY = """
import json, sys
import numpy as np
from n4ax_bids.options import StackOptions
from n4ax_bids.stacks.streaming import stream

def status(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name)) * 1024

given, made, budget = sys.argv[1], sys.argv[2], float(sys.argv[3])
small = np.random.default_rng(0).uniform(1, 2, (16, 64, 64)).astype(np.float32)
# Compiling takes about 100 MB whatever the volume, much of so small a budget: hence shrink 8.
options = StackOptions(
    shrink_factor=8, n_iterations=(8, 8), section_spline_mm=1000, global_spline_mm=1000
)
stream(small, small, options=options)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
if given.endswith(".npy"):
    vol = np.load(given, mmap_mode="r")
    out = np.lib.format.open_memmap(made, "w+", np.float32, vol.shape)
else:
    vol, out = given, made
done = stream(vol, out, options=options, memory_gb=budget / 1e9)
print(json.dumps({"rise": status("VmHWM") - before, **done.seconds}))
"""


def rise_of(given: Path, made: Path, budget: float) -> dict[str, float]:
    """Return how far a stream's peak of resident memory lies above that of a small stream."""
    call = [sys.executable, "-c", MEMORY, str(given), str(made), str(budget)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        call, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


GIGABYTES = float(os.environ.get("N4AX_STACK_GB", "1"))
"""size of the stacks that do not fit into the budget; 8.6 has 2048 planes"""
KINDS = [("in.npy", "out.npy"), ("in.nii", "out.ome.zarr")]
if GIGABYTES > 1:
    KINDS.append(("in.nii", "out.nii"))


def write_large(path: Path, n_planes: int) -> np.ndarray:
    """Write a cylinder under a field with noise, plane by plane; return where it surely is."""
    y, x = np.mgrid[-1:1:1024j, -1:1:1024j]
    plane = (np.where(y**2 + x**2 < 0.6, 1.0, 0.1) * np.exp(0.3 * x)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.02, (1024, 2048)).astype(np.float32)
    if path.suffix == ".npy":
        vol = np.lib.format.open_memmap(path, "w+", np.float32, (n_planes, 1024, 1024))
    else:
        header = nb.Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((1024, 1024, n_planes))
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(header.binaryblock)
        os.truncate(path, 352 + 4 * 1024 * 1024 * n_planes)
        vol = np.memmap(path, np.float32, "r+", 352, (n_planes, 1024, 1024))
    for k in range(n_planes):
        first = 37 * k % 1024
        vol[k] = (plane + noise[:, first : first + 1024]) * (1 + 0.0001 * k)
    vol.flush()
    return (y**2 + x**2) < 0.5


@pytest.mark.large
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("names", KINDS)
def test_a_volume_four_times_the_budget_is_corrected_within_it(names, tmp_path):
    """S13, with a pyramid as well."""
    given, made = (tmp_path / name for name in names)
    n = round(GIGABYTES * 1e9 / 4 / 1024**2)
    inside = write_large(given, n)
    budget = n * 1024 * 1024 * 4 / 4
    figures = rise_of(given, made, budget)
    print(given.name, made.name, figures, "of the budget:", figures["rise"] / budget)
    assert figures["rise"] <= 1.2 * budget, figures
    if made.suffix == ".npy":
        out = np.load(made, mmap_mode="r")
    else:
        out = pytest.importorskip("zarr").open(made, mode="r")["0"]
    inner = np.asarray(out[n // 2])[inside]
    assert inner.std() / inner.mean() < 0.05
    if GIGABYTES > 1 and made.suffix == ".zarr":
        figures = rise_of(made, tmp_path / "again.ome.zarr", budget)
        print("from this OME-Zarr to another:", figures, figures["rise"] / budget)
        assert figures["rise"] <= 1.2 * budget, figures
    shutil.rmtree(tmp_path)
