"""The workflow files: what they run exists, and actionlint finds nothing where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CLASSIFIER = "Programming Language :: Python :: "


def jobs() -> dict[tuple[str, str], dict]:
    """Return the jobs by the names of file and job; two files may have jobs of one name."""
    return {
        (file.stem, name): job
        for file in FILES
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items()
    }


def test_every_python_that_is_promised_is_tested():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    words = [each.removeprefix(CLASSIFIER) for each in pyproject["project"]["classifiers"]]
    promised = {word for word in words if re.fullmatch(r"3\.\d+", word)}
    tested = set(jobs()["checks", "test"]["strategy"]["matrix"]["python"])
    assert promised and promised <= tested
    assert min(promised) in pyproject["project"]["requires-python"]


def test_what_the_workflows_run_exists():
    lines = [
        line
        for job in jobs().values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    assert {"lint", "test", "image"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    scripts = [line.split()[0] for line in lines if line.startswith("tests/")]
    assert scripts and all((ROOT / script).stat().st_mode & 0o100 for script in scripts)


def test_actionlint_finds_nothing():
    beside = Path(sys.executable).with_name("actionlint")
    program = str(beside) if beside.exists() else shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(
        [program, *map(str, FILES)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
