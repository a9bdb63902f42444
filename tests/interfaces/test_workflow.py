"""N4 in a workflow: the factory, several processes, the GPU queue."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype import Node, Workflow
from nipype.interfaces.base import isdefined

import n4ax_bids
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.options import PRESETS, N4Options, preset
from n4ax_bids.workflows import init_n4_wf

SHORT = N4Options(n_iterations=(2, 2), shrink_factor=2)


@pytest.fixture
def images(tmp_path, rng):
    """Eight small images, each with a mask and a weight of its own."""
    found = {"in_files": [], "in_mask": [], "in_weight": []}
    x = np.linspace(-1, 1, 20)[:, None, None]
    for i in range(8):
        tissue = rng.choice([300.0, 500.0, 700.0], (20, 18, 16))
        data = tissue * np.exp(rng.uniform(-0.4, 0.4) * x) + 5 * rng.standard_normal(x.shape)
        mask = np.zeros(data.shape)
        mask[2 + i // 4 : -3, 3:-3, 2:-2] = 1
        for name, values in (
            ("in_files", data),
            ("in_mask", mask),
            ("in_weight", mask * rng.uniform(-0.2, 1, data.shape)),
        ):
            path = tmp_path / "in" / f"sub-{i}_{name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nb.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(path)
            found[name].append(str(path))
    return found


def outputs_of(workflow, **inputs):
    """Run on this process and CPU; return the outputs of the node before the output node."""
    for name, value in inputs.items():
        setattr(workflow.inputs.inputnode, name, value)
    executed = workflow.run(plugin="Linear")
    return next(node for node in executed.nodes() if node.name == "n4").result.outputs


def test_inputs_and_outputs():
    workflow = init_n4_wf(name="inu")
    assert workflow.name == "inu" and workflow.list_node_names() == [
        "inputnode",
        "n4",
        "outputnode",
    ]
    names = workflow.get_node("inputnode").inputs.copyable_trait_names()
    assert sorted(names) == ["in_files", "in_mask", "in_weight"]
    names = workflow.get_node("outputnode").inputs.copyable_trait_names()
    assert sorted(names) == ["bias_corrected", "bias_image", "correction", "lattice_image"]


@pytest.mark.parametrize("name", PRESETS)
def test_options_become_inputs_of_the_node(name):
    node = init_n4_wf(options=preset(name), omp_nthreads=2, mem_gb=3, device="cpu").get_node("n4")
    inputs = node._interface.inputs
    _, options = node._interface._settings()
    assert options == preset(name)
    assert inputs.save_bias and inputs.copy_header and inputs.dimension == 3
    assert inputs.device == "cpu" and not isdefined(inputs.auto_mask)
    assert node.n_procs == 2 and node.mem_gb == 3


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"per_image has \['mask'\]; expected some of"):
        init_n4_wf(per_image=("mask",))
    with pytest.raises(Exception, match="auto_mask"):
        init_n4_wf(auto_mask="bet")


def test_a_list_of_images(images, tmp_path):
    workflow = init_n4_wf(options=SHORT, device="cpu")
    workflow.base_dir = str(tmp_path)
    outputs = outputs_of(workflow, in_files=images["in_files"][:2])
    for i, (corrected, bias, lattice, record) in enumerate(
        zip(
            outputs.output_image,
            outputs.bias_image,
            outputs.lattice_image,
            outputs.correction,
            strict=True,
        )
    ):
        assert Path(corrected).name == f"sub-{i}_in_files_corrected.nii.gz"
        product = nb.load(corrected).get_fdata() * nb.load(bias).get_fdata()
        source = nb.load(images["in_files"][i]).get_fdata()
        np.testing.assert_allclose(product, source, rtol=5e-7)  # float32
        assert record["lattice_image"] == lattice and Path(lattice).exists()
        assert record["mask"] == "none" and record["details"]["n_iterations"] == [2, 2]


def test_one_mask_for_all_and_a_weight_for_each(images, tmp_path):
    workflow = init_n4_wf(options=SHORT, device="cpu", per_image=("in_weight",))
    workflow.base_dir = str(tmp_path)
    outputs = outputs_of(
        workflow,
        in_files=images["in_files"][:2],
        in_mask=images["in_mask"][0],
        in_weight=images["in_weight"][:2],
    )
    mask = nb.load(images["in_mask"][0]).get_fdata() != 0
    for weight, record in zip(images["in_weight"], outputs.correction, strict=False):
        positive = nb.load(weight).get_fdata() > 0
        assert record["mask"] == images["in_mask"][0]
        assert record["n_voxels_mask"] == np.count_nonzero(mask & positive)


def test_a_mask_for_each_and_otsu(images, tmp_path):
    files = {name: images[name][3:5] for name in ("in_files", "in_mask")}
    workflow = init_n4_wf(options=SHORT, device="cpu", per_image=("in_mask",))
    workflow.base_dir = str(tmp_path / "mask")
    outputs = outputs_of(workflow, **files)
    assert [record["mask"] for record in outputs.correction] == files["in_mask"]
    workflow = init_n4_wf(options=SHORT, device="cpu", auto_mask="otsu", copy_header=False)
    workflow.base_dir = str(tmp_path / "otsu")
    outputs = outputs_of(workflow, in_files=files["in_files"])
    assert [record["mask"] for record in outputs.correction] == ["otsu", "otsu"]


# MultiProc runs in a program of its own: a deadlock ends with its time limit.
PROGRAM = """
import json, sys
from pathlib import Path

