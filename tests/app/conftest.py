"""Tiny BIDS datasets, and a fake node that needs no solve."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

TURN = nb.eulerangles.euler2mat(z=0.2, y=-0.1, x=0.15)
AFFINE = nb.affines.from_matvec(TURN @ np.diag([-1.5, 1.6, 1.7]), [12, -14, 9])
"""oblique, left-handed, anisotropic"""
HEAD_SHAPE = (68, 72, 66)


def _phantom(shape, seed):
    """Two tissues in a dark background, shaded by a smooth field; all voxels above zero."""
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((x**2).sum(0))
    tissue = np.where(radius < 0.5, 400.0, np.where(radius < 0.85, 250.0, 5.0))
    field = np.exp(0.3 * x[0] - 0.2 * x[1] * x[2])
    return (tissue * field + rng.uniform(0.5, 4, shape)).astype(np.float32)


def _write_image(path: Path, *, shape=(24, 22, 20), seed=0, dtype=np.int16, codes=(1, 1)):
    _save(path, _phantom(shape, seed), AFFINE, dtype=dtype, codes=codes)


def _save(path: Path, data, affine, *, dtype=np.float32, codes=(1, 1)):
    image = nb.Nifti1Image(data, affine)
    image.set_data_dtype(dtype)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture
def write_image():
    """Write a small image: (path, *, shape, seed, dtype, codes)."""
    return _write_image


def _write_head(path: Path, *, field=2.5):
    """Write a head of 3 mm voxels under a strong field: scalp, skull, grey and white matter."""
    axes = np.ix_(*(3.0 * (np.arange(n) - n / 2) for n in HEAD_SHAPE))
    away = np.sqrt(sum(axis**2 for axis in axes))
    image = np.zeros(HEAD_SHAPE)
    for radius, value in ((92, 120), (84, 8), (74, 75), (58, 100)):
        image[away < radius] = value
    image *= np.exp(field * ((away / 92) ** 2 - 0.5))
    image = np.abs(image + np.random.default_rng(0).normal(0, 2, HEAD_SHAPE)).astype(np.float32)
    _save(path, image, nb.affines.from_matvec(np.diag([3.0] * 3), [-100, -100, -90]))


@pytest.fixture
def write_head():
    """Write a head with a brain in it: (path, *, field)."""
    return _write_head


@pytest.fixture
def places(make_dataset, write_head, tmp_path):
    """Make a dataset of one head; return its root and the place for the outputs."""
    root = make_dataset()
    write_head(root / "sub-01/anat/sub-01_T1w.nii.gz")
    return root, tmp_path / "out"


def _make_dataset(
    root: Path, *names: str, json_files: dict | None = None, empty: bool = False
) -> Path:
    """Make a BIDS dataset in a folder: images of these names, and JSON files with content.

    With `empty=True` the images are empty files, enough for code that reads only names.
    """
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for seed, name in enumerate(names):
        path = root / name
        if empty:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            _write_image(path, seed=seed)
    for name, content in (json_files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


@pytest.fixture
def make_dataset(tmp_path):
    """Make a dataset in the test's own folder: (*names, json_files, empty) → its root."""
    return partial(_make_dataset, tmp_path / "raw")


@pytest.fixture
def validator():
    """The BIDS validator; a test requests this fixture if its run should call the validator."""
    from n4ax_bids.app.select import validation

    program = validation._program()
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    return program


@pytest.fixture(autouse=True)
def unvalidated(request, monkeypatch):
    """Hide the validator from all other tests, because most datasets here are not valid."""
    from n4ax_bids.app.select import validation

    if "validator" not in request.fixturenames:
        monkeypatch.setattr(validation, "_program", lambda: None)


@pytest.fixture(scope="session", autouse=True)
def quick_index():
    """Let every index in memory begin with a copy of the empty one: pybids takes longer to make it
    than most runs here take for the rest."""
    with pytest.MonkeyPatch.context() as patch:
        copy_empty_index(patch)
        yield


