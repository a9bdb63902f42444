"""N4 as a nipype interface that replaces nipype's own for the ANTs program."""

from __future__ import annotations

import dataclasses
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

from n4ax_bids.foreign import ants
from n4ax_bids.interfaces.bias import (
    BiasFieldCorrection,
    add_shared_traits,
    lattice_name,
    path_or_none,
)
from n4ax_bids.interfaces.command import AntsCommand, output_name
from n4ax_bids.interfaces.spec import add_option_traits, read_options, six_digits
from n4ax_bids.options import N4Options

_log = logging.getLogger("nipype.interface")

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
"""The flags that `args` may contain, each with the traits that nipype writes as that flag. nipype
writes them after the words of `args`, so that they override these."""


class N4BiasFieldCorrectionInputSpec(AntsInputSpec):
    """nipype's traits and our own; an undefined trait means the ANTs program's default."""

    # nipype's trait requires a version of ANTs (min_ver); ours does not.
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


add_shared_traits(N4BiasFieldCorrectionInputSpec)
add_option_traits(N4BiasFieldCorrectionInputSpec, N4Options)


class N4BiasFieldCorrectionOutputSpec(AntsOutputSpec):
    """nipype's outputs and our own."""

    lattice_image = File(exists=True, desc="estimated log field, as control points")
    found_mask_image = File(exists=True, desc="mask that auto_mask has found, as 0 and 1")
    correction = traits.Dict(desc="what was done: fields of n4ax_bids.image.record.Correction")


class N4BiasFieldCorrection(AntsCommand, BiasFieldCorrection):
    """Bias field correction with the numbers of ANTs' N4BiasFieldCorrection.

    Replaces `nipype.interfaces.ants.N4BiasFieldCorrection`, with the same inputs, outputs, file
    names and attributes. The first node that runs in a process decides `num_threads`, because JAX
    does not change its threads after the start; -1 means one on each core. `environ` is accepted
    and has no effect. No program is started: `cmdline` shows nipype's command line, and the report
    of `args="-v 1"` is in `runtime.stdout`.

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

    def _run_interface(self, runtime: Any) -> Any:
        with self._as_a_program(runtime) as printed:
            self._correct(Path(runtime.cwd), printed)
        return runtime

    def _listen(self) -> None:
        AntsCommand._listen(self)
        BiasFieldCorrection._listen(self)

    def _correct(self, cwd: Path, printed: list[str]) -> None:
        inputs = self.inputs
        words, options = self._settings()
        arguments = {
            **self._shared_arguments(cwd),
            "options": options,
            "mask_image": path_or_none(cwd, words.get("mask_image", inputs.mask_image)),
            "weight_image": path_or_none(cwd, words.get("weight_image", inputs.weight_image)),
            "rescale_intensities": words.get("rescale_intensities", True),
            "dimension": self._dimension(),
            "shift_negative": self._shift_negative,
            **self._output_paths(cwd),
        }
        result = self._perform(arguments)
        if words.get("verbose"):
            details = result.details
            for level in zip(details.n_iterations, details.convergence, strict=True):
                printed.append("{:d} iterations, convergence value {:g}".format(*level))
                if self.terminal_output != "none":
                    _log.info("N4: %s", printed[-1])

    def _settings(self) -> tuple[dict[str, Any], N4Options]:
        """Return the settings in `args`, and the options from them and the traits."""
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
        """Return the settings in `args`, except for flags that traits override."""
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
        """Return whether nipype writes a trait on the program's command line."""
        value = getattr(self.inputs, name)
        return isdefined(value) and value is not False

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
        lattice = lattice_name(split_filename(source)[1])
        bias = None
        if isdefined(inputs.bias_image):
            bias = cwd / inputs.bias_image
        elif inputs.save_bias:
            bias = cwd / fname_presuffix(source, suffix="_bias")
        return {
            "output_image": cwd / output_name(inputs),
            "bias_image": bias,
            "lattice_image": path_or_none(cwd, inputs.lattice_image) or cwd / lattice,
            "found_mask_image": path_or_none(cwd, inputs.found_mask_image),
        }


def _require_names(inputs: Any) -> None:
    """Refuse an empty output_image, and an input from whose name no output can be named."""
    image, given = inputs.input_image, inputs.output_image
    if isdefined(given) and not given:
        raise ValueError(f"{image}: output_image is ''; expected a name, such as %s_corrected")
    if not output_name(inputs).endswith((".nii", ".nii.gz")) and not image.endswith(
        (".nii", ".nii.gz")
    ):
        raise ValueError(
            f"{image}: its name ends in neither .nii nor .nii.gz; expected a NIfTI file"
        )
