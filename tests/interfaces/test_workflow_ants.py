"""The same workflow with nipype's node and the ANTs program, and with our node."""

from __future__ import annotations

import contextlib
from pathlib import Path

import nibabel as nb
import nipype.interfaces.ants
import numpy as np
from nipype import MapNode, Node, Workflow

from n4ax_bids.interfaces import N4BiasFieldCorrection, patch


def graph_of_n4(head, spine, regions):
    """A graph with nipype's node, whatever stands under its name; see the clients' use."""
    from nipype.interfaces.ants import N4BiasFieldCorrection as FromNipype

    short = {"n_iterations": [2, 2], "convergence_threshold": 1e-7, "save_bias": True}
    workflow = Workflow(name="graph")
    plain = MapNode(
        FromNipype(dimension=3, bspline_fitting_distance=70, shrink_factor=4, **short),
        iterfield=["input_image"],
        n_procs=1,
        name="plain",
    )
    plain.inputs.input_image = [str(head), str(spine)]
    workflow.add_nodes([plain])
    for name, inputs in regions.items():
        node = Node(FromNipype(dimension=3, copy_header=True, **short), name=name)
        node.inputs.rescale_intensities = True
        node.inputs.trait_set(input_image=str(head), **inputs)
        workflow.add_nodes([node])
    return workflow


def test_the_same_graph_with_ants_and_with_ours(
    ants_on_path, head, head_weight, test_data, tmp_path
):
    """nipype's class and the ANTs program, then our node: few iterations, so rounding alone.

    2e-6 is 17 float32 roundings. With `copy_header` the head is int16 again, where a value may
    go to either of two steps.
    """
    spine = test_data("bids-small/sub-spine01/anat/sub-spine01_T1w.nii.gz")
    weight = nb.load(head_weight)
    labels = np.ceil(weight.get_fdata()) + (weight.get_fdata() > 0.5)
    nb.Nifti1Image(labels.astype(np.uint8), weight.affine).to_filename(tmp_path / "labels.nii.gz")
    regions = {
        "weighted": {"weight_image": str(head_weight), "shrink_factor": 3},
        "labelled": {"mask_image": str(tmp_path / "labels.nii.gz")},
        "probable": {"mask_image": str(head_weight), "args": "-b [1x2x1]"},
    }
    found = {}
    for kind in ("ants", "ours"):
        with patch() if kind == "ours" else contextlib.nullcontext():
            workflow = graph_of_n4(head, spine, regions)
        workflow.base_dir = str(tmp_path / kind)
        executed = workflow.run(plugin="Linear")
        found[kind] = {node.name: node.result.outputs for node in executed.nodes()}
        classes = {type(workflow.get_node(name)._interface) for name in workflow.list_node_names()}
        expected = {
            "ants": nipype.interfaces.ants.N4BiasFieldCorrection,
            "ours": N4BiasFieldCorrection,
        }
        assert classes == {expected[kind]}
    for name in ("plain", *regions):
        for output in ("output_image", "bias_image"):
            ants, ours = (getattr(found[kind][name], output) for kind in ("ants", "ours"))
            for their, our in zip(np.atleast_1d(ants), np.atleast_1d(ours), strict=True):
                assert Path(their).name == Path(our).name
                their, our = nb.load(their), nb.load(our)
                assert their.get_data_dtype() == our.get_data_dtype()
                tolerance = 2e-6 if their.get_data_dtype() == np.float32 else 1.01 * 2**-16
                their, our = their.get_fdata(), our.get_fdata()
                difference = np.abs(our - their).max() / np.abs(their).max()
                assert difference <= tolerance, (name, output)
