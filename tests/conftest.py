"""Real data, the BIDS validator, seeds, devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Before jax is imported anywhere, and for the programs that tests start as well.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("NIPYPE_NO_ET", "1")  # no telemetry, no network
# Programs that one test's processes compile serve the next one's; the user's folder stays clean.
os.environ.setdefault("N4AX_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "n4ax"))

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
