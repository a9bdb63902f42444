"""The faults that `python -m tests.mutation` puts into the package."""

from __future__ import annotations

import ast

import pytest

from tests import mutation
from tests.mutants import mutants

SOURCE = '''"""A docstring with 1 number."""
from x import log

LIMIT: Literal[3] = 7


def f(a: int, b=0.5) -> int:
    """Add 2."""
    if a <= LIMIT and not b:
        raise ValueError(f"{a + 1} is too é small")
    log.warning("%d", a, 3)
    g(a, b)
    return a - 1
'''


def test_each_kind_of_fault():
    found = [(each.line, each.kind, each.shown(SOURCE)) for each in mutants(SOURCE)]
    assert found == [
        (4, "off by one", "7 -> (8)"),
        (7, "constant", "0.5 -> (0.55)"),
        (9, "and/or", "a <= LIMIT and not b -> (a <= LIMIT or not b)"),
        (9, "comparison", "a <= LIMIT -> (a < LIMIT)"),
        (9, "negation", "a <= LIMIT and not b -> (not (a <= LIMIT and (not b)))"),
        (9, "negation", "not b -> (b)"),
        (10, "no error", 'raise ValueError(f"{a + 1} is too é small") -> pass'),
        (12, "no call", "g(a, b) -> pass"),
        (12, "swapped arguments", "g(a, b) -> (g(b, a))"),
        (13, "arithmetic", "a - 1 -> (a + 1)"),
        (13, "off by one", "1 -> (2)"),
    ]


def test_a_mutant_changes_its_own_place_alone():
    for each in mutants(SOURCE):
        changed = each.apply(SOURCE)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))
        assert changed.count("\n") == SOURCE.count("\n")
        assert changed.encode()[: each.start] == SOURCE.encode()[: each.start]


def test_the_seed_decides_which_faults_are_tried():
    sources = mutation.candidates(["io"])
    one = mutation.sample(sources, 30, seed=1)
    assert one == mutation.sample(sources, 30, seed=1) != mutation.sample(sources, 30, seed=2)
    assert len(set(one)) == 30
    assert {module for module, _ in one} == set(sources)


def test_every_module_has_its_tests():
    """Or is among those that are left out with a reason."""
    modules = {mutation.module_of(path) for path in (mutation.ROOT / "n4ax_bids").rglob("*.py")}
    left_out = {module for module in modules if not mutation.tests_of(module)}
    code = left_out - set(mutation.UNTRIED)
    assert {module.rpartition("/")[2] for module in code} <= {"__init__", "__main__"}
    assert set(mutation.OTHERS) | set(mutation.UNTRIED) <= modules


@pytest.mark.parametrize("module", mutation.OTHERS)
def test_the_files_that_are_named_exist(module):
    assert [
        each for each in mutation.tests_of(module) if not (mutation.ROOT / each).exists()
    ] == []


@pytest.mark.parametrize("name", ["tests/test_a.py", "tests/test_a.py::test_b[c d-e]"])
def test_the_test_that_failed_is_known(tmp_path, name):
    text = f"1 passed\nFAILED {name} - AssertionError: a - b\nFAILED tests/c.py::test_d\n"
    (tmp_path / mutation.LOG).write_text(text)
    assert mutation.failed_test(tmp_path) == name
