"""What a release is made of: recipes, metadata and the workflow that publishes it.

`make dist` builds wheel and source distribution and checks them.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"matplotlib": "matplotlib-base"}
"""packages whose name on conda-forge is another one"""

sys.path.insert(0, str(ROOT / "packaging"))
import check_dist  # noqa: E402

sys.path.pop(0)


def read(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def plain(requirement: str) -> str:
    """Return a requirement as conda writes it."""
    name, bound = re.fullmatch(r"([\w.-]+)(?:\[.*\])?(.*)", requirement).groups()
    return f"{CONDA_NAMES.get(name.lower(), name.lower())} {bound}".strip()


def test_the_conda_recipe_asks_for_what_the_package_needs():
    recipe = read("packaging/conda-forge/recipe.yaml")
    assert recipe["schema_version"] == 1
    assert recipe["context"]["version"] == PROJECT["version"]
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["app"]]
    asked = [each for each in recipe["requirements"]["run"] if not each.startswith("python ")]
    assert sorted(asked) == sorted(map(plain, needed))
    points = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == points


def test_the_neurodesk_recipe_deploys_every_command():
    recipe = read("packaging/neurodesk/build.yaml")
    assert str(recipe["version"]) == PROJECT["version"]
    assert recipe["deploy"]["bins"] == list(PROJECT["scripts"])
    (command,) = [each["run"] for each in recipe["build"]["directives"] if "run" in each]
    extras = re.search(r"n4ax-bids\[([\w,]+)\]", command[-1])[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_zenodo_and_the_citation_agree():
    zenodo, citation = json.loads((ROOT / ".zenodo.json").read_text()), read("CITATION.cff")
    for ours, theirs in (("title", "title"), ("version", "version"), ("license", "license")):
        assert zenodo[ours] == str(citation[theirs])
    assert [each["name"] for each in zenodo["creators"]] == [
        a["name"] for a in citation["authors"]
    ]
    dois = [each["doi"] for each in citation["references"]]
    assert [each["identifier"] for each in zenodo["related_identifiers"]] == dois


def test_only_the_job_that_publishes_may_ask_for_an_identity():
    """No job has a password, and the one that builds has no right to publish."""
    workflow = read(".github/workflows/release.yml")
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in jobs["distributions"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    assert jobs["pypi"]["environment"] == "pypi"
    assert jobs["pypi"]["needs"] == jobs["image"]["needs"] == "distributions"
    assert {"run": "make dist"} in jobs["distributions"]["steps"]
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert "secrets." not in text and "api-token" not in text


@pytest.mark.parametrize(
    ("lost", "added", "fault"),
    [
        ((), (), None),
        (("n4ax_bids/py.typed",), (), "lacks n4ax_bids/py.typed"),
        (("Dockerfile",), (), "lacks Dockerfile"),
        ((), ("n4ax_bids/notes.txt",), "has n4ax_bids/notes.txt"),
    ],
)
def test_what_a_distribution_lacks_or_has_too_much_is_named(
    tmp_path, monkeypatch, lost, added, fault
):
    files = ["n4ax_bids/__init__.py", "n4ax_bids/py.typed", "Dockerfile", "README.md"]
    monkeypatch.setattr(check_dist, "tracked", lambda: [*files, ".ci/run"])
    (tmp_path / "empty").write_bytes(b"")
    kept = [name for name in (*files, *added) if name not in lost]
    with zipfile.ZipFile(tmp_path / "a-1-py3-none-any.whl", "w") as wheel:
        for name in kept:
            if name.startswith("n4ax_bids/"):
                wheel.writestr(name, "")
        wheel.writestr("a-1.dist-info/METADATA", "")
    with tarfile.open(tmp_path / "a-1.tar.gz", "w:gz") as source:
        for name in (*kept, "PKG-INFO"):
            source.add(tmp_path / "empty", f"a-1/{name}")
    found = check_dist.faults(tmp_path)
    assert (
        (found == [])
        if fault is None
        else (found and all(fault in f or "py.typed" in f for f in found))
    )