def main():
    from nipype.utils.filemanip import loadpkl
    from n4ax_bids.options import N4Options
    from n4ax_bids.workflows import init_n4_wf

    asked = json.loads(sys.argv[1])
    workflow = init_n4_wf(options=N4Options(n_iterations=(2, 2), shrink_factor=2))
    workflow.base_dir = asked["folder"]
    workflow.inputs.inputnode.in_files = asked["in_files"]
    queue = workflow.get_node("n4").is_gpu_node()
    workflow.run(
        plugin="MultiProc", plugin_args={"n_procs": 4, "mp_context": asked["mp_context"]}
    )
    assert "jax" not in sys.modules  # the solves were elsewhere
    times = [
        (loadpkl(path).runtime.startTime, loadpkl(path).runtime.endTime)
        for path in Path(asked["folder"]).glob("n4_wf/n4/mapflow/*/result_*.pklz")
    ]
    print(json.dumps({"gpu_node": queue, "times": sorted(times)}))

if __name__ == "__main__":
    main()
"""


def multiproc(folder, in_files, mp_context, path):
    """Run the workflow with 4 processes on CPU; return what the program says."""
    program = folder / "multiproc.py"
    program.write_text(PROGRAM)
    asked = {"folder": str(folder), "in_files": in_files, "mp_context": mp_context}
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(asked)],
        env=os.environ
        | {
            "PATH": str(path),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(n4ax_bids.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def overlaps(times):
    """How often a run starts before the one that started before it has ended."""
    return sum(later[0] < earlier[1] for earlier, later in zip(times, times[1:], strict=False))


@pytest.mark.slow
def test_four_processes_give_what_one_gives(images, tmp_path):
    """No nvidia-smi on PATH: nothing raises, runs overlap; the same values bit for bit."""
    several = tmp_path / "several"
    (several / "empty").mkdir(parents=True)
    said = multiproc(several, images["in_files"], "spawn", several / "empty")
    assert said["gpu_node"] is False
    assert len(said["times"]) == 8 and overlaps(said["times"]) > 0

    workflow = init_n4_wf(options=SHORT, device="cpu")
    workflow.base_dir = str(tmp_path / "one")
    outputs = outputs_of(workflow, in_files=images["in_files"])
    for path in (*outputs.output_image, *outputs.bias_image, *outputs.lattice_image):
        other = Path(path.replace(str(tmp_path / "one"), str(several)))
        np.testing.assert_array_equal(nb.load(other).dataobj, nb.load(path).dataobj)
        assert other.read_bytes() == Path(path).read_bytes()


@pytest.mark.slow
def test_one_gpu_runs_one_node_at_a_time(images, tmp_path):
    """An nvidia-smi that shows one GPU puts the nodes into nipype's queue; CPU does the work."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Stand-in GPU'\n")
    program.chmod(0o755)
    said = multiproc(tmp_path, images["in_files"], "forkserver", folder)
    assert said["gpu_node"] is True
    assert len(said["times"]) == 8 and overlaps(said["times"]) == 0


@pytest.mark.parametrize("insufficient", [True, False])
def test_more_processes_than_gpus(monkeypatch, insufficient):
    """A client asks for 8 processes where there is one GPU; what docs/usage.md advises."""
    from nipype.pipeline.plugins import multiproc

    monkeypatch.setattr(multiproc, "gpu_count", lambda: 1)
    node = Node(N4BiasFieldCorrection(use_gpu=True), name="n4", n_procs=8)
    workflow = Workflow(name="wf")
    workflow.add_nodes([node])
    plugin = multiproc.MultiProcPlugin({"n_procs": 8, "raise_insufficient": insufficient})
    refused = pytest.raises(RuntimeError, match="Insufficient GPU resources")
    with refused if insufficient else contextlib.nullcontext():
        plugin._prerun_check(workflow._graph)
    plugin.pool.shutdown()
