"""The nipype interface for bias field correction by any method: options in, files out."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype import logging
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.utils.filemanip import split_filename
from nipype.utils.gpu_count import gpu_count

from n4ax_bids.options import FIELD_SCALES, MASK_PROGRAMS, MASK_WORDS

if TYPE_CHECKING:
    from n4ax_bids.image.record import Correction

_log = logging.getLogger("nipype.interface")

LONGEST_NAME = 255
"""bytes of a file's name that most file systems accept"""
FILES = ("output_image", "bias_image", "lattice_image", "found_mask_image")
"""outputs of every method"""


def shared_traits() -> dict[str, Any]:
    """Return the inputs that the ANTs program does not have, which all our nodes share."""
    return {
        "device": traits.Str(
            nohash=True,
            desc="auto, cpu, gpu or gpu:N; default: auto, or cpu if use_gpu was set to False",
        ),
        "lattice_image": File(
            hash_files=False,
            desc="where the lattice is written; default: the input's name with _lattice",
        ),
        "auto_mask": traits.Enum(
            *MASK_WORDS,
            *MASK_PROGRAMS,
            desc="estimate the field inside this mask, correct the whole image: otsu, head, "
            "brain, or auto for the brain where one is found, else the head; synthstrip or hd-bet "
            "for the brain that this program finds; default: every voxel",
        ),
        "found_mask_image": File(
            hash_files=False,
            desc="where the mask that auto_mask finds is written; default: nowhere",
        ),
        "output_dtype": traits.Enum(
            "float32",
            "source",
            desc="type of the corrected voxels; default: float32, or with copy_header the "
            "source's",
        ),
        "field_scale": traits.Enum(  # without a default it leaves nipype's hash as it is
            *FIELD_SCALES,
            desc="divide the field by its mean or median inside the mask, so that the image keeps "
            "its level; default: as-is, as ANTs",
        ),
        "correct_outside": traits.Bool(  # without a default it leaves nipype's hash as it is
            desc="with a mask_image, correct the voxels outside it as well; ANTs leaves them",
        ),
        "mask_transform": File(
            exists=True,
            desc="ITK transform that takes images from the input's space to that of mask_image, "
            "which is then resampled onto the input's grid",
        ),
        "weight_transform": File(exists=True, desc="the same for weight_image"),
    }


def add_shared_traits(spec: Any) -> None:
    """Add the inputs that all our nodes share to an input spec."""
    for name, trait in shared_traits().items():
        spec.add_class_trait(name, trait)


class BiasFieldCorrectionInputSpec(BaseInterfaceInputSpec):
    """Inputs of a correction by any method."""

    input_image = File(exists=True, mandatory=True, desc="image to correct")
    options = traits.Any(
        desc="options of a method, such as N4Options() or preset('fmriprep'); they decide which "
        "method it is. Default: N4Options()"
    )
    mask_image = File(exists=True, desc="estimate the field where this image is not 0")
    weight_image = File(exists=True, desc="confidence of each voxel; voxels > 0 are used")
    output_image = File(hash_files=False, desc="default: the input's name with _corrected")
    bias_image = File(hash_files=False, desc="where the field is written; default: nowhere")
    method_images = traits.Dict(
        traits.Str(),
        File(hash_files=False),
        desc="where further images of the method are written, by the labels of its outputs",
    )
    rescale_intensities = traits.Bool(
        False, usedefault=True, desc="rescale as ANTs' -r does; works only with a mask_image"
    )
    copy_header = traits.Bool(
        False, usedefault=True, desc="keep the input's intent and display range"
    )
    dimension = traits.Enum(2, 3, desc="number of axes that the image must have; default: any")
    shift_negative = traits.Bool(
        False, usedefault=True, desc="first subtract the lowest value if it is negative"
    )
    num_threads = traits.Int(
        -1, usedefault=True, nohash=True, desc="threads on the CPU; -1 is one on each core"
    )
    use_gpu = traits.Bool(
        False,
        usedefault=True,
        nohash=True,
        desc="take a place in nipype's GPU queue; default: whether nipype sees a GPU",
    )


add_shared_traits(BiasFieldCorrectionInputSpec)


class BiasFieldCorrectionOutputSpec(TraitedSpec):
    """Output files, and the record of what was done."""

    output_image = File(exists=True, desc="corrected image")
    bias_image = File(exists=True, desc="estimated field")
    lattice_image = File(exists=True, desc="estimated log field, as control points")
    found_mask_image = File(exists=True, desc="mask that auto_mask has found, as 0 and 1")
    method_images = traits.Dict(desc="further images of the method, by their labels")
    correction = traits.Dict(desc="what was done: fields of n4ax_bids.image.record.Correction")