def copy_empty_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pybids's empty database, with its tables of entities, only once for each process."""
    from bids.layout import db

    made, empty = db.ConnectionManager.reset_database, {}

    def reset_database(self, init_args, config):
        if self.database_file is not None:
            return made(self, init_args, config)
        here = self.engine.raw_connection().driver_connection
        key = json.dumps(config)
        if key in empty:
            empty[key].backup(here)
            self.session.add(db.LayoutInfo(**init_args))
            return self.session.commit()
        made(self, init_args, config)
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        here.backup(kept)
        kept.execute("DELETE FROM layout_info")
        kept.commit()
        empty[key] = kept

    monkeypatch.setattr(db.ConnectionManager, "reset_database", reset_database)


@pytest.fixture
def fake_node(monkeypatch):
    """Install a fake node that only halves each image; return the list of its inputs."""
    return put_fake_node(monkeypatch)


@pytest.fixture
def forgetful_node(monkeypatch):
    """The same node without digests of its inputs, for tests that replace these later."""
    return put_fake_node(monkeypatch, digests=False)


@pytest.fixture
def finishing_node(fake_node):
    """The same as `fake_node`, for tests about finished images."""
    return fake_node


def put_fake_node(
    monkeypatch: pytest.MonkeyPatch, *, digests: bool = True
) -> list[SimpleNamespace]:
    """Install the fake node; without digests of its inputs no image counts as finished."""
    from n4ax_bids import interfaces
    from n4ax_bids.app.machine import pool

    given = []

    class Node:
        def __init__(self, **inputs):
            self.inputs = SimpleNamespace(**inputs)
            given.append(self.inputs)

        def run(self, cwd):
            return SimpleNamespace(outputs=SimpleNamespace(**_halve(self.inputs, digests)))

    monkeypatch.setattr(interfaces, "BiasFieldCorrection", Node)
    monkeypatch.setattr(pool, "start", lambda share: "none")
    return given


def _halve(inputs: SimpleNamespace, digests: bool) -> dict:
    """Write half the image, a field of 2 and a lattice; return a node's outputs."""
    from n4ax_bids.io.lattice import save_lattice

    image = nb.load(inputs.input_image)
    half = nb.Nifti1Image(image.get_fdata(dtype=np.float32) / 2, image.affine)
    two = nb.Nifti1Image(np.full(image.shape, 2, np.float32), image.affine)
    half.to_filename(inputs.output_image)
    two.to_filename(inputs.bias_image)
    place = {"order": 3, "first": (0, 0, 0), "step": (0.1, 0.1, 0.1), "clamp": (1, 1, 1)}
    lattice = Path(inputs.lattice_image)
    save_lattice(lattice, np.zeros((4, 4, 4)), **place, shape=image.shape, affine=image.affine)
    return {
        "output_image": inputs.output_image,
        "bias_image": inputs.bias_image,
        "lattice_image": str(lattice),
        "correction": _correction(inputs, place | {"shape": image.shape}, digests),
    }


def _correction(inputs: SimpleNamespace, lattice: dict, digests: bool) -> dict:
    """Return the output `correction` of the real node, as plain values and without JAX."""
    names = ("input_image", "mask_image", "weight_image")
    read = {name: Path(getattr(inputs, name)) for name in names if hasattr(inputs, name)}
    sha256 = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in read.items()}
    return {
        "output_image": str(inputs.output_image),
        "bias_image": str(inputs.bias_image),
        "lattice_image": str(inputs.lattice_image),
        "found_mask_image": None,
        "method_images": {},
        "mask": "otsu",
        "mask_found": {},
        "n_voxels_mask": 7,
        "shift": 0.0,
        "non_positive": 0,
        "device": "none",
        "method": "n4",
        "details": {
            "n_voxels_used": 7,
            "n_iterations": [4, 3],
            "convergence": [0.1, None],
            "converged": [False, True],
            "shrink_factors": [4, 4, 4],
            "shrink_start": [1, 1, 1],
            "n_control_points": [4, 4, 4],
        },
        "lattice": lattice,
        "rescaled": False,
        "rescale_slope": 1.0,
        "rescale_intercept": 0.0,
        "stored_slope": 1.0,
        "stored_intercept": 0.0,
        "field_min": 1.9,
        "field_max": 2.1,
        "field_cv": 0.1,
        "notes": [],
        "sha256": sha256 if digests else {},
        "seconds": {},
    }
