"""N4 as a nipype interface, in the place of nipype's own for the ANTs program."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import Any

from nipype import logging
from nipype.interfaces.ants.segmentation import (
    N4BiasFieldCorrectionInputSpec as AntsInputSpec,
)
from nipype.interfaces.ants.segmentation import (
    N4BiasFieldCorrectionOutputSpec as AntsOutputSpec,
)
from nipype.interfaces.base import File, isdefined, traits
from nipype.utils.filemanip import fname_presuffix, split_filename
from nipype.utils.gpu_count import gpu_count

from n4ax_bids import ants
from n4ax_bids.interfaces.command import AntsCommand, output_name
from n4ax_bids.interfaces.spec import add_option_traits, read_options, six_digits
from n4ax_bids.options import MASK_WORDS, N4Options

_log = logging.getLogger("nipype.interface")

LONGEST_NAME = 255
"""bytes of a file's name that most file systems take"""

TRAITS_OF_FLAG = {
    "mask-image": ("mask_image",),
    "rescale-intensities": ("rescale_intensities",),
    "weight-image": ("weight_image",),
    "bspline-fitting": ("bspline_fitting_distance", "bspline_order", "n_control_points"),
    "convergence": ("n_iterations", "convergence_threshold"),
    "shrink-factor": ("shrink_factor",),
    "histogram-sharpening": ("histogram_sharpening",),
    "verbose": (),
}
"""The flags that `args` may have, each with the traits that nipype writes as that flag: behind
the words of `args`, so that they win."""


class N4BiasFieldCorrectionInputSpec(AntsInputSpec):
    """nipype's traits, and our own; an undefined one is the ANTs program's default."""

    # nipype's has min_ver, a version of ANTs; ours has none.
    rescale_intensities = traits.Bool(
        False,
        usedefault=True,
        argstr="-r",
        desc="no effect on its own, as in nipype: ANTs rescales wherever there is a mask_image, "
        "unless args has '-r 0' and this is not True",
    )
    use_gpu = traits.Bool(
        False,
        usedefault=True,
        nohash=True,
        desc="take a place in nipype's GPU queue; default: whether nipype sees a GPU",
    )
    device = traits.Str(
        nohash=True,
        desc="auto, cpu, gpu or gpu:N; default: auto, or cpu where use_gpu was set to False",
    )
    lattice_image = File(
        hash_files=False,
        desc="where the lattice is written; default: the input's name with _lattice",
    )
    auto_mask = traits.Enum(
        *MASK_WORDS,
        desc="estimate the field inside this mask, correct the whole image: otsu, head, brain, or "
        "auto for the brain where one is found, else the head; default: every voxel",
    )
    found_mask_image = File(
        hash_files=False,
        desc="where the mask that auto_mask finds is written; default: nowhere",
    )
    output_dtype = traits.Enum(
        "float32",
        "source",
        desc="type of the corrected voxels; default: float32, or with copy_header the source's",
    )
    correct_outside = traits.Bool(  # without a default it leaves nipype's hash as it is
        desc="with a mask_image, correct the voxels outside it as well; ANTs leaves them",
    )
    mask_transform = File(
        exists=True,
        desc="ITK transform that takes images from the input's space to that of mask_image, which "
        "is then resampled onto the input's grid",
    )
    weight_transform = File(exists=True, desc="the same for weight_image")


add_option_traits(N4BiasFieldCorrectionInputSpec, N4Options)


class N4BiasFieldCorrectionOutputSpec(AntsOutputSpec):
    """nipype's outputs, and our own."""

    lattice_image = File(exists=True, desc="Estimated log bias as its control points")
    found_mask_image = File(exists=True, desc="Mask that auto_mask has found, 0 and 1")
    correction = traits.Dict(desc="what was done: fields of n4ax_bids.correct.Correction")


