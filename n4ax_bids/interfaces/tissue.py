"""The tissue method as a nipype interface, with the outputs of nipype's nodes for FAST and SPM."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.interfaces.bias import (
    BiasFieldCorrection,
    BiasFieldCorrectionInputSpec,
    BiasFieldCorrectionOutputSpec,
    path_or_none,
)
from n4ax_bids.interfaces.spec import add_option_traits, read_options
from n4ax_bids.options.tissue import PRESETS, TissueOptions


class TissueBiasCorrectionInputSpec(BiasFieldCorrectionInputSpec):
    """Inputs of the tissue correction; an undefined option is that of the preset."""

    options = traits.Instance(
        TissueOptions, desc="options of the tissue method, in place of preset and options"
    )
    preset = traits.Enum(
        *PRESETS, usedefault=True, desc="named options, which the other options change"
    )
    save_bias = traits.Bool(
        False, usedefault=True, desc="write the field, by default as the input's name with _bias"
    )


add_option_traits(TissueBiasCorrectionInputSpec, TissueOptions)


class TissueBiasCorrectionOutputSpec(BiasFieldCorrectionOutputSpec):
    """Outputs of the tissue correction, also by the names of nipype's FAST and NewSegment."""

    restored_image = File(exists=True, desc="corrected image, as FAST names it")
    bias_field = File(exists=True, desc="estimated field, as FAST names it; with save_bias")
    partial_volume_files = traits.List(
        File(exists=True),
        desc="posterior maps as FAST names them, from the darkest tissue to the brightest; with "
        "posteriors",
    )
    bias_corrected_images = traits.List(
        File(exists=True), desc="corrected image, as SPM's NewSegment names it"
    )
    bias_field_images = traits.List(
        File(exists=True), desc="estimated field, as SPM's NewSegment names it; with save_bias"
    )


class TissueBiasCorrection(BiasFieldCorrection):
    """Correct one image by tissue classes that are seen through a smooth field.

    Files are named and written as by `N4BiasFieldCorrection`; posterior maps have the input's name
    with _label-NAME_probseg.

    Examples
    --------
    >>> from n4ax_bids.interfaces import TissueBiasCorrection
    >>> node = TissueBiasCorrection(input_image="T1w.nii.gz", auto_mask="brain", save_bias=True)
    >>> node.inputs.contrast = "T1w"
    >>> node.run()  # doctest: +SKIP
    """

    input_spec = TissueBiasCorrectionInputSpec
    output_spec = TissueBiasCorrectionOutputSpec

    def _perform(self, arguments: dict[str, Any]) -> Any:
        result = super()._perform(arguments)
        found = self._results
        found["restored_image"] = found["output_image"]
        found["bias_corrected_images"] = [found["output_image"]]
        if "bias_image" in found:
            found["bias_field"] = found["bias_image"]
            found["bias_field_images"] = [found["bias_image"]]
        maps = found.get("method_images", {})
        labels = [label for label in arguments["options"].tissues if label in maps]
        if labels:
            found["partial_volume_files"] = [maps[label] for label in labels]
        return result

    def _arguments(self, cwd: Path) -> dict[str, Any]:
        options = self._options()
        arguments = super()._arguments(cwd) | {"options": options}
        if options.posteriors and not isdefined(self.inputs.method_images):
            name = Path(self.inputs.input_image).name
            arguments["method_images"] = {
                label: cwd / fname_presuffix(name, suffix=f"_label-{label}_probseg")
                for label in options.tissues
            }
        return arguments

    def _options(self) -> TissueOptions:
        """Return the options: those given as a whole, or a preset with changes."""
        inputs = self.inputs
        if isdefined(inputs.options):
            names = [field.name for field in dataclasses.fields(TissueOptions)]
            also = [name for name in names if isdefined(getattr(inputs, name))]
            if also:
                raise ValueError(
                    f"{inputs.input_image}: options is given together with {', '.join(also)}; "
                    "expected one or the other"
                )
            return inputs.options
        preset = dataclasses.asdict(PRESETS[inputs.preset])
        try:
            return read_options(inputs, TissueOptions, preset)
        except ValueError as error:
            raise ValueError(f"{inputs.input_image}: {error}") from error

    def _output_paths(self, cwd: Path) -> dict[str, Path | None]:
        inputs, paths = self.inputs, super()._output_paths(cwd)
        if inputs.save_bias and not isdefined(inputs.bias_image):
            name = fname_presuffix(Path(inputs.input_image).name, suffix="_bias")
            paths["bias_image"] = path_or_none(cwd, name)
        return paths
