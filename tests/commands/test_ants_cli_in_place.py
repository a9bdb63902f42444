"""The command n4ax-n4 in the place of the ANTs program: for nipype, in graphs, in a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import nipype.interfaces.ants as nipype_ants
import nipype.pipeline.engine as pe
import numpy as np
import pytest

from n4ax_bids.interfaces import N4BiasFieldCorrection

ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_the_place_of_ants(tmp_path, monkeypatch):
    """A folder in front of PATH with a link to the command under the name of the ANTs program.

    The command is what pip writes for it.
    """
    command = tmp_path / "venv" / "n4ax-n4"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "from n4ax_bids.commands.ants_cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    link = tmp_path / "in-place" / "N4BiasFieldCorrection"
    link.parent.mkdir()
    link.symlink_to(command)
    monkeypatch.setenv("PATH", f"{link.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return link.parent


def test_under_the_name_of_ants(in_the_place_of_ants):
    def run(*words):
        return subprocess.run(
            ["N4BiasFieldCorrection", *words], capture_output=True, text=True, timeout=60
        )

    shown = run("-h")
    assert shown.returncode == 0 and "COMMAND:\n     N4BiasFieldCorrection\n" in shown.stdout
    failed = run("-d", "3", "-i", "missing.nii.gz")
    expected = (1, "", "N4BiasFieldCorrection: missing.nii.gz: no such file\n")
    assert (failed.returncode, failed.stdout, failed.stderr) == expected


@pytest.mark.parametrize(
    "inputs",
    [
        {"save_bias": True, "copy_header": True, "weight_image": "weight.nii.gz"},
        {"mask_image": "mask.nii.gz", "rescale_intensities": True, "args": "-r 0"},
        {
            "args": "-x mask.nii.gz -r 0 -b [2x1x1]",
            "bias_image": "field.nii",
            "output_image": "%s_n4.nii",
            "copy_header": True,
            "histogram_sharpening": (0.2, 0.01, 200),
        },
    ],
)
def test_nipypes_own_interface_with_our_program(here, tmp_path, in_the_place_of_ants, inputs):
    """Files, names and every voxel as from our node; an int16 image."""
    files = {
        name: str(here / value) if name in ("mask_image", "weight_image") else value
        for name, value in inputs.items()
    }
    if "-x" in files.get("args", ""):
        files["args"] = files["args"].replace("mask", str(here / "mask"))
    made = []
    for interface, name in (
        (nipype_ants.N4BiasFieldCorrection, "ants"),
        (N4BiasFieldCorrection, "us"),
    ):
        cwd = tmp_path / name
        cwd.mkdir()
        node = interface(
            input_image=str(here / "image.nii.gz"), n_iterations=[2, 2], shrink_factor=2, **files
        )
        if name == "us":
            node.inputs.device = "cpu"
        made.append(node.run(cwd=str(cwd)).outputs)
    for name in ("output_image", "bias_image"):
        theirs, mine = (getattr(outputs, name) for outputs in made)
        if name == "bias_image" and not {"save_bias", "bias_image"} & inputs.keys():
            continue
        assert Path(theirs).name == Path(mine).name
        theirs, mine = nb.load(theirs), nb.load(mine)
        np.testing.assert_array_equal(theirs.dataobj, mine.dataobj)
        assert theirs.header == mine.header


def test_a_graph_with_nipypes_class_and_our_program_or_with_our_node(
    here, tmp_path, in_the_place_of_ants
):
    """Two passes in a row as in NiPreps, the first on a list, the second inside a mask."""

    def build(interface, name):
        first = pe.MapNode(
            interface(
                dimension=3,
                copy_header=True,
                save_bias=True,
                n_iterations=[2],
                convergence_threshold=1e-7,
                shrink_factor=2,
                bspline_fitting_distance=40,
            ),
            name="first",
            iterfield=["input_image"],
        )
        first.inputs.input_image = [str(here / "image.nii.gz")] * 2
        second = pe.MapNode(
            interface(dimension=3, copy_header=True, n_iterations=[1, 1], shrink_factor=2),
            name="second",
            iterfield=["input_image"],
        )
        second.inputs.mask_image = str(here / "mask.nii.gz")
        workflow = pe.Workflow(name, base_dir=str(tmp_path))
        workflow.config["execution"] = {"remove_unnecessary_outputs": "false"}
        workflow.connect(first, "output_image", second, "input_image")
        return workflow

    found = []
    for interface, name in ((nipype_ants.N4BiasFieldCorrection, "ants"), (OnCPU, "us")):
        ran = build(interface, name).run()
        outputs = {node.name: node.result.outputs for node in ran.nodes()}
        found.append([*outputs["first"].bias_image, *outputs["second"].output_image])
    assert len(found[0]) == 4
    for theirs, mine in zip(*found, strict=True):
        assert Path(theirs).name == Path(mine).name
        theirs, mine = nb.load(theirs), nb.load(mine)
        np.testing.assert_array_equal(theirs.get_fdata(), mine.get_fdata())
        assert theirs.header == mine.header


class OnCPU(N4BiasFieldCorrection):
    """Our node, on the CPU wherever the test runs."""

    def __init__(self, **inputs):
        super().__init__(device="cpu", **inputs)


def test_a_script_in_the_manner_of_ants_brain_extraction(here, tmp_path, in_the_place_of_ants):
    """Its words for N4, unquoted and through $ANTSPATH as there, with fewer iterations."""
    (tmp_path / "run.sh").write_text(r"""
set -u
logCmd() { echo "$*"; $*; status=$?; [ $status -gt 0 ] && exit 1; return 0; }
[[ -s ${ANTSPATH}/N4BiasFieldCorrection ]] || exit 2
N4=${ANTSPATH}/N4BiasFieldCorrection
logCmd ${N4} -d 3 -i image.nii.gz -s 2 -c [2x2,0.0000001] -b [200] -o $1/out.nii.gz --verbose 1
logCmd ${N4} -d 3 -i image.nii.gz -w weight.nii.gz -s 2 -c [2x2,0.0000001] -b [200] \
    -o [$1/out.nii.gz,$1/bias.nii.gz] --verbose 1
logCmd ${N4} -d 3 -i missing.nii.gz -o $1/missing.nii.gz
echo not reached
""")
    done = subprocess.run(
        ["bash", str(tmp_path / "run.sh"), str(tmp_path)],
        cwd=here,
        env={**os.environ, "ANTSPATH": str(in_the_place_of_ants)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "not reached" not in done.stdout
    assert done.stdout.count("Current level = 2") == 2
    corrected, bias = (
        nb.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in ("out", "bias")
    )
    source = nb.load(here / "image.nii.gz").get_fdata()
    np.testing.assert_allclose(corrected * bias, source, rtol=1e-6, atol=1e-6)
