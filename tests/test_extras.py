"""What a plain installation has, what the extra `app` adds, and what is said without it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from n4ax_bids.app.command import extra
from n4ax_bids.app.status import Refusal, Status
from tests.layers import MAY_IMPORT

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ONLY_OF_THE_APP = {"app", "report", "__main__"}
"""parts of the package that need the extra"""
OF_THE_STACKS = {"planes", "commands.stack_cli", "stacks.picture"}
"""parts that need the extra `stack`"""
ELSEWHERE = {"jaxlib": "jax", "nilearn": "demo", "ants": "compare"}
"""modules that come with another package, or with an extra for those who ask for it"""
MODULES = {"SimpleITK": "simpleitk", "PIL": "pillow"}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", each)[0] for each in requirements}


PLAIN = names(PROJECT["dependencies"])
APP = names(PROJECT["optional-dependencies"]["app"])
STACK = names(PROJECT["optional-dependencies"]["stack"])


def packages_of(part: str) -> set[str]:
    """The packages that a part of the table may import."""
    modules = MAY_IMPORT[part] - MAY_IMPORT.keys() - ELSEWHERE.keys()
    return {extra.PACKAGES.get(module) or MODULES.get(module, module) for module in modules}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_each_part_is_installed_with_what_it_imports(part):
    more = APP if part in ONLY_OF_THE_APP else STACK if part in OF_THE_STACKS else set()
    assert packages_of(part) <= PLAIN | more


def test_nothing_is_installed_that_nothing_imports():
    plain = set().union(
        *(packages_of(part) for part in MAY_IMPORT.keys() - ONLY_OF_THE_APP - OF_THE_STACKS)
    )
    assert plain == PLAIN
    assert set().union(*map(packages_of, OF_THE_STACKS)) - PLAIN == STACK
    assert set().union(*map(packages_of, ONLY_OF_THE_APP)) - PLAIN == APP


def test_the_program_asks_for_what_the_extra_has():
    assert set(extra.PACKAGES.values()) == APP


def without_the_extra(*words: str, missing=tuple(extra.PACKAGES)) -> subprocess.CompletedProcess:
    """Run n4ax-bids where modules cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from n4ax_bids.app.cli import main\n"
        "sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("missing", [tuple(extra.PACKAGES), ("tqdm",)], ids=["all", "one of them"])
def test_without_the_extra_one_line_says_what_to_type(tmp_path, missing):
    done = without_the_extra(str(tmp_path), str(tmp_path / "out"), "participant", missing=missing)
    assert done.returncode == Status.USAGE
    (line,) = done.stderr.splitlines()
    assert extra.REMEDY in line
    for module in missing:
        assert extra.PACKAGES[module] in line
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_need_no_extra(word):
    done = without_the_extra(word)
    assert done.returncode == 0, done.stderr
    assert "n4ax" in done.stdout


def test_with_the_extra_nothing_is_said():
    extra.require()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(extra.PACKAGES, "no_such_module", "no-such-package")
    with pytest.raises(Refusal, match="no-such-package") as refused:
        extra.require()
    assert refused.value.status == Status.USAGE


def test_the_plain_parts_need_no_extra():
    """Nodes, workflows, the command n4ax-n4 and the functions load where the extra is missing."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({tuple(extra.PACKAGES)!r}))\n"
        "import n4ax_bids, n4ax_bids.commands.ants_cli, n4ax_bids.interfaces\n"
        "import n4ax_bids.interfaces.patch, n4ax_bids.phantoms, n4ax_bids.workflows\n"
        "print([getattr(n4ax_bids, name) for name in n4ax_bids.__all__])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
