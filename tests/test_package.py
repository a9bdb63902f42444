"""What importing costs, and what the package hands on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import n4ax_bids

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("jax", "nipype", "nibabel", "SimpleITK", "bids", "scipy", "pandas", "nilearn")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(statement: str, names=HEAVY) -> set[str]:
    """Which of the named packages a fresh interpreter has after the statement."""
    shown = run(
        f"import sys\n{statement}\nprint(*({names!r} & sys.modules.keys()))".replace(
            repr(names), repr(set(names))
        )
    )
    return set(shown.split())


def test_import_loads_nothing_heavy():
    assert loaded_by("import n4ax_bids; n4ax_bids.__version__; dir(n4ax_bids)") == set()


def test_options_load_nothing_heavy():
    assert loaded_by("from n4ax_bids import N4Options, preset; preset('fast')") == set()


@pytest.mark.parametrize("name", ["n4ax_bids.interfaces", "n4ax_bids.app.cli"])
def test_building_a_workflow_imports_no_jax(name):
    assert loaded_by(f"import {name}", ("jax", "jaxlib")) == set()


def test_a_node_imports_no_interfaces_of_programs_that_it_does_not_need():
    names = ("nipype.interfaces.fsl", "nipype.interfaces.spm")
    assert loaded_by("from n4ax_bids.interfaces import BiasFieldCorrection", names) == set()
    assert loaded_by("from n4ax_bids.interfaces import MCFLIRT", names) == {names[0]}


@pytest.mark.parametrize("first", ["", "import n4ax_bids.interfaces.patch"])
def test_names_of_the_nodes_whatever_was_imported_before(first):
    shown = run(
        f"{first}\nfrom n4ax_bids import interfaces\n"
        "assert set(interfaces.__all__) <= set(dir(interfaces))\n"
        "assert not hasattr(interfaces, 'nothing_of_this_name')\n"
        "from n4ax_bids.interfaces import *\n"
        "print(*(getattr(interfaces, name).__name__ for name in interfaces.__all__))\n"
        "with patch() as patched:\n"
        "    assert patched.replaced and patch is interfaces.patch\n"
    )
    from n4ax_bids import interfaces

    assert shown.splitlines()[0].split() == [  # log lines follow
        "n4ax_bids.interfaces.patch" if name == "patch" else name for name in interfaces.__all__
    ]


def test_modules_of_the_nodes_are_attributes_without_an_import_of_their_own():
    run(
        "import n4ax_bids.interfaces\n"
        "assert n4ax_bids.interfaces.stack.StackCorrection.__name__ == 'StackCorrection'\n"
        "assert n4ax_bids.interfaces.spec.__name__ == 'n4ax_bids.interfaces.spec'\n"
        "assert n4ax_bids.interfaces.command and n4ax_bids.interfaces.bias.n_gpus\n"
        "assert n4ax_bids.interfaces.BiasFieldCorrection\n"
        "assert n4ax_bids.arrays.correct_array is n4ax_bids.correct_array\n"
    )


def test_threads_may_use_the_first_nodes_at_the_same_time():
    for _ in range(3):  # without the import of nipype, about every second turn failed
        run(
            "import sys; sys.setswitchinterval(1e-5)\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "import n4ax_bids.interfaces as interfaces\n"
            "names = [name for name in interfaces.__all__ if name != 'patch']\n"
            "with ThreadPoolExecutor(len(names)) as pool:\n"
            "    found = pool.map(lambda name: getattr(interfaces, name).__name__, names)\n"
            "    assert list(found) == names\n"
        )


def test_an_error_of_an_import_is_not_taken_for_a_missing_name():
    run(
        "import importlib\n"
        "from n4ax_bids import interfaces\n"
        "real = importlib.import_module\n"
        "def broken(name):\n"
        "    if name.endswith('mcflirt'): raise AttributeError('np.float was removed')\n"
        "    return real(name)\n"
        "importlib.import_module = broken\n"
        "try: interfaces.MCFLIRT\n"
        "except ImportError as error: assert 'mcflirt cannot be imported: np.f' in str(error)\n"
        "else: raise AssertionError\n"
    )


def test_core_needs_jax_numpy_and_scipy_alone():
    blocked = ("nibabel", "nipype", "SimpleITK", "bids", "isal", "nilearn", "pandas")
    run(
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import importlib, pkgutil, n4ax_bids.core\n"
        "for module in pkgutil.walk_packages(n4ax_bids.core.__path__, 'n4ax_bids.core.'):\n"
        "    importlib.import_module(module.name)\n"
        "from n4ax_bids import n4, otsu_mask, N4Options\n"
        "from n4ax_bids.phantoms import phantom\n"
        "import numpy as np\n"
        "made = phantom((16, 16, 16))\n"
        "u = n4(made.image, options=N4Options(shrink_factor=1, n_iterations=(2,)))\n"
        "assert u.shape == made.image.shape and np.isfinite(u).all()\n"
    )


def test_importing_the_core_touches_no_device():
    run(
        "import importlib, pkgutil, n4ax_bids.core\n"
        "for module in pkgutil.walk_packages(n4ax_bids.core.__path__, 'n4ax_bids.core.'):\n"
        "    importlib.import_module(module.name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
    )


@pytest.mark.parametrize("first", ["", "import n4ax_bids.core.n4.estimate, n4ax_bids.correct"])
def test_public_names_whatever_was_imported_before(first):
    shown = run(
        f"{first}\nimport n4ax_bids\n"
        "print(*(type(getattr(n4ax_bids, name)).__name__ for name in n4ax_bids.__all__))\n"
        "from n4ax_bids import n4, otsu_mask, N4Options, preset\n"
        "assert callable(n4) and callable(otsu_mask) and callable(n4ax_bids.correct.correct)\n"
    )
    modules = ("correct", "realign")
    kinds = [
        "type" if name[0].isupper() else "CallableModule" if name in modules else "function"
        for name in n4ax_bids.__all__
    ]
    assert shown.split() == kinds


IMPORTS = (
    "from n4ax_bids import correct",
    "import n4ax_bids.correct; correct = n4ax_bids.correct",
    "from n4ax_bids.correct import correct as _; import n4ax_bids; correct = n4ax_bids.correct",
    "import n4ax_bids.interfaces, n4ax_bids.core.n4.estimate",
    "from n4ax_bids import *",
    "import importlib; correct = importlib.import_module('n4ax_bids.correct')",
)


@pytest.mark.parametrize("turn", range(len(IMPORTS)))
def test_correct_is_function_and_module_in_every_order_of_imports(turn):
    lines = [
        f"{line}\nassert n4ax_bids.correct is importlib.import_module('n4ax_bids.correct')\n"
        for line in IMPORTS[turn:] + IMPORTS[:turn]
    ]
    run(
        f"import importlib\n{IMPORTS[turn]}\nimport n4ax_bids\n{''.join(lines)}"
        "from n4ax_bids import correct\n"
        "import inspect, pickle, types, n4ax_bids.correct\n"
        "from n4ax_bids.correct import correct as function\n"
        "assert correct is n4ax_bids.correct and correct.correct is function\n"
        "assert isinstance(correct, types.ModuleType)\n"
        "assert isinstance(function, types.FunctionType)\n"
        "assert inspect.signature(correct) == inspect.signature(function)\n"
        "assert pickle.loads(pickle.dumps(correct)) is correct\n"
        "try:\n"
        "    correct('missing.nii', None)\n"
        "except FileNotFoundError as error:\n"
        "    assert 'missing.nii' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="'n4ax_bids' has no attribute 'n5'"):
        n4ax_bids.n5  # noqa: B018


def test_names_are_listed():
    assert set(n4ax_bids.__all__) <= set(dir(n4ax_bids))
    assert list(n4ax_bids.__all__) == sorted(n4ax_bids.__all__)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("CITATION.cff", "version: {}"),
        ("boutiques/n4ax-bids.json", '  "tool-version": "{}",'),
        ("boutiques/n4ax-files.json", '  "tool-version": "{}",'),
        ("boutiques/n4ax-apply.json", '  "tool-version": "{}",'),
        ("boutiques/n4ax-realign.json", '  "tool-version": "{}",'),
        ("boutiques/n4ax-stack.json", '  "tool-version": "{}",'),
        ("Dockerfile", "ARG VERSION={}"),
        ("Singularity.def", "    VERSION={}"),
        ("packaging/conda-forge/recipe.yaml", '  version: "{}"'),
        ("packaging/neurodesk/build.yaml", "version: {}"),
        (".zenodo.json", '  "version": "{}",'),
    ],
)
def test_the_version_is_that_of_pyproject(file, line):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert line.format(PYPROJECT["project"]["version"]) in text.splitlines()


def test_the_changes_begin_with_this_version():
    changes = (ROOT / "docs" / "changes.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert newest and newest[1] == PYPROJECT["project"]["version"]


def test_console_script_points_at_a_function():
    from importlib import import_module

    module, _, name = PYPROJECT["project"]["scripts"]["n4ax-bids"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))],
    ids=lambda p: p.name,
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize("name", n4ax_bids.__all__)
def test_public_names_are_annotated(name):
    import inspect

    assert (ROOT / "n4ax_bids" / "py.typed").exists()
    value = getattr(n4ax_bids, name)
    if inspect.isclass(value) and issubclass(value, Warning):
        return  # a warning has the signature of every exception
    signature = inspect.signature(value)
    parameters = [each.annotation for each in signature.parameters.values()]
    assert inspect.Parameter.empty not in (*parameters, signature.return_annotation)
