"""The ANTs program on PATH, the packages that call it, a small image, a small real head."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.ants.base import Info

# Importing the package `ants` takes seconds; its compiled module holds the programs.
PROGRAM = """#!{python}
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lib", "{library}")
lib = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lib)
sys.exit(lib.{name}(sys.argv[1:]))
"""


@pytest.fixture
def ants_on_path(tmp_path, monkeypatch):
    """The ANTs program that antspyx carries, as an executable that nipype finds."""
    package = importlib.util.find_spec("ants")
    if package is None:
        pytest.skip("antspyx is not installed")
    (library,) = Path(package.origin).parent.glob("lib.*.so")
    folder = tmp_path / "ants_bin"
    folder.mkdir()
    for name in (
        "N4BiasFieldCorrection",
        "antsRegistration",
    ):  # nipype asks the second its version
        program = folder / name
        program.write_text(PROGRAM.format(python=sys.executable, library=library, name=name))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(Info, "_version", None)


@pytest.fixture
def no_ants(monkeypatch):
    """nipype's class leaves out -r where it finds an old ANTs; ours never asks for one."""
    monkeypatch.setattr(Info, "version", classmethod(lambda cls: None))


@pytest.fixture
def image(tmp_path, rng):
    """A small int16 image in a folder that is not the working directory."""
    x = np.linspace(-1, 1, 20)[:, None, None]
    data = rng.choice([300, 500, 700], (20, 18, 16)) * np.exp(0.3 * x)
    data *= 1 + 0.02 * rng.standard_normal(data.shape)
    path = tmp_path / "data" / "sub-01_T1w.nii.gz"
    path.parent.mkdir()
    nb.Nifti1Image(data.astype(np.int16), np.diag([1.0, 1.1, 1.2, 1])).to_filename(path)
    (tmp_path / "work").mkdir()
    return path


@pytest.fixture
def work(image):
    """A working directory beside the folder of the image."""
    return image.parents[1] / "work"


@pytest.fixture(scope="session")
def head(test_data, tmp_path_factory) -> Path:
    """A real T1w head, every second voxel of each axis."""
    image = nb.load(test_data("bids-small/sub-001/anat/sub-001_T1w.nii.gz")).slicer[::2, ::2, ::2]
    path = tmp_path_factory.mktemp("head") / "sub-001_T1w.nii.gz"
    image.to_filename(path)
    return path


@pytest.fixture(scope="session")
def head_weight(head) -> Path:
    """A weight with zeros and fractions on the grid of the head."""
    image = nb.load(head)
    data = image.get_fdata(dtype=np.float32)
    weight = np.clip((data - data.mean()) / (2 * data.std()), 0, 1)
    assert {0, 1} < set(np.unique(weight))
    path = head.with_name("weight.nii.gz")
    nb.Nifti1Image(weight, image.affine).to_filename(path)
    return path


# Content is not looked at while a workflow is built; each of these is asked for by name.
TEMPLATES = (
    *(
        f"tpl-OASIS30ANTs/tpl-OASIS30ANTs_res-01_{what}"
        for what in (
            "T1w",
            "label-brain_probseg",
            "desc-BrainCerebellumExtraction_mask",
            "label-WM_probseg",
            "label-BS_probseg",
        )
    ),
    *(
        f"tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-{what}"
        for what in (
            "02_desc-fMRIPrep_boldref",
            "02_desc-brain_mask",
            "01_label-brain_probseg",
        )
    ),
)


@pytest.fixture(scope="session")
def niworkflows(tmp_path_factory, request):
    """Let niworkflows and its kin find their templates without a network.

    Skips the test without them, but fails it where these tests are asked for: -m clients.
    """
    for name in ("niworkflows", "smriprep", "sdcflows"):
        if not importlib.util.find_spec(name):
            reason = f"{name} is not installed: pip install 'n4ax_bids[clients]'"
            asked_for = request.config.getoption("markexpr") == "clients"
            pytest.fail(reason) if asked_for else pytest.skip(reason)
    home = tmp_path_factory.mktemp("templateflow")
    with pytest.MonkeyPatch.context() as patcher:
        assert "templateflow" not in sys.modules, "it reads its folder when it is imported"
        patcher.setenv("TEMPLATEFLOW_HOME", str(home))
        import templateflow.api  # noqa: F401  unpacks the archive's names, with empty files

        for name in TEMPLATES:
            stand_in = nb.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.diag([4, 4, 4, 1.0]))
            stand_in.to_filename(home / f"{name}.nii.gz")
        yield
