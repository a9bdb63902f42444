"""The house: imports keep to the table of tests/layers.py, and files and functions are short."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import n4ax_bids
from tests.layers import MAY_IMPORT, ROOMS

PACKAGE = Path(n4ax_bids.__file__).parent
NAME = PACKAGE.name


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part_of(module: str) -> str:
    """The row of the table that a module of the package belongs to."""
    _, *names = module.split(".")
    n_names = 2 if names and names[0] in ROOMS else 1
    return ".".join(names[:n_names]) or "root"


class _Imports(ast.NodeVisitor):
    """Every import of a module, also those inside functions, but not those for type checkers."""

    def __init__(self) -> None:
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, ()) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute here"
        self.found.append((node.module, tuple(alias.name for alias in node.names)))

    def visit_Call(self, node: ast.Call) -> None:
        """`importlib.import_module("x")` and `__import__("x")` are imports too."""
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__") and node.args:
            if isinstance(node.args[0], ast.Constant):
                self.found.append((node.args[0].value, ()))
        self.generic_visit(node)


def imports_of(source: str, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a source text imports: `from package import module` names the module."""
    visitor = _Imports()
    visitor.visit(ast.parse(source))
    for module, names in visitor.found:
        if module.split(".")[0] != NAME:
            yield module
            continue
        submodules = [f"{module}.{name}" for name in names if f"{module}.{name}" in known]
        yield from submodules
        if not names or len(submodules) < len(names):
            yield module


def complaints(module: str, source: str, known: dict[str, Path]) -> list[str]:
    """What a module imports against the table."""
    part = part_of(module)
    if part not in MAY_IMPORT:
        return [f"{module} has no row in MAY_IMPORT"]
    wrong = []
    for imported in imports_of(source, known):
        top = imported.split(".")[0]
        target = part_of(imported) if top == NAME else top
        if top in sys.stdlib_module_names or (top == NAME and target == part):
            continue
        if target not in MAY_IMPORT[part]:
            wrong.append(f"{module} imports {imported}")
    return wrong


@pytest.mark.parametrize("module", [m for m in modules() if m != NAME])
def test_imports_keep_to_the_table(module):
    known = modules()
    assert complaints(module, known[module].read_text(encoding="utf-8"), known) == []


def test_the_package_itself_imports_nothing_when_it_is_imported():
    """Its names are lazy: the homes of the public names are strings, not imports."""
    known = modules()
    source = known[NAME].read_text(encoding="utf-8")
    found = {name for name in imports_of(source, known) if name.split(".")[0] == NAME}
    assert found <= {f"{NAME}.first_use"}


def test_every_row_has_its_module():
    there = {part_of(module) for module in modules()}
    assert set(MAY_IMPORT) == there


def test_the_picture_shows_every_module():
    picture = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown, folders = set(), [PACKAGE]
    for indent, name in re.findall(r"^((?:  )+)(\w+(?:/|\.py)) ", picture, flags=re.MULTILINE):
        del folders[len(indent) // 2 :]
        if name.endswith("/"):
            folders.append(folders[-1] / name)
        else:
            shown.add(folders[-1] / name)
    named = {path for path in modules().values() if path.name != "__init__.py"}
    assert shown - {PACKAGE / "__init__.py"} == named


def long_parts(path: Path) -> Iterator[str]:
    """What is longer than CONTRIBUTING allows: the file, or the body of a function."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    n_lines = len(text.splitlines())
    if n_lines > 300 and "300 lines" not in (ast.get_docstring(tree) or ""):
        yield f"{path.name} has {n_lines} lines, and no reason in its docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and node.end_lineno - body[0].lineno >= 60:
                yield f"{path.name}: {node.name}"


def test_files_and_functions_are_short():
    assert [part for path in modules().values() for part in long_parts(path)] == []


def test_what_is_too_long_is_seen(tmp_path):
    path = tmp_path / "new.py"
    path.write_text("def f():\n    pass\n" + "    pass\n" * 59)
    assert list(long_parts(path)) == []
    path.write_text("def f():\n    pass\n" + "    pass\n" * 60)
    assert list(long_parts(path)) == ["new.py: f"]
    path.write_text("pass\n" * 301)
    assert "301 lines" in next(long_parts(path))


def test_no_cycles():
    known = modules()
    graph = {
        module: {i for i in imports_of(path.read_text(encoding="utf-8"), known) if i in known}
        for module, path in known.items()
        if module != NAME  # all of its imports are lazy
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert f"{NAME}.core.n4.estimate" in order


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("n4ax_bids.core.new", "import nibabel", "imports nibabel"),
        ("n4ax_bids.core.new", "def f():\n    from n4ax_bids.io import volume", "io.volume"),
        ("n4ax_bids.core.new", "from n4ax_bids import correct", "imports n4ax_bids.correct"),
        ("n4ax_bids.io.new", "import jax.numpy as jnp", "imports jax.numpy"),
        ("n4ax_bids.io.new", "import importlib\nimportlib.import_module('jax')", "imports jax"),
        ("n4ax_bids.options", "import numpy", "imports numpy"),
        ("n4ax_bids.interfaces.new", "from n4ax_bids.core.n4.estimate import n4", "core.n4"),
        ("n4ax_bids.stranger", "import os", "has no row"),
        ("n4ax_bids.newcomer.thing", "import os", "has no row"),
    ],
)
def test_a_breach_is_seen(module, source, complaint):
    (found,) = complaints(module, source, modules())
    assert complaint in found


def test_what_type_checkers_alone_see_is_free():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nipype"
    assert complaints("n4ax_bids.core.new", source, modules()) == []
