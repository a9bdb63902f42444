"""The node that corrects a stack, with the names of the node for single images.

The BIDS-App runs it: its outputs have the names of `BiasFieldCorrection`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nipype import logging
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from n4ax_bids.interfaces.bias import plain

_log = logging.getLogger("nipype.interface")


class StackImageCorrectionInputSpec(BaseInterfaceInputSpec):
    """A stack, and where its outputs are written; paths may be folders."""

    input_image = traits.Str(mandatory=True, desc="a file or folder: OME-Zarr, TIFF, PNG, NIfTI")
    options = traits.Any(desc="StackOptions(...); default: StackOptions()")
    output_image = traits.Str(mandatory=True, nohash=True, desc="corrected stack")
    bias_image = traits.Str(nohash=True, desc="where the field is written; default: nowhere")
    lattice_image = traits.Str(mandatory=True, nohash=True, desc="lattices of the field, .npz")
    mask = traits.Str("tissue", usedefault=True, desc="path of a mask, 'tissue' or 'none'")
    voxel_size_mm = traits.Tuple(
        traits.Float(), traits.Float(), traits.Float(), desc="planes, rows, columns"
    )
    memory_gb = traits.Float(4.0, usedefault=True, nohash=True, desc="budget of memory")
    device = traits.Str("auto", usedefault=True, nohash=True, desc="auto, cpu, gpu or gpu:N")
    num_threads = traits.Int(
        -1, usedefault=True, nohash=True, desc="threads on the CPU; -1 is one on each core"
    )


class StackImageCorrectionOutputSpec(TraitedSpec):
    """What was written, and the record of what was done."""

    output_image = traits.Str(desc="corrected stack")
    bias_image = traits.Str(desc="field")
    lattice_image = traits.Str(desc="lattices with the planes they hold")
    correction = traits.Dict(desc="what was done")


class StackImageCorrection(SimpleInterface):
    """Bias field correction of a stack of sections that need not fit into memory.

    Examples
    --------
    >>> from n4ax_bids.interfaces import StackImageCorrection
    >>> node = StackImageCorrection(input_image="sub-1_sample-A_OCT.ome.zarr")
    >>> node.inputs.output_image = "corrected.ome.zarr"
    >>> node.inputs.lattice_image = "lattices.npz"
    >>> node.run()  # doctest: +SKIP
    """

    input_spec = StackImageCorrectionInputSpec
    output_spec = StackImageCorrectionOutputSpec

    _tell_notes = True
    """whether notes on the result go to nipype's log; the BIDS-App shows them in its own"""

    def _run_interface(self, runtime: Any) -> Any:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.runtime import device
        from n4ax_bids.stacks.files import save_correction
        from n4ax_bids.stacks.record import record
        from n4ax_bids.stacks.streaming import stream

        given, cwd = self.inputs, Path(runtime.cwd)
        device.start(given.num_threads if given.num_threads > 0 else None)
        source = cwd / given.input_image
        files = {
            name: cwd / getattr(given, name)
            for name in ("output_image", "bias_image", "lattice_image")
            if isdefined(getattr(given, name))
        }
        done = stream(
            source,
            files["output_image"],
            bias_out=files.get("bias_image"),
            mask=None if given.mask == "none" else given.mask,
            voxel_size_mm=given.voxel_size_mm if isdefined(given.voxel_size_mm) else None,
            options=given.options if isdefined(given.options) else None,
            memory_gb=given.memory_gb,
            device=given.device,
        )
        save_correction(files["lattice_image"], done.correction)
        self._results |= {name: str(path) for name, path in files.items()}
        self._results["correction"] = plain(record(done, source, given.mask, given.device))
        for note in done.notes if self._tell_notes else ():
            _log.warning("N4: %s: %s", source, note)
        return runtime
