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

ROOT = Path(__file__).parents[1]
PACKAGE = "n4ax_bids"
PARTS = ("core", "io", "planes", "options", "app", "interfaces", "report", "verbs")
LOG = "log.txt"
COPIED = (PACKAGE, "tests", "benchmarks", "docs", "boutiques", "examples", "container")

OTHERS = {
    "app/motion/chosen": ("app/motion/test_method",),
    "app/motion/figures": ("app/motion/test_method",),
    "app/motion/names": ("app/motion/test_method",),
    "app/motion/sidecars": ("app/motion/test_method",),
    "app/reports/stack_shown": ("app/test_stacks",),
    "core/stack/numbers": ("app/test_stacks", "stacks/test_streaming"),
    "foreign/solve": ("test_simpleitk", "test_antspy"),
    "interfaces/series": ("app/motion/test_method",),
    "interfaces/stack_image": ("app/test_stacks",),
    "io/endings": ("app/test_stacks", "app/outputs/test_derivatives"),
    "io/trees": ("app/test_stacks",),
    "options/stack_method": ("app/test_stacks",),
    "series/steps": ("test_realign",),
    "foreign/simpleitk_steps": ("test_simpleitk",),
    "stacks/record": ("app/test_stacks", "commands/test_stack_cli"),
    "commands/ants_cli": ("commands/test_ants_cli", "interfaces/test_command"),
    "app/cli": ("app/test_cli", "app/test_run"),
    "app/command/consistent": ("app/test_cli", "app/test_apply_to"),
    "app/command/files": ("app/test_files",),
    "app/images/applied": ("app/test_apply_to",),
    "app/reports/image_figures": ("app/reports/test_image_report",),
    "app/reports/windows": ("app/reports/test_image_report",),
    "app/reports/record": ("app/reports/test_image_report", "app/motion/test_method"),
    "app/reports/checked": ("app/test_files", "app/reports/test_reports"),
    "app/select/applied": ("app/test_apply_to",),
    "app/select/plain": ("app/test_files",),
    "app/todo": ("app/test_run", "app/test_apply_to"),
    "app/run": ("app/test_run_whole",),
    "core/n4/compiled": ("core/n4/test_batch", "core/n4/test_itk"),
    "core/n4/residual_of_rows": ("core/n4/test_whole_rows",),
    "core/n4/rows_on_device": ("core/n4/test_whole_rows",),
    "core/n4/sharpen_direct": ("core/n4/test_whole_rows",),
    "core/n4/taken": ("core/n4/test_whole_rows", "core/n4/test_plan"),
    "io/gradients": ("app/motion/test_method",),
    "app/command/asked": ("app/test_cli", "app/command/test_config"),
    "app/command/extra": ("test_extras",),
    "app/command/flag": ("app/test_cli", "app/command/test_flags"),
    "app/command/parser": ("app/test_cli", "app/command/test_flags", "test_options"),
    "app/images/attempt": (
        "app/images/test_progress",
        "app/test_run",
        "app/images/test_faults",
        "app/images/test_faults_other_runs",
        "app/test_run_whole",
    ),
    "app/images/engine": ("app/images/test_plugin",),
    "app/images/nodes": ("app/images/test_plugin",),
    "app/images/outcome": (
        "app/images/test_faults",
        "app/images/test_faults_folders",
        "app/test_run",
    ),
    "app/images/plugin": ("app/images/test_plugin",),
    "app/images/publish": ("app/test_run", "app/outputs/test_finished_changes"),
    "app/job": ("app/outputs/test_derivatives", "app/select/test_dataset"),
    "app/logs": ("app/images/test_progress", "app/select/test_hostile_names"),
    "app/machine/processes": ("app/machine/test_pool",),
    "app/machine/signals": ("app/machine/test_pool",),
    "app/machine/threads": ("app/machine/test_pool",),
    "app/machine/expiry": ("app/machine/test_presence",),
    "app/machine/limits": ("app/machine/test_limits_real",),
    "app/images/runner": ("app/images/test_plugin",),
    "app/outputs/changed": (
        "app/outputs/test_finished",
        "app/outputs/test_finished_changes",
        "app/outputs/test_agreement",
    ),
    "app/outputs/finished": ("app/outputs/test_finished_changes",),
    "app/outputs/places": ("app/outputs/test_agreement", "app/test_run", "app/test_cli"),
    "app/outputs/provenance": ("app/outputs/test_boilerplate",),
    "app/outputs/sidecars": ("app/outputs/test_derivatives", "app/command/test_flags"),
    "app/reports/contents": ("app/reports/test_reports", "app/reports/test_image_report"),
    "app/request": ("app/test_cli",),
    "app/select/distinct": ("app/select/test_names_apart",),
    "app/select/dataset": ("app/select/test_dataset_left_out", "app/select/test_distinct"),
    "app/select/filters": (
        "app/select/test_filters",
        "app/select/test_dataset",
        "app/select/test_dataset_left_out",
    ),
    "app/select/folders": (
        "app/select/test_dataset_left_out",
        "app/select/test_dataset",
        "app/select/test_filters",
    ),
    "app/select/index": ("app/select/test_index", "app/select/test_dataset"),
    "app/select/inheritance": ("app/select/test_dataset", "app/outputs/test_derivatives"),
    "app/select/segmentations": ("app/select/test_segmentations", "app/select/test_masks"),
    "app/status": ("app/test_cli", "app/select/test_dataset"),
    "app/reports/image_shown": ("app/reports/test_image_report", "app/reports/test_reports"),
    "image/in_memory": ("app/reports/test_reports",),
    "app/reports/grid": ("app/reports/test_image_report",),
    "app/reports/group": ("app/reports/test_reports",),
    "app/select/vocabulary": ("app/select/test_filters", "app/select/test_segmentations"),
    "commands/apply_cli": ("test_apply",),
    "commands/process": ("commands/test_ants_cli",),
    "interfaces/with_presets": ("interfaces/test_zero_shot", "interfaces/test_tissue"),
    "interfaces/apply": ("test_apply",),
    "io/volumes": ("test_apply",),
    "arguments": ("test_arguments", "test_options"),
    "arrays": ("test_toy_method",),
    "masks/brain_programs": ("masks/test_skull_strip",),
    "core/devices": ("core/test_threshold", "core/n4/test_estimate", "core/motion/test_register"),
    "core/call": ("test_arguments", "core/test_arrays", "core/n4/test_estimate"),
    "core/estimator": ("test_toy_method",),
    "core/placed_field": ("test_apply",),
    "core/mask/auto_mask": (
        "core/mask/test_masks",
        "core/mask/test_masks_of_real_heads",
        "masks/test_auto_mask_files",
    ),
    "core/mask/brain_checks": (
        "core/mask/test_masks",
        "core/mask/test_masks_of_real_heads",
        "masks/test_auto_mask_files",
    ),
    "core/mask/brain_mask": (
        "core/mask/test_masks",
        "core/mask/test_masks_of_real_heads",
        "masks/test_auto_mask_files",
    ),
    "core/mask/coarse": ("core/mask/test_morphology", "core/mask/test_masks"),
    "core/mask/head_mask": (
        "core/mask/test_masks",
        "core/mask/test_masks_of_real_heads",
        "masks/test_auto_mask_files",
    ),
    "core/mask/mask_choice": ("core/mask/test_masks",),
    "core/mask/morphology": ("core/mask/test_morphology", "core/mask/test_masks"),
    "core/mask/star_surface": ("core/mask/test_masks", "core/mask/test_masks_of_real_heads"),
    "core/n4/call": ("test_arguments", "core/test_arrays", "core/n4/test_estimate"),
    "core/n4/iterate": ("core/n4/test_estimate", "core/n4/test_batch", "core/n4/test_itk"),
    "core/n4/levels": ("core/n4/test_estimate", "core/n4/test_batch", "core/n4/test_itk"),
    "core/n4/method": ("test_correct", "test_toy_method"),
    "core/n4/plan": ("core/n4/test_plan", "core/n4/test_estimate"),
    "core/n4/remarks": ("core/n4/test_automatic", "core/n4/test_estimate", "test_extremes"),
    "core/n4/residual": ("core/n4/test_estimate", "core/n4/test_batch", "core/n4/test_itk"),
    "core/n4/rows": ("core/n4/test_estimate", "core/n4/test_batch"),
    "core/n4/shrinking": ("core/n4/test_plan", "io/test_geometry", "test_correct"),
    "core/n4/solve": ("core/n4/test_estimate", "core/n4/test_batch"),
    "core/n4/storage": ("core/n4/test_estimate", "core/n4/test_batch"),
    "core/n4/take": ("core/n4/test_estimate", "core/test_arrays"),
    "callable_module": ("test_package",),
    "correct": ("test_correct", "image/test_correct_files"),
    "image/request": ("test_correct", "image/test_correct_files"),
    "image/steps": ("test_correct", "image/test_correct_files"),
    "image/record": ("test_correct", "image/test_correct_files"),
    "image/demand": ("test_correct",),
    "image/outputs": ("image/test_correct_files", "test_correct"),
    "interfaces/bias": ("interfaces/test_n4", "test_toy_method"),
    "interfaces/command": ("interfaces/test_command", "interfaces/test_n4"),
    "interfaces/n4": ("interfaces/test_n4", "interfaces/test_spec"),
    "io/canonical": ("masks/test_skull_strip",),
    "io/finite": ("io/test_volume", "test_correct"),
    "io/header": ("io/test_header", "io/test_kinds"),
    "io/names": ("io/test_text", "app/select/test_hostile_names"),
    "io/voxels": ("io/test_volume", "io/test_sizes"),
    "method": ("test_toy_method",),
    "methods": ("test_toy_method",),
    "options/base": ("test_options", "interfaces/test_spec"),
    "options/n4": ("test_options", "interfaces/test_spec"),
    "options/n4_text": ("app/outputs/test_boilerplate",),
    "masks/region": ("test_correct", "masks/test_auto_mask_files", "image/test_correct_files"),
    "report/colours": ("report/test_figures",),
    "report/convergence": ("report/test_figures",),
    "report/distribution": ("report/test_group",),
    "report/figures": ("report/test_figures",),
    "report/group": ("report/test_group", "report/test_measures"),
    "report/measures": ("report/test_group",),
    "report/templates": ("report/test_page", "report/test_group"),
    "image/rescale": ("test_correct", "image/test_correct_files"),
    "core/plane_words": ("core/test_tissue_mask",),
    "core/raster": ("core/test_division",),
    "core/motion/reslice": ("test_realign", "core/motion/test_register"),
    "core/motion/register": ("core/motion/test_register", "core/motion/test_register_refused"),
    "core/motion/steps": ("core/motion/test_register",),
    "core/motion/samples": ("core/motion/test_samples", "core/motion/test_register"),
    "core/motion/series": (
        "core/motion/test_register",
        "core/motion/test_register_refused",
        "test_realign",
    ),
    "core/motion/smoothing": ("core/motion/test_samples", "core/motion/test_register"),
    "core/spline_basis": ("core/test_interpolate",),
    "core/spline_coefficients": ("core/test_interpolate",),
    "core/stack/call": ("core/stack/test_stack",),
    "core/stack/correction": ("core/stack/test_stack",),
    "core/stack/estimate": ("core/stack/test_stack",),
    "core/stack/levels": ("stacks/test_streaming", "planes/test_ome_zarr"),
    "core/stack/matching": ("core/stack/test_stack",),
    "core/stack/samples": ("core/stack/test_stack",),
    "core/tissue/arrays": ("core/test_tissue",),
    "core/tissue/blocks": ("core/test_tissue",),
    "core/tissue/call": ("core/test_tissue",),
    "core/tissue/equations": ("core/test_tissue",),
    "core/tissue/estimate": ("core/test_tissue",),
    "core/tissue/method": ("core/test_tissue", "interfaces/test_tissue"),
    "core/tissue/mixture": ("core/test_tissue",),
    "core/tissue/posteriors": ("core/test_tissue",),
    "core/tissue/solve": ("core/test_tissue",),
    "core/tissue/spline": ("core/test_tissue",),
    "core/tissue/start": ("core/test_tissue",),
    "core/zero_dce/call": ("core/test_zero_dce_method",),
    "core/zero_dce/fit": ("core/test_zero_dce", "core/test_zero_dce_method"),
    "core/zero_dce/grid": ("core/test_zero_dce", "core/test_zero_dce_method"),
    "core/zero_dce/lattice": ("core/test_zero_dce", "core/test_zero_dce_method"),
    "core/zero_dce/levels": ("core/test_zero_dce", "core/test_zero_dce_method"),
    "core/zero_dce/losses": ("core/test_zero_dce",),
    "core/zero_dce/method": ("core/test_zero_dce_method", "interfaces/test_zero_shot"),
    "core/zero_dce/network": ("core/test_zero_dce",),
    "core/zero_dce/solve": ("core/test_zero_dce_method",),
    "interfaces/mcflirt": ("interfaces/test_realign", "interfaces/test_patch"),
    "interfaces/stack": ("commands/test_stack_cli",),
    "io/lattices": ("stacks/test_streaming", "core/stack/test_stack"),
    "io/motion_files": ("core/motion/test_rigid", "test_realign"),
    "io/series": ("test_realign",),
    "series/outputs": ("test_realign",),
    "options/realign": (
        "test_realign",
        "core/motion/test_register_refused",
        "core/motion/test_register",
    ),
    "options/stack": ("commands/test_stack_cli", "core/stack/test_stack"),
    "options/tissue": ("core/test_tissue", "interfaces/test_tissue"),
    "options/zero_shot": ("core/test_zero_dce_method", "app/test_cli"),
    "planes/base": ("stacks/test_streaming", "planes/test_ome_zarr"),
    "planes/nifti": ("stacks/test_streaming",),
    "planes/ome_zarr_sink": ("planes/test_ome_zarr",),
    "planes/pictures": ("stacks/test_streaming",),
    "report/motion": ("test_realign",),
    "report/tissue": ("interfaces/test_tissue",),
    "report/zero_shot": ("interfaces/test_zero_shot",),
    "stacks/files": ("stacks/test_streaming", "commands/test_stack_cli"),
    "stacks/lazy": ("stacks/test_streaming",),
    "stacks/picture": ("commands/test_stack_cli",),
    "stacks/journal": ("stacks/test_streaming",),
    "stacks/steps": ("stacks/test_streaming",),
    "runtime/timing": ("test_correct", "image/test_correct_files"),
    "workflows": ("interfaces/test_workflow",),
}
"""Test files of the modules that have none of their own name, or more than that one."""

UNTRIED = (
    "phantoms/dataset",
    "phantoms/images",
    "runtime/program_files",
    "runtime/compilation",
    "app/command/descriptor",
    "interfaces/fix",
)
"""They serve the tests themselves, or what runs them takes minutes."""


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
