"""The nipype interface for a realignment that the BIDS-App runs: options in, files out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from n4ax_bids.interfaces.bias import path_or_none, plain

FILES = {
    "reference": "reference_image",
    "transforms": "itk_transforms",
    "confounds": "motion_table",
}
"""labels of further outputs, and their names in `n4ax_bids.series.outputs.Files`"""
GRADIENTS = {"b_values": 1, "b_vectors": 3}
"""inputs and further outputs of a DWI series, and the rows of their files"""


class RealignSeriesInputSpec(BaseInterfaceInputSpec):
    """Inputs of a realignment."""

    input_image = File(exists=True, mandatory=True, desc="series to realign")
    options = traits.Any(desc="RealignOptions(); default: all of their defaults")
    volumes = traits.List(
        traits.Int(), desc="numbers of the volumes that are taken, in rising order; default: all"
    )
    b_values = File(exists=True, desc=".bval file, of which the volumes are taken")
    b_vectors = File(exists=True, desc=".bvec file, of which the volumes are taken, not turned")
    output_image = File(hash_files=False, mandatory=True, desc="the realigned series")
    bias_image = File(
        hash_files=False, desc="the field by which the volumes are divided; needs the option bias"
    )
    method_images = traits.Dict(
        traits.Str(),
        File(hash_files=False),
        desc=f"further outputs, by label: {', '.join([*FILES, *GRADIENTS])}",
    )
    output_dtype = traits.Enum("float32", "source", usedefault=True, desc="type of the voxels")
    device = traits.Str("auto", usedefault=True, nohash=True, desc="auto, cpu, gpu or gpu:N")
    num_threads = traits.Int(
        -1, usedefault=True, nohash=True, desc="threads on the CPU; -1 is one on each core"
    )


class RealignSeriesOutputSpec(TraitedSpec):
    """Output files, and the record of what was done."""

    output_image = File(exists=True, desc="the realigned series")
    bias_image = File(exists=True, desc="estimated field")
    method_images = traits.Dict(desc="further outputs, by their labels")
    correction = traits.Dict(desc="what was done, and the numbers of the motion")


class RealignSeries(SimpleInterface):
    """Rigid realignment of one series, with all options of `n4ax_bids.realign`.

    Examples
    --------
    >>> from n4ax_bids.interfaces import RealignSeries
    >>> node = RealignSeries(input_image="bold.nii.gz", output_image="out.nii.gz")
    >>> node.run()  # doctest: +SKIP
    """

    input_spec = RealignSeriesInputSpec
    output_spec = RealignSeriesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.realign import Realign
        from n4ax_bids.runtime import device
        from n4ax_bids.series.steps import write_gradients

        inputs, cwd = self.inputs, Path(runtime.cwd)
        device.start(inputs.num_threads if inputs.num_threads > 0 else None)
        run = Realign(
            cwd / inputs.input_image,
            options=inputs.options if isdefined(inputs.options) else None,
            device=inputs.device,
            volumes=inputs.volumes if isdefined(inputs.volumes) else None,
        )
        further = inputs.method_images if isdefined(inputs.method_images) else {}
        known = [*FILES, *(name for name in GRADIENTS if isdefined(getattr(inputs, name)))]
        unknown = [label for label in further if label not in known]
        if unknown:
            raise ValueError(f"method_images has {unknown[0]!r}; expected {', '.join(known)}")
        files: dict[str, Any] = {
            "output_image": cwd / inputs.output_image,
            "bias_image": path_or_none(cwd, inputs.bias_image),
            **{FILES[label]: cwd / path for label, path in further.items() if label in FILES},
        }
        taken = inputs.volumes if isdefined(inputs.volumes) else range(run.series.n_volumes)
        for label in GRADIENTS:
            if label in further:
                source = cwd / getattr(inputs, label)
                write_gradients(source, cwd / further[label], taken, GRADIENTS[label])
        done = run.write(output_dtype=inputs.output_dtype, **files)
        for name in ("output_image", "bias_image"):
            if files[name] is not None:
                self._results[name] = str(files[name])
        self._results["method_images"] = {k: str(cwd / path) for k, path in further.items()}
        self._results["correction"] = plain(done.record)
        return runtime
