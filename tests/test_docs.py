"""The pages: commands have flags that exist, Python can be read, the site and reference are whole.

Commands are run by the tests of their programs; here the words of every command of every page are
read by the parser of the program.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import n4ax_bids
from n4ax_bids import interfaces

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("n4ax-bids", "n4ax-files", "n4ax-n4", "n4ax-apply", "n4ax-stack", "n4ax-realign")
ANTS = "N4BiasFieldCorrection"
CALLED = re.compile(rf"(?:.*/)?({'|'.join((*PROGRAMS, ANTS))})(?:\.sif|:[\w.-]+)?")
"""a program, or an image that starts it"""
VALUES = {"$SLURM_CPUS_PER_TASK": "4", "$SLURM_ARRAY_TASK_ID": "1", "$label": "01", "…": ""}
"""what the shell would put in"""


def blocks(page: Path, *kinds: str) -> list[str]:
    """Return the blocks of code of a page in a language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for _, kind, text in found if kind in kinds]


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page that calls one of the programs."""
    found = []
    for text in blocks(page, "sh", "bash", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for name, value in VALUES.items():
                line = line.replace(name, value)
            for part in re.split(r"&&|\|\||[|;](?![^\[]*\])", line):
                words = shlex.split(part.replace("--entrypoint ", ""), comments=True)
                names = [CALLED.fullmatch(word) for word in words]
                first = next((k for k, name in enumerate(names) if name), None)
                if first == 0 or (first and {"run", "exec"} & set(words[:first])):
                    image = first + 1 if any(names[first + 1 : first + 2]) else first
                    found.append([names[first][1], *words[image + 1 :]])
    return found


def parsed(words: list[str]) -> None:
    """Let the parser of a program read the words of a command."""
    from n4ax_bids.app.command import asked, consistent, files, parser
    from n4ax_bids.commands import apply_cli, realign_cli, stack_cli
    from n4ax_bids.foreign import ants

    program, *rest = words
    redirected = [k for k, word in enumerate(rest) if re.fullmatch(r"\d?>>?|<", word)]
    rest = rest[: redirected[0]] if redirected else rest
    if {"--help", "-h", "--version"} & set(rest):
        return
    if program in ("n4ax-n4", ANTS):
        ants.parse(rest)
    elif program in ("n4ax-files", "n4ax-bids"):
        given = asked.parse(rest, files.FILES if program == "n4ax-files" else parser.DATASET)
        asked.options_of(given)
        consistent.require_consistent(given)
    else:
        module = {"n4ax-apply": apply_cli, "n4ax-stack": stack_cli, "n4ax-realign": realign_cli}
        module[program].build_parser().parse_args(rest)


def test_commands_are_found():
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) > 50 and {words[0] for words in found} >= set(PROGRAMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_can_be_parsed(page, capsys):
    for words in commands(page):
        try:
            parsed(words)
        except SystemExit as ended:
            assert not ended.code, (words, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_of_a_page_imports_names_that_exist(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("n4ax_bids"):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert name.name == "*" or hasattr(module, name.name), (node.module, name.name)


@pytest.mark.parametrize("page", ["start.md", "differentiable.md"])
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """On small images in place of those that the reader has."""
    import nibabel as nb
    import numpy as np

    from n4ax_bids.phantoms import phantom

    made = phantom((12, 14, 10))
    nb.Nifti1Image(made.image, np.diag([12.0, 12, 12, 1])).to_filename(tmp_path / "T1w.nii.gz")
    monkeypatch.chdir(tmp_path)
    both = np.stack([made.image, made.image])
    names = {"image": made.image, "mask": made.mask, "target": made.image}
    names |= {"images": both, "masks": np.stack([made.mask] * 2), "targets": both}
    for text in blocks(ROOT / "docs" / page, "python"):
        exec(compile(text, page, "exec"), names)
    results = [names["corrected"]] if page == "start.md" else [names["gradient"], names["of_many"]]
    assert all(np.isfinite(each).all() and np.any(each) for each in results)


def referred(page: str) -> set[str]:
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    return set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("page", "package"), [("functions.md", n4ax_bids), ("nodes.md", interfaces)]
)
def test_the_reference_has_every_public_name(page, package):
    found = {}
    for path in referred(page):
        module, _, name = path.rpartition(".")
        found[name] = getattr(importlib.import_module(module), name)
    assert set(found) == set(package.__all__)
    for name, value in found.items():
        public = getattr(package, name)
        assert value is getattr(public, name, public), name  # correct is a module and a function


def test_every_page_is_in_the_navigation_of_the_site():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: None)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def leaves(items):
        for item in items:
            if isinstance(item, str):
                yield item
            else:
                for below in item.values():
                    yield from leaves(below)

    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    notebooks = {path.name for path in ROOT.glob("docs/*.ipynb")}
    assert sorted(leaves(site["nav"])) == sorted(there | notebooks)
    assert site["strict"] and set(site["validation"].values()) == {"warn"}


def test_the_site_shows_links_out_of_it_as_names(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    sys.modules.pop("docs_hooks", None)
    import docs_hooks

    class Page:
        class file:
            src_uri = "containers/index.md"

    for link, shown in (
        ("[a](../../examples/babs)", "a (`examples/babs`)"),
        ("[`b.py`](../../b.py)", "`b.py`"),
        ("[c](../usage.md#x)", "[c](../usage.md#x)"),
        ("![d](../../e.png)", "![d](../../e.png)"),
        ("[f](f/)", "f (`docs/containers/f`)"),
    ):
        assert docs_hooks.on_page_markdown(link, Page) == shown
    Page.file.src_uri = "contributing.md"
    assert "[docs/architecture.md](architecture.md)" in docs_hooks.on_page_markdown("", Page)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.ipynb")), ids=lambda path: path.name)
def test_what_a_notebook_imports_is_there(path):
    """The notebooks are run by `make notebook`, not here."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("n4ax_bids"):
            for alias in node.names:
                home = importlib.import_module(node.module)
                if not hasattr(home, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                found += 1
    assert found
