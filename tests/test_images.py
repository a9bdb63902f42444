"""The files that images are made of; tests/container/run.sh makes and uses them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (ROOT / "Singularity.def").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "container" / "constraints.txt").read_text(encoding="utf-8")
ASKED = ROOT / "container" / "asked.py"


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines)
    return dict(line.split("==") for line in lines)


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_constraints_have_no_addresses():
    assert "/" not in CONSTRAINTS.replace("container/constrain.sh", "")
    assert len(pins()) > 20


def test_everything_asked_for_is_pinned():
    """Where this fails, `make constraints` has to be run again."""
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["cuda12"], *extras["validate"]]
    assert {name_of(line) for line in asked} <= set(pins())
    assert {"jax-cuda12-plugin", "nvidia-cudnn-cu12"} <= set(pins())


@pytest.mark.parametrize("extra", ["cpu", "cuda12"])
def test_what_is_asked_for_apart_from_the_project(extra):
    done = subprocess.run(
        [sys.executable, ASKED, ROOT / "pyproject.toml", extra, "validate"],
        capture_output=True,
        text=True,
        check=True,
    )
    extras = PROJECT["optional-dependencies"]
    assert done.stdout.splitlines() == [
        *PROJECT["dependencies"],
        *extras[extra],
        *extras["validate"],
    ]


def test_an_extra_that_is_not_there():
    done = subprocess.run(
        [sys.executable, ASKED, ROOT / "pyproject.toml", "rocm"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no extra rocm" in done.stderr and "Traceback" not in done.stderr


def test_both_say_the_version_of_the_project():
    assert f"ARG VERSION={PROJECT['version']}\n" in DOCKERFILE
    assert f"    VERSION={PROJECT['version']}\n" in DEFINITION


def test_both_set_the_same_variables():
    (block,) = re.findall(r"^ENV (.*?[^\\])\n", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    docker = dict(re.findall(r'([\w]+)="?([^" ]+)"?', block.replace("\\\n", "")))
    (block,) = re.findall(r"^%environment\n(.*?)\n\n", DEFINITION, flags=re.MULTILINE | re.DOTALL)
    apptainer = dict(re.findall(r'export (\w+)="?([^"\n]+)"?', block))
    tag = "N4AX_BIDS_DOCKER_TAG"
    assert re.sub(r"\{\{ (\w+) \}\}", r"${\1}", apptainer[tag]) == docker[tag]
    for name in (tag, "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"):  # --nv does it
        apptainer.pop(name, None)
        del docker[name]
    assert apptainer == docker and "PATH" in docker


def test_both_have_the_same_labels():
    (block,) = re.findall(r"^LABEL (.*?[^\\])\n", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    docker = dict(re.findall(r'([\w.]+)="([^"]+)"', block))
    (block,) = re.findall(r"^%labels\n(.*?)\n\n", DEFINITION, flags=re.MULTILINE | re.DOTALL)
    apptainer = dict(line.split(maxsplit=1) for line in block.splitlines())
    apptainer = {
        name: re.sub(r"\{\{ (\w+) \}\}", r"${\1}", text) for name, text in apptainer.items()
    }
    assert apptainer == docker and len(docker) == 6


def test_scripts_can_be_started():
    for name in ("container/python.sh", "container/constrain.sh", "tests/container/run.sh"):
        assert os.access(ROOT / name, os.X_OK), name
        subprocess.run(["bash", "-n", ROOT / name], check=True)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "containers").glob("*.md")), ids=lambda p: p.stem
)
def test_commands_of_the_pages_are_shell(page):
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert blocks or page.name == "troubleshooting.md"


def test_flags_of_the_pages_are_flags():
    """Those after the level, where the program's own begin."""
    from n4ax_bids.app.command.parser import build_parser

    known = set(build_parser()._option_string_actions)
    for page in (ROOT / "docs" / "containers").glob("*.md"):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"/out participant (.*)", text):
            assert set(re.findall(r"--[a-z-]+", line)) <= known, f"{page.name}: {line}"
