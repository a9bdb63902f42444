"""Our nodes under other packages' names, on stand-ins for those packages."""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import nipype.interfaces.ants
import nipype.interfaces.ants.segmentation
import pytest
from nipype import Node

from n4ax_bids import interfaces
from n4ax_bids.interfaces import N4BiasFieldCorrection, patch

AntsN4 = nipype.interfaces.ants.N4BiasFieldCorrection
HOMES = (nipype.interfaces.ants, nipype.interfaces.ants.segmentation)


def names_are(node_class):
    return [home.N4BiasFieldCorrection for home in HOMES] == [node_class] * len(HOMES)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert names_are(AntsN4)


def test_inside_a_block():
    with patch() as patched:
        assert names_are(N4BiasFieldCorrection)
        assert {f"{home.__name__}.N4BiasFieldCorrection" for home in HOMES} <= set(
            patched.replaced
        )
        from nipype.interfaces.ants import N4BiasFieldCorrection as found

        assert found is N4BiasFieldCorrection
    assert names_are(AntsN4) and patched.replaced == ()


def test_a_plain_call():
    patched = patch()
    assert names_are(N4BiasFieldCorrection) and patched.failed == ()
    assert "nipype.interfaces.ants.N4BiasFieldCorrection" in repr(patched)
    patched.undo()
    assert names_are(AntsN4)
    patched.undo()
    assert names_are(AntsN4)


def test_it_is_undone_after_an_error():
    with pytest.raises(InterruptedError), patch():
        raise InterruptedError
    assert names_are(AntsN4)


def test_the_last_of_several_puts_the_names_back():
    outer = patch()
    with patch() as inner:
        assert inner.replaced == outer.replaced
    assert names_are(N4BiasFieldCorrection)
    first, second = outer, patch()
    first.undo()  # not in the order in which they were made
    first.undo()
    assert names_are(N4BiasFieldCorrection)
    second.undo()
    assert names_are(AntsN4)