class N4BiasFieldCorrection(AntsCommand):
    """Bias field correction with the numbers of ANTs' N4BiasFieldCorrection.

    Takes the place of `nipype.interfaces.ants.N4BiasFieldCorrection`: the same inputs, outputs,
    file names and attributes. `num_threads` is kept to by the first node that runs in a process,
    for JAX does not change its threads once it has started; -1 is one on each core. `environ` is
    accepted and has no effect. No program is started: `cmdline` shows nipype's words, and what
    `args="-v 1"` reports is in `runtime.stdout`.

    Examples
    --------
    >>> from n4ax_bids.interfaces import N4BiasFieldCorrection
    >>> n4 = N4BiasFieldCorrection(input_image="T1w.nii.gz", save_bias=True)
    >>> n4.inputs.n_iterations = [50, 50, 30, 20]
    >>> n4.run()  # doctest: +SKIP
    """

    input_spec = N4BiasFieldCorrectionInputSpec
    output_spec = N4BiasFieldCorrectionOutputSpec
    _shift_negative = False

    def __init__(
        self,
        from_file: str | Path | None = None,
        resource_monitor: bool | None = None,
        **inputs: Any,
    ) -> None:
        super().__init__(from_file=from_file, resource_monitor=resource_monitor, **inputs)
        if from_file is None and "use_gpu" not in inputs:
            self._follow_device()

    def _listen(self) -> None:
        super()._listen()
        self.inputs.on_trait_change(self._follow_device, "device")

    def _follow_device(self) -> None:
        self.inputs.use_gpu = self.inputs.device != "cpu" and n_gpus() > 0

    _tell_notes = True
    """whether notes on the result go to nipype's log; the BIDS-App tells them in its own"""

    def _run_interface(self, runtime: Any) -> Any:
        with self._as_a_program(runtime) as printed:
            self._correct(Path(runtime.cwd), printed)
        return runtime

    def _correct(self, cwd: Path, printed: list[str]) -> None:
        # Worker processes share the GPU; by default the first one would take most of its memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids import device
        from n4ax_bids.correct import correct

        inputs = self.inputs
        device.start(inputs.num_threads if inputs.num_threads > 0 else None)
        words, options = self._settings()
        result = correct(
            cwd / inputs.input_image,
            mask_image=_path(cwd, words.get("mask_image", inputs.mask_image)),
            weight_image=_path(cwd, words.get("weight_image", inputs.weight_image)),
            auto_mask=inputs.auto_mask if isdefined(inputs.auto_mask) else None,
            options=options,
            rescale_intensities=words.get("rescale_intensities", True),
            output_dtype=self._output_dtype(),
            copy_header=inputs.copy_header,
            device=self._device(),
            dimension=self._dimension(),
            shift_negative=self._shift_negative,
            correct_outside=inputs.correct_outside is True,
            mask_transform=_path(cwd, inputs.mask_transform),
            weight_transform=_path(cwd, inputs.weight_transform),
            **self._output_paths(cwd),
        )
        if words.get("verbose"):
            for level in zip(result.n_iterations, result.convergence, strict=True):
                printed.append("{:d} iterations, convergence value {:g}".format(*level))
                if self.terminal_output != "none":
                    _log.info("N4: %s", printed[-1])
        for name in ("output_image", "bias_image", "lattice_image", "found_mask_image"):
            if getattr(result, name) is not None:
                self._results[name] = str(getattr(result, name))
        if self._tell_notes:
            for note in result.notes:
                _log.warning("N4: %s: %s", inputs.input_image, note)
        self._results["correction"] = _plain(dataclasses.asdict(result))

    def _settings(self) -> tuple[dict[str, Any], N4Options]:
        """What `args` say, and the options that come of them and of the traits."""
        try:
            words = self._words()
            return words, self._as_written(read_options(self.inputs, N4Options, words))
        except ValueError as error:
            raise ValueError(f"{self.inputs.input_image}: {error}") from error

    def _as_written(self, options: N4Options) -> N4Options:
        """Round the traits that nipype writes with %g: a distance of extent/3 gives 4 spans."""
        rounded: dict[str, Any] = {}
        for name in ("bspline_fitting_distance", "convergence_threshold"):
            if isdefined(getattr(self.inputs, name)):
                rounded[name] = six_digits(getattr(options, name))
        if isdefined(self.inputs.histogram_sharpening):
            fwhm, noise, n_bins = options.histogram_sharpening
            rounded["histogram_sharpening"] = (six_digits(fwhm), six_digits(noise), n_bins)
        return dataclasses.replace(options, **rounded)

    def _words(self) -> dict[str, Any]:
        """Settings from `args`; a flag that traits give as well counts there only, as in ANTs."""
        args = self.inputs.args
        words = ants.parse(args if isdefined(args) else "", only=TRAITS_OF_FLAG)
        for note in words.notes:
            _log.warning("N4 args: %s", note)
        settings: dict[str, Any] = {}
        for flag, values in words.settings.items():
            if not any(self._writes(name) for name in TRAITS_OF_FLAG[flag]):
                settings.update(values)
        return settings

    def _writes(self, name: str) -> bool:
        """Whether nipype writes a trait on the program's command line."""
        value = getattr(self.inputs, name)
        return isdefined(value) and value is not False

    def _device(self) -> str:
        if isdefined(self.inputs.device):
            return self.inputs.device
        return "cpu" if n_gpus() > 0 and not self.inputs.use_gpu else "auto"

    def _output_dtype(self) -> str:
        if isdefined(self.inputs.output_dtype):
            return self.inputs.output_dtype
        return "source" if self.inputs.copy_header else "float32"

    def _dimension(self) -> int:
        if self.inputs.dimension == 4:
            raise ValueError(
                f"{self.inputs.input_image}: dimension is 4; expected 2 or 3 (split the series; "
                "correct its mean, or each volume in a MapNode)"
            )
        return self.inputs.dimension

    def _output_paths(self, cwd: Path) -> dict[str, Path | None]:
        """Name the outputs as nipype does for the ANTs program."""
        inputs = self.inputs
        source = os.path.basename(inputs.input_image)
        _require_names(inputs)
        lattice = f"{split_filename(source)[1]}_lattice.nii.gz"
        while len(os.fsencode(lattice)) > LONGEST_NAME:
            lattice = lattice[1:]  # nipype has no such file; its name must not fail the node
        bias = None
        if isdefined(inputs.bias_image):
            bias = cwd / inputs.bias_image
        elif inputs.save_bias:
            bias = cwd / fname_presuffix(source, suffix="_bias")
        return {
            "output_image": cwd / output_name(inputs),
            "bias_image": bias,
            "lattice_image": _path(cwd, inputs.lattice_image) or cwd / lattice,
            "found_mask_image": _path(cwd, inputs.found_mask_image),
        }


def _require_names(inputs: Any) -> None:
    """Refuse an empty output_image, and an input whose name serves for no output."""
    image, given = inputs.input_image, inputs.output_image
    if isdefined(given) and not given:
        raise ValueError(f"{image}: output_image is ''; expected a name, such as %s_corrected")
    if not output_name(inputs).endswith((".nii", ".nii.gz")) and not image.endswith(
        (".nii", ".nii.gz")
    ):
        raise ValueError(
            f"{image}: its name ends in neither .nii nor .nii.gz; expected a NIfTI file"
        )


@functools.cache
def n_gpus() -> int:
    """Return how many GPUs nipype sees; asked once, it starts a program."""
    return gpu_count()


def _path(cwd: Path, value: Any) -> Path | None:
    return cwd / value if isdefined(value) else None


def _plain(value: Any) -> Any:
    """Turn a record into what JSON can hold: no paths, tuples or NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
