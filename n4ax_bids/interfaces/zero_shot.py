"""The zero-shot method as a nipype interface with a trait for each option."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nipype.interfaces.base import isdefined, traits
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.interfaces.bias import (
    BiasFieldCorrection,
    BiasFieldCorrectionInputSpec,
    path_or_none,
)
from n4ax_bids.interfaces.spec import add_option_traits, read_options
from n4ax_bids.options.zero_shot import PRESETS, ZeroShotOptions


class ZeroShotBiasCorrectionInputSpec(BiasFieldCorrectionInputSpec):
    """Inputs of the zero-shot correction; an undefined option is that of the preset."""

    options = traits.Instance(
        ZeroShotOptions, desc="options of the zero-shot method, in place of preset and options"
    )
    preset = traits.Enum(
        *PRESETS, usedefault=True, desc="named options, which the other options change"
    )
    save_bias = traits.Bool(
        False, usedefault=True, desc="write the field, by default as the input's name with _bias"
    )


add_option_traits(ZeroShotBiasCorrectionInputSpec, ZeroShotOptions)


class ZeroShotBiasCorrection(BiasFieldCorrection):
    """Correct one image by a small network that is fitted to this image alone.

    Files are named and written as by `N4BiasFieldCorrection`.

    Examples
    --------
    >>> from n4ax_bids.interfaces import ZeroShotBiasCorrection
    >>> node = ZeroShotBiasCorrection(input_image="T1w.nii.gz", auto_mask="brain", save_bias=True)
    >>> node.inputs.n_steps = 200
    >>> node.run()  # doctest: +SKIP
    """

    input_spec = ZeroShotBiasCorrectionInputSpec

    def _arguments(self, cwd: Path) -> dict[str, Any]:
        return super()._arguments(cwd) | {"options": self._options()}

    def _options(self) -> ZeroShotOptions:
        """Return the options: those given as a whole, or a preset with changes."""
        inputs = self.inputs
        if isdefined(inputs.options):
            names = [field.name for field in dataclasses.fields(ZeroShotOptions)]
            also = [name for name in names if isdefined(getattr(inputs, name))]
            if also:
                raise ValueError(
                    f"{inputs.input_image}: options is given together with {', '.join(also)}; "
                    "expected one or the other"
                )
            return inputs.options
        preset = dataclasses.asdict(PRESETS[inputs.preset])
        try:
            return read_options(inputs, ZeroShotOptions, preset)
        except ValueError as error:
            raise ValueError(f"{inputs.input_image}: {error}") from error

    def _output_paths(self, cwd: Path) -> dict[str, Path | None]:
        inputs, paths = self.inputs, super()._output_paths(cwd)
        if inputs.save_bias and not isdefined(inputs.bias_image):
            name = fname_presuffix(Path(inputs.input_image).name, suffix="_bias")
            paths["bias_image"] = path_or_none(cwd, name)
        return paths