def test_threads():
    start, wrong = threading.Barrier(8), []

    def work():
        start.wait()
        for _ in range(20):
            with patch():
                if not names_are(N4BiasFieldCorrection):
                    wrong.append(True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and names_are(AntsN4)


def test_a_node_outlives_the_patch():
    with patch():
        node = Node(nipype.interfaces.ants.N4BiasFieldCorrection(shrink_factor=3), name="n4")
    again = pickle.loads(pickle.dumps(node))
    assert type(again.interface) is N4BiasFieldCorrection
    assert again.inputs.shrink_factor == 3


def test_a_node_of_before_still_works():
    node = AntsN4(input_image="x.nii", save_bias=True)
    with patch():
        assert "--output [ x_corrected.nii, x_bias.nii ]" in node.cmdline
        assert type(AntsN4(input_image="x.nii")) is AntsN4
        with pytest.raises(pickle.PicklingError):  # as docs/usage.md says
            pickle.dumps(node)
    assert pickle.loads(pickle.dumps(node)).inputs.save_bias


def test_nipype_takes_one_result_for_the_other():
    """Why docs/usage.md asks for a fresh work directory."""
    settings = {"n_iterations": [50] * 5, "convergence_threshold": 1e-7, "copy_header": True}
    theirs, ours = (
        node_class(input_image="x.nii", **settings).inputs.get_hashval()[1]
        for node_class in (AntsN4, N4BiasFieldCorrection)
    )
    assert theirs == ours


# Small packages by the names of the real ones, which bind ANTs' N4 where those do.
STAND_INS = {
    "niworkflows/interfaces/fixes.py": """
        from nipype.interfaces.ants.segmentation import N4BiasFieldCorrection as VanillaN4
        class FixN4BiasFieldCorrection(VanillaN4):
            pass
    """,
    "niworkflows/func/util.py": """
        from niworkflows.interfaces.fixes import FixN4BiasFieldCorrection as N4BiasFieldCorrection
    """,
    "smriprep/workflows/anatomical.py": """
        from nipype.interfaces.ants import DenoiseImage, N4BiasFieldCorrection
    """,
    "mriqc/workflows/shared.py": """
        def lazy():
            from nipype.interfaces.ants import N4BiasFieldCorrection
            return N4BiasFieldCorrection
    """,
    "stranger/workflow.py": """
        from nipype.interfaces.ants import N4BiasFieldCorrection
    """,
}
PREAMBLE = """
import importlib, sys
from n4ax_bids.interfaces import FixN4BiasFieldCorrection, N4BiasFieldCorrection, patch
OURS, FIX = N4BiasFieldCorrection, FixN4BiasFieldCorrection
import nipype.interfaces.ants
ANTS = nipype.interfaces.ants.N4BiasFieldCorrection
def load(name):
    return importlib.import_module(name)
def loaded(package):
    return sorted(name for name in sys.modules if name.split(".")[0] == package)
"""


@pytest.fixture
def fresh(tmp_path):
    """Run a program in a fresh interpreter that has the stand-ins; return what it wrote."""

    def run(program, files=STAND_INS):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            for folder in path.relative_to(tmp_path).parents[:-1]:
                (tmp_path / folder / "__init__.py").touch()
        paths = [str(tmp_path), str(Path(interfaces.__file__).parents[2])]
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_modules_that_are_loaded_already(fresh):
    fresh("""
        util, anatomical = load("niworkflows.func.util"), load("smriprep.workflows.anatomical")
        fixes, stranger = load("niworkflows.interfaces.fixes"), load("stranger.workflow")
        before = util.N4BiasFieldCorrection
        with patch() as patched:
            assert util.N4BiasFieldCorrection is FIX and fixes.FixN4BiasFieldCorrection is FIX
            assert anatomical.N4BiasFieldCorrection is OURS
            assert load("mriqc.workflows.shared").lazy() is OURS
            assert stranger.N4BiasFieldCorrection is ANTS
            assert patched.replaced == (
                "nipype.interfaces.ants.N4BiasFieldCorrection",
                "nipype.interfaces.ants.segmentation.N4BiasFieldCorrection",
                "nipype.interfaces.fsl.MCFLIRT",
                "nipype.interfaces.fsl.preprocess.MCFLIRT",
                "niworkflows.func.util.N4BiasFieldCorrection",
                "niworkflows.interfaces.fixes.FixN4BiasFieldCorrection",
                "niworkflows.interfaces.fixes.VanillaN4",
                "smriprep.workflows.anatomical.N4BiasFieldCorrection",
            )
        assert util.N4BiasFieldCorrection is before is fixes.FixN4BiasFieldCorrection
        assert fixes.VanillaN4 is anatomical.N4BiasFieldCorrection is ANTS
        assert load("mriqc.workflows.shared").lazy() is ANTS
    """)


def test_modules_that_are_loaded_later(fresh):
    fresh("""
        with patch() as patched:
            assert loaded("smriprep") == loaded("mriqc") == []
            assert "niworkflows.func" not in sys.modules
            util, anatomical = load("niworkflows.func.util"), load("smriprep.workflows.anatomical")
            assert util.N4BiasFieldCorrection is FIX
            assert anatomical.N4BiasFieldCorrection is OURS
            assert "smriprep.workflows.anatomical.N4BiasFieldCorrection" in patched.replaced
        assert issubclass(util.N4BiasFieldCorrection, ANTS)
        assert anatomical.N4BiasFieldCorrection is ANTS
    """)


def test_it_says_what_it_replaced_and_loads_nothing_heavy(fresh):
    shown = fresh("""
        patched = patch()
        print(patched)
        assert not {"jax", "SimpleITK", "templateflow"} & set(sys.modules)
    """)
    assert shown.count("niworkflows.interfaces.fixes.FixN4BiasFieldCorrection") == 2  # log, print


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError: module 'niworkflows.interfaces.fixes' has no attribute"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(fresh, text, reason):
    shown = fresh(
        """
        with patch() as patched:
            assert nipype.interfaces.ants.N4BiasFieldCorrection is OURS
            print(patched.failed)
        assert nipype.interfaces.ants.N4BiasFieldCorrection is ANTS
        """,
        {"niworkflows/interfaces/fixes.py": text},
    )
    assert shown.count(reason) == 2 and "WARNING" in shown  # logged and returned


def test_without_niworkflows(fresh):
    fresh("""
        class NotInstalled:
            def find_spec(name, path=None, target=None):
                if name == "niworkflows":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, NotInstalled)
        with patch() as patched:
            assert patched.failed == () and len(patched.replaced) == 4
    """)


def test_the_module_can_be_called_as_the_function():
    assert importlib.import_module("n4ax_bids.interfaces.patch") is interfaces.patch
    assert inspect.signature(interfaces.patch) == inspect.signature(interfaces.patch.patch)
    with interfaces.patch() as first, interfaces.patch.patch() as second:
        assert type(first) is type(second) is interfaces.patch.Patch
