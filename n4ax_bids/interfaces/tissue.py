"""The tissue method as a nipype interface, with the outputs of nipype's nodes for FAST and SPM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.interfaces.bias import (
    BiasFieldCorrectionInputSpec,
    BiasFieldCorrectionOutputSpec,
)
from n4ax_bids.interfaces.with_presets import MethodCorrection, add_preset_traits
from n4ax_bids.options.tissue import PRESETS, TissueOptions


class TissueBiasCorrectionInputSpec(BiasFieldCorrectionInputSpec):
    """Inputs of the tissue correction; an undefined option is that of the preset."""

    options = traits.Instance(
        TissueOptions, desc="options of the tissue method, in place of preset and options"
    )


add_preset_traits(TissueBiasCorrectionInputSpec, TissueOptions, PRESETS)


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


class TissueBiasCorrection(MethodCorrection):
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
    _options_type, _presets = TissueOptions, PRESETS
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
        arguments = super()._arguments(cwd)
        options = arguments["options"]
        if options.posteriors and not isdefined(self.inputs.method_images):
            name = Path(self.inputs.input_image).name
            arguments["method_images"] = {
                label: cwd / fname_presuffix(name, suffix=f"_label-{label}_probseg")
                for label in options.tissues
            }
        return arguments
