"""Valid BIDS out, one output for each input: every combination of entities, the demo."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import select

ROOT = Path(__file__).parents[3]
OPTIONAL = ("task-x", "acq-a", "ce-gd", "rec-n", "run-1", "echo-1", "part-mag", "chunk-1")
"""what a weighted image may have, in the order of BIDS"""


def combined(suffix: str, *required: str, pairs_with: tuple[str, ...] = OPTIONAL) -> list[str]:
    """Names with none, each, each two and all of the optional entities, and the required ones."""
    order = ["sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "flip", "inv", "mt"]
    order += ["part", "chunk"]
    chosen = chain.from_iterable(combinations(pairs_with, n) for n in (0, 1, 2, len(pairs_with)))
    names = []
    for some in chosen:
        parts = sorted({*some, *required}, key=lambda part: order.index(part.split("-")[0]))
        names.append("_".join([*parts, suffix]))
    return names


@pytest.fixture
def everything(make_dataset, write_image):
    """A dataset with every entity, every two of them, all of them; both kinds of file."""
    stems = combined("T1w")
    few = ("acq-a", "run-1", "chunk-1")
    stems += combined("MEGRE", "echo-1", pairs_with=few) + ["run-1_echo-2_MEGRE", "echo-2_MEGRE"]
    stems += combined("MP2RAGE", "inv-1", pairs_with=few) + ["run-1_inv-2_MP2RAGE"]
    stems += ["UNIT1", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT2", "run-1_run-1_T2w"][:6]
    names = [f"sub-01/anat/sub-01_{stem}.nii.gz" for stem in dict.fromkeys(stems)]
    for session in ("pre", "post"):
        folder = f"sub-02/ses-{session}/anat/sub-02_ses-{session}"
        names += [f"{folder}_T1w.nii", f"{folder}_run-1_T1w.nii.gz", f"{folder}_run-2_T2w.nii"]
    root = make_dataset()
    for seed, name in enumerate(names):
        write_image(root / name, seed=seed, shape=(13, 12, 11))
    odd = root / names[0]  # a trailing axis of one image
    image = nb.load(odd)
    nb.Nifti1Image(image.get_fdata()[..., np.newaxis], image.affine).to_filename(odd)
    return root, names


MODALITIES = ["T1w", "T2w", "MEGRE", "MP2RAGE", "UNIT1", "FLAIR", "PDw", "T2starw", "inplaneT2"]


def test_every_combination_of_entities(everything, tmp_path, bids_errors):
    root, names = everything
    assert len(names) >= 60
    out = tmp_path / "out"
    jobs = select(Request(root, out, modalities=tuple(MODALITIES))).jobs
    assert sorted(job.relative for job in jobs) == sorted(names)
    outputs = [path for job in jobs for path in job.outputs.images]
    assert len(set(outputs)) == 3 * len(names)
    flags = ["-m", *MODALITIES, "--device", "cpu", "--n-iterations", "2", "-v"]
    flags += ["--mask", "otsu", "--save-mask"]
    assert cli.main([str(root), str(out), "participant", *flags]) == 0
    assert all(path.is_file() for path in outputs)
    masks = list(out.rglob("sub-*_desc-otsu_mask.nii.gz"))
    assert len(masks) == len(names)
    assert set(out.rglob("sub-*_desc-*.nii.gz")) == {*outputs, *masks}
    for job in jobs:
        made = nb.load(job.outputs.corrected)
        assert made.shape == (13, 12, 11)
        np.testing.assert_array_equal(made.affine, nb.load(job.source).affine)
        # Every entity of the source is in the name, where it was.
        stem, _, suffix = job.name.rpartition("_")
        assert job.outputs.corrected.name == f"{stem}_desc-biascorr_{suffix}.nii.gz"
    assert bids_errors(out) == []


def test_the_demo(tmp_path, bids_errors):
    pytest.importorskip("nilearn")
    words = [sys.executable, str(ROOT / "examples" / "demo.py"), str(tmp_path), "--step", "4"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bids_errors(tmp_path / "derivatives") == []
    assert bids_errors(tmp_path / "bids") == []
