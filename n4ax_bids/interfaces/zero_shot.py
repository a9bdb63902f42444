"""The zero-shot method as a nipype interface with a trait for each option."""

from __future__ import annotations

from nipype.interfaces.base import traits

from n4ax_bids.interfaces.bias import BiasFieldCorrectionInputSpec
from n4ax_bids.interfaces.with_presets import MethodCorrection, add_preset_traits
from n4ax_bids.options.zero_shot import PRESETS, ZeroShotOptions


class ZeroShotBiasCorrectionInputSpec(BiasFieldCorrectionInputSpec):
    """Inputs of the zero-shot correction; an undefined option is that of the preset."""

    options = traits.Instance(
        ZeroShotOptions, desc="options of the zero-shot method, in place of preset and options"
    )


add_preset_traits(ZeroShotBiasCorrectionInputSpec, ZeroShotOptions, PRESETS)


class ZeroShotBiasCorrection(MethodCorrection):
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
    _options_type, _presets = ZeroShotOptions, PRESETS