class BiasFieldCorrection(SimpleInterface):
    """Bias field correction of one image by any method.

    Examples
    --------
    >>> from n4ax_bids import preset
    >>> from n4ax_bids.interfaces import BiasFieldCorrection
    >>> node = BiasFieldCorrection(input_image="T1w.nii.gz", auto_mask="auto")
    >>> node.inputs.options = preset("fast")
    >>> node.run()  # doctest: +SKIP
    """

    input_spec = BiasFieldCorrectionInputSpec
    output_spec = BiasFieldCorrectionOutputSpec

    _tell_notes = True
    """whether notes on the result go to nipype's log; the BIDS-App shows them in its own"""

    def __init__(
        self, from_file: Any = None, resource_monitor: bool | None = None, **inputs: Any
    ) -> None:
        super().__init__(from_file=from_file, resource_monitor=resource_monitor, **inputs)
        if from_file is None and "use_gpu" not in inputs:
            self._follow_device()
        self._listen()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the listeners again, because a copy of the inputs has lost them."""
        self.__dict__.update(state)
        self._listen()

    def _listen(self) -> None:
        self.inputs.on_trait_change(self._follow_device, "device")

    def _follow_device(self) -> None:
        self.inputs.use_gpu = self.inputs.device != "cpu" and n_gpus() > 0

    def _run_interface(self, runtime: Any) -> Any:
        self._perform(self._arguments(Path(runtime.cwd)))
        return runtime

    def _perform(self, arguments: dict[str, Any]) -> Correction:
        """Correct the image, and fill the outputs."""
        # Worker processes share the GPU. By default, the first one would reserve most of its
        # memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.correct import correct
        from n4ax_bids.runtime import device

        inputs = self.inputs
        device.start(inputs.num_threads if inputs.num_threads > 0 else None)
        result = correct(**arguments)
        for name in FILES:
            if getattr(result, name) is not None:
                self._results[name] = str(getattr(result, name))
        if result.method_images:
            images = {label: str(path) for label, path in result.method_images.items()}
            self._results["method_images"] = images
        if self._tell_notes:
            for note in result.notes:
                _log.warning("N4: %s: %s", inputs.input_image, note)
        self._results["correction"] = plain(dataclasses.asdict(result))
        return result

    def _arguments(self, cwd: Path) -> dict[str, Any]:
        """Return the arguments of `n4ax_bids.correct`."""
        inputs = self.inputs
        images = inputs.method_images if isdefined(inputs.method_images) else {}
        return {
            **self._shared_arguments(cwd),
            "options": inputs.options if isdefined(inputs.options) else None,
            "mask_image": path_or_none(cwd, inputs.mask_image),
            "weight_image": path_or_none(cwd, inputs.weight_image),
            "rescale_intensities": inputs.rescale_intensities,
            "dimension": inputs.dimension if isdefined(inputs.dimension) else None,
            "shift_negative": inputs.shift_negative,
            "method_images": {label: cwd / path for label, path in images.items()},
            **self._output_paths(cwd),
        }

    def _shared_arguments(self, cwd: Path) -> dict[str, Any]:
        """Return the arguments from inputs that all our nodes share."""
        inputs = self.inputs
        return {
            "input_image": cwd / inputs.input_image,
            "auto_mask": inputs.auto_mask if isdefined(inputs.auto_mask) else None,
            "output_dtype": self._output_dtype(),
            "copy_header": inputs.copy_header,
            "device": self._device(),
            "correct_outside": inputs.correct_outside is True,
            "field_scale": inputs.field_scale if isdefined(inputs.field_scale) else "as-is",
            "mask_transform": path_or_none(cwd, inputs.mask_transform),
            "weight_transform": path_or_none(cwd, inputs.weight_transform),
        }

    def _device(self) -> str:
        if isdefined(self.inputs.device):
            return self.inputs.device
        return "cpu" if n_gpus() > 0 and not self.inputs.use_gpu else "auto"

    def _output_dtype(self) -> str:
        if isdefined(self.inputs.output_dtype):
            return self.inputs.output_dtype
        return "source" if self.inputs.copy_header else "float32"

    def _output_paths(self, cwd: Path) -> dict[str, Path | None]:
        inputs = self.inputs
        _, base, extension = split_filename(inputs.input_image)
        output = path_or_none(cwd, inputs.output_image)
        return {
            "output_image": output or cwd / f"{base}_corrected{extension}",
            "bias_image": path_or_none(cwd, inputs.bias_image),
            "lattice_image": path_or_none(cwd, inputs.lattice_image) or cwd / lattice_name(base),
            "found_mask_image": path_or_none(cwd, inputs.found_mask_image),
        }


def lattice_name(base: str) -> str:
    """Return the name of a lattice, shortened so that its length cannot make a node fail."""
    name = f"{base}_lattice.nii.gz"
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[1:]
    return name


@functools.cache
def n_gpus() -> int:
    """Return how many GPUs nipype sees; cached, because nipype starts a program to find out."""
    return gpu_count()


def path_or_none(cwd: Path, value: Any) -> Path | None:
    """Return a path relative to a folder; None if it is not defined."""
    return cwd / value if isdefined(value) else None


def plain(value: Any) -> Any:
    """Convert a record for JSON: without paths, tuples or NaN."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
