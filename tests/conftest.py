"""Real data, a made image, the BIDS validator, seeds, devices, stand-ins for other programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Before jax is imported anywhere, and for the programs that tests start as well.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("NIPYPE_NO_ET", "1")  # no telemetry, no network
# Programs that one test's processes compile serve the next one's; the user's folder stays clean.
os.environ.setdefault("N4AX_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "n4ax"))

# nipype's engines look for results every 2 s, if nobody tells them otherwise.
_NIPYPE = Path(__file__).parents[1] / ".pytest_cache" / "nipype"
_NIPYPE.mkdir(parents=True, exist_ok=True)
(_NIPYPE / "nipype.cfg").write_text("[execution]\npoll_sleep_duration = 0.1\n")
os.environ.setdefault("NIPYPE_CONFIG_DIR", str(_NIPYPE))

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("N4AX_TEST_DATA") or ROOT.parent / "shared" / "data")
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where JAX sees none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="JAX sees no GPU"))


def _has_gpu() -> bool:
    import jax

    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module():
    """Let go of compiled programs before Linux refuses the process one more piece of memory.

    The package does so at half of what Linux allows, but not for programs that tests compile.
    """
    import jax

    from n4ax_bids.core.memory_maps import is_crowded

    yield
    if is_crowded(1 / 3):
        jax.clear_caches()


@pytest.fixture(scope="session")
def test_data() -> Callable[[str], Path]:
    """Return the path of a real image: `test_data("head-philips3t_T1w.nii.gz")`.

    The folder is N4AX_TEST_DATA, or ../shared/data beside the repository. Where the file is not
    there the test is skipped; with CI=true it fails, for there nothing may go untested unseen.
    """

    def path_of(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            reason = f"no real data at {path}; set N4AX_TEST_DATA"
            pytest.fail(reason) if IN_CI else pytest.skip(reason)
        return path

    return path_of


@pytest.fixture(scope="session")
def bids_errors() -> Callable[[Path], list[tuple]]:
    """Return the errors that the BIDS validator finds in a folder."""
    here = Path(sys.executable).with_name("bids-validator-deno")
    program = str(here) if here.exists() else shutil.which("bids-validator-deno")
    if program is None:
        reason = "bids-validator-deno is not installed"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)

    def errors(folder: Path) -> list[tuple]:
        done = subprocess.run(
            [program, str(folder), "--format", "json", "--ignoreWarnings"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 16), done.stderr
        found = json.loads(done.stdout)["issues"]["issues"]
        return [(issue["code"], issue.get("subCode"), issue.get("location")) for issue in found]

    return errors


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20101109)


@pytest.fixture
def ball(tmp_path, rng):
    """A folder with an image, a mask of labels and fractions, and a weight."""
    from tests.ball import save_ball

    return save_ball(tmp_path, rng)


@pytest.fixture
def holed(ball):
    """The ball with voxels that are no numbers, all of them outside the mask files."""
    from tests.ball import save_holed

    return save_holed(ball)


@pytest.fixture
def one_itk_thread():
    """ITK's sums depend on its threads, by 2e-3 on an image of 67 voxels with two of them."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


# Small programs that behave as SynthStrip and HD-BET do: they read an image and write a mask.
_FLAGS = {
    "synthstrip": """
parser.add_argument("-i", required=True)
parser.add_argument("-m", required=True)
parser.add_argument("-g", action="store_true")
parser.add_argument("--model", required={needs_model})
""",
    "hd-bet-1": """
parser.add_argument("-i", required=True)
parser.add_argument("-o", required=True)
parser.add_argument("-mode", default="accurate")
parser.add_argument("-device", default="0")
parser.add_argument("-tta", default=1, type=int)
parser.add_argument("-s", "--save_mask", default=1, type=int)
""",
    "hd-bet-2": """
parser.add_argument("-i", required=True)
parser.add_argument("-o", required=True)
parser.add_argument("-device", default="cuda")
parser.add_argument("--disable_tta", action="store_true")
parser.add_argument("--save_bet_mask", action="store_true")
parser.add_argument("--no_bet_image", action="store_true")
""",
}
_MASK = {
    "synthstrip": "args.m",
    "hd-bet-1": 'args.o[:-7] + "_mask.nii.gz"',
    "hd-bet-2": 'args.o[:-7] + "_bet.nii.gz"',
}
_ON_GPU = {"synthstrip": "args.g", "hd-bet-1": 'args.device != "cpu"'}
_PROGRAM = """#!{python}
import argparse, json, os, signal, subprocess, sys, time

parser = argparse.ArgumentParser()
{flags}
args = parser.parse_args()
import nibabel as nb
import numpy as np

image = nb.load(args.i)
names = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
seen = {{
    "words": sys.argv[1:],
    "folder": os.getcwd(),
    "axes": nb.aff2axcodes(image.affine),
    "dtype": str(image.get_data_dtype()),
    "pid": os.getpid(),
    "environment": {{name: os.environ.get(name) for name in names}},
}}
with open({log!r}, "a") as file:
    file.write(json.dumps(seen) + "\\n")
behaviour = {behaviour!r}
print("Configuring model", flush=True)
if behaviour == "fails" or (behaviour == "fails on the GPU" and {on_gpu}):
    print("Traceback (most recent call last):\\nRuntimeError: no weights", file=sys.stderr)
    sys.exit(3)
if behaviour == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "hangs":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open({log!r} + ".child", "w") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)
values = image.get_fdata()
inside = values > {level}
if behaviour == "finds nothing":
    inside[...] = False
affine = image.affine
if behaviour == "takes another grid":
    inside = inside[:-1]
if behaviour == "moves the mask":
    affine = affine.copy()
    affine[0, 3] += 5
if behaviour == "writes rubbish":
    open({mask}, "w").write("no image")
elif behaviour != "writes nothing":
    nb.Nifti1Image(inside.astype(np.uint8), affine).to_filename({mask})
"""


def _install(
    folder: Path,
    command: str = "mri_synthstrip",
    *,
    flags: str = "synthstrip",
    behaviour: str = "works",
    level: float = 100.0,
    head: str = "",
) -> Path:
    """Put a program into a folder; return the log of what it was called with.

    Parameters
    ----------
    folder : made if it is not there
    command : its name
    flags : key of `_FLAGS`, whose words it takes
    behaviour : what it does
    level : intensity above which a voxel is brain
    head : lines that its text begins with, behind the first
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{command}.log"
    text = _PROGRAM.format(
        python=sys.executable,
        flags=_FLAGS[flags].format(needs_model=command.startswith("nipreps")),
        mask=_MASK[flags],
        on_gpu=_ON_GPU.get(flags, 'args.device == "cuda"'),
        log=str(log),
        behaviour=behaviour,
        level=level,
    )
    first, _, rest = text.partition("\n")
    path = folder / command
    path.write_text(f"{first}\n{head}{rest}")
    path.chmod(0o755)
    return log


@pytest.fixture
def install() -> Callable[..., Path]:
    """Put a program that behaves as SynthStrip or HD-BET into a folder."""
    return _install


def _gone(pid: int, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # it has ended, and nobody has waited for it
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def gone() -> Callable[..., bool]:
    """Say whether a process ends within seconds."""
    return _gone


@pytest.fixture
def wait_for() -> Callable[..., list[int]]:
    """Wait for a file with numbers of processes; return them."""

    def wait(path: Path, seconds: float = 60) -> list[int]:
        end = time.monotonic() + seconds
        while not (path.is_file() and path.read_text()):
            assert time.monotonic() < end, path
            time.sleep(0.02)
        return [int(word) for word in path.read_text().split()]

    return wait
