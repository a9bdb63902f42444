"""How much the tests notice: small faults are put into the package, and the tests have to fail.

    python -m tests.mutation                        60 faults all over the package
    python -m tests.mutation --number 20 core io    in these parts alone
    python -m tests.mutation --seed 7               others than those of the seed 1

The package and its tests are copied into a temporary folder. Each fault is put into the copy in
turn, and the test files of the module that it is in are run there until the first test fails. A
fault that no test fails of has survived: a test is missing, or the code does nothing, or the
fault makes no difference. The exit status is 1 then.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.mutants import Mutant, mutants
from tests.mutation_table import OTHERS, UNTRIED

ROOT = Path(__file__).parents[1]
PACKAGE = "n4ax_bids"
PARTS = ("core", "io", "planes", "options", "app", "interfaces", "report", "verbs")
LOG = "log.txt"
COPIED = (PACKAGE, "tests", "benchmarks", "docs", "boutiques", "examples", "container")


def module_of(path: Path) -> str:
    """Return the name of a module's file within the package, as in `OTHERS`."""
    return path.relative_to(ROOT / PACKAGE).with_suffix("").as_posix()


def tests_of(module: str) -> list[str]:
    """Return the test files that belong to a module, the quickest answer first."""
    folder, _, name = module.rpartition("/")
    own = "/".join(filter(None, ["tests", folder, f"test_{name}.py"]))
    files = [f"tests/{each}.py" for each in OTHERS.get(module, ())]
    if (ROOT / own).exists() and own not in files:
        files.insert(0, own)
    return files


def part_of(module: str) -> str:
    """Return which of `PARTS` a module belongs to."""
    folder = module.split("/")[0]
    return folder if folder in PARTS else "verbs"


def candidates(parts: Iterable[str]) -> dict[str, str]:
    """Return the sources of the modules in these parts that have tests, by name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        module = module_of(path)
        if part_of(module) in parts and module not in UNTRIED and tests_of(module):
            found[module] = path.read_text(encoding="utf-8")
    return found


def sample(sources: dict[str, str], number: int, seed: int) -> list[tuple[str, Mutant]]:
    """Draw mutants: the modules in turn, in an order and of kinds that the seed decides."""
    draw = random.Random(seed)
    left = {module: mutants(source) for module, source in sources.items()}
    for found in left.values():
        draw.shuffle(found)
    chosen: list[tuple[str, Mutant]] = []
    kinds: Counter[str] = Counter()
    while len(chosen) < number and any(left.values()):
        order = [module for module, found in left.items() if found]
        draw.shuffle(order)
        for module in order[: number - len(chosen)]:
            # The rarest kind so far, or else numbers and negations would be most of all.
            mutant = min(left[module], key=lambda each: kinds[each.kind])
            left[module].remove(mutant)
            kinds[mutant.kind] += 1
            chosen.append((module, mutant))
    return chosen


def copied(folder: Path) -> Path:
    """Copy what the tests need into a folder; return the copy's root."""
    root = folder / "copy"
    root.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, root)
    # Programs that were compiled before spare each run some seconds.
    kept = Path(".pytest_cache", "n4ax")
    if (ROOT / kept).exists():  # not what processes have there that run now
        passing = shutil.ignore_patterns("running")
        shutil.copytree(ROOT / kept, root / kept, ignore=passing)
    return root


def preload() -> None:
    """Import what takes seconds and is not ours, so that a fork has it; JAX does not start yet."""
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # as tests/conftest.py sets them
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    for name in ("jax", "scipy.ndimage", "nibabel", "SimpleITK", "nipype.interfaces.ants", "bids"):
        importlib.import_module(name)


def run_tests(root: Path, limit: float, *words: str) -> int | None:
    """Run pytest in the copy; return its exit status, or None if it took longer."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(_in_child(root, words))
        finally:
            os._exit(70)  # never back into the loop over the mutants
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)  # with the programs that its tests have started
    os.waitpid(child, 0)
    return None


def _in_child(root: Path, words: tuple[str, ...]) -> int:
    os.setsid()
    os.chdir(root)
    with (root / LOG).open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ["PYTHONPATH"] = str(root)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.setdefault("N4AX_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    sys.dont_write_bytecode = True
    here = {str(ROOT), ""}
    sys.path[:] = [str(root), *(path for path in sys.path if path not in here)]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not clients"]
    return int(pytest.main([*options, *words]))


def failed_test(root: Path) -> str:
    """Return the test that failed in the last run, or the file that could not be collected."""
    lines = (root / LOG).read_text(errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    names = [line.partition(" ")[2].partition(" - ")[0] for line in failed]
    return names[0] if names else ""


def tried(root: Path, module: str, source: str, mutant: Mutant, limit: float) -> tuple[str, str]:
    """Run a module's tests on one mutant.

    Returns
    -------
    str : "killed", "survived", "time limit", "no tests", or "fails anyway" where the test that
        failed does so without the mutant too
    str : the test that failed
    """
    path = root / PACKAGE / f"{module}.py"
    path.write_text(mutant.apply(source), encoding="utf-8")
    status = run_tests(root, limit, *tests_of(module))
    path.write_text(source, encoding="utf-8")
    if status in (0, 5, None):
        return {0: "survived", 5: "no tests", None: "time limit"}[status], ""
    name = failed_test(root)
    whole = ["--collect-only"] if "::" not in name else []
    passes = run_tests(root, limit, *whole, name) == 0
    return "killed" if passes else "fails anyway", name


def main(words: list[str] | None = None) -> int:
    """Try mutants and print a table; return 1 if one has survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--number", type=int, default=60, help="of mutants (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice (default: 1)")
    parser.add_argument("--only", metavar="MODULE", help="such as core/field")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each mutant")
    parser.add_argument("--first", type=int, default=1, help="number to begin with again")
    parser.add_argument("--list", action="store_true", help="choose, and run nothing")
    arguments = parser.parse_args(words)
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    sources = candidates(arguments.parts or PARTS)
    if arguments.only:
        sources = {arguments.only: sources[arguments.only]}
    chosen = sample(sources, arguments.number, arguments.seed)
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="n4ax-mutation-") as folder:
        root = copied(Path(folder))
        preload()
        for number, (module, mutant) in enumerate(chosen, start=1):
            if number < arguments.first:
                continue
            source, start = sources[module], time.monotonic()
            end, test = "chosen", ""
            if not arguments.list:
                end, test = tried(root, module, source, mutant, arguments.limit)
            ended[end] += 1
            seconds = f"{time.monotonic() - start:.0f} s"
            place = f"{module}.py:{mutant.line}"
            row = [str(number), end, place, mutant.kind, mutant.shown(source)[:160], test, seconds]
            print(f"| {' | '.join(row)} |", flush=True)
    print(", ".join(f"{end}: {count}" for end, count in ended.most_common()))
    return int(ended["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
