"""The node that corrects a stack of sections."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from n4ax_bids.options import StackOptions


class StackCorrectionInputSpec(BaseInterfaceInputSpec):
    """A stack and how it is corrected."""

    in_stack = traits.Str(
        mandatory=True, desc="a file or folder: NIfTI, TIFF, folder of planes, OME-Zarr"
    )
    out_stack = traits.Str(desc="name of the corrected stack; default: corrected_ and the input's")
    mask = traits.Str("tissue", usedefault=True, desc="path of a mask, 'tissue' or 'none'")
    save_bias = traits.Bool(False, usedefault=True, desc="write the field as well")
    voxel_size_mm = traits.Tuple(
        traits.Float(), traits.Float(), traits.Float(), desc="planes, rows, columns"
    )
    memory_gb = traits.Float(4.0, usedefault=True, desc="budget of memory")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, gpu or gpu:N")
    options = traits.Dict(desc="options of StackOptions by name")


class StackCorrectionOutputSpec(TraitedSpec):
    """What was written."""

    out_stack = traits.Str(desc="corrected stack")
    bias_stack = traits.Str(desc="field")
    correction = traits.Str(desc="lattices with the planes they hold")


class StackCorrection(SimpleInterface):
    """Bias field correction of serial sections that need not fit into memory.

    Examples
    --------
    >>> from n4ax_bids.interfaces.stack import StackCorrection
    >>> StackCorrection(in_stack="brain.ome.zarr", options={"sections": 50}).run()
    ... # doctest: +SKIP
    """

    input_spec = StackCorrectionInputSpec
    output_spec = StackCorrectionOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.stacks.files import save_correction
        from n4ax_bids.stacks.streaming import stream

        given = self.inputs
        name = given.out_stack if isdefined(given.out_stack) else None
        out = Path(runtime.cwd) / (name or f"corrected_{Path(given.in_stack).name}")
        bias = out.with_name(f"bias_{out.name}") if given.save_bias else None
        asked = given.options if isdefined(given.options) else {}
        known = [item.name for item in fields(StackOptions)]
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise ValueError(f"options has {', '.join(unknown)}; expected {', '.join(known)}")
        done = stream(
            given.in_stack,
            out,
            bias_out=bias,
            mask=None if given.mask == "none" else given.mask,
            voxel_size_mm=given.voxel_size_mm if isdefined(given.voxel_size_mm) else None,
            options=StackOptions(**asked),
            memory_gb=given.memory_gb,
            device=given.device,
        )
        lattices = out.with_name(f"{out.name}.npz")
        save_correction(lattices, done.correction)
        self._results["out_stack"] = str(out)
        self._results["correction"] = str(lattices)
        if bias:
            self._results["bias_stack"] = str(bias)
        return runtime
