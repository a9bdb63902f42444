"""The node for images with negative values that replaces niworkflows' own."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.base import traits

from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection, N4BiasFieldCorrectionOutputSpec


class FixN4BiasFieldCorrectionOutputSpec(N4BiasFieldCorrectionOutputSpec):
    """The node's outputs, and the one that niworkflows adds."""

    negative_values = traits.Bool(
        False, usedefault=True, desc="whether the image had negative values and was shifted"
    )


class FixN4BiasFieldCorrection(N4BiasFieldCorrection):
    """Bias field correction of an image from which a negative lowest value is subtracted first.

    Replaces `niworkflows.interfaces.fixes.FixN4BiasFieldCorrection`. As there, the corrected image
    stays shifted, also outside a mask; names and `copy_header` refer to the original image. The
    output `correction` contains the subtracted value.

    Examples
    --------
    >>> from n4ax_bids.interfaces import FixN4BiasFieldCorrection
    >>> FixN4BiasFieldCorrection(input_image="boldref.nii.gz").run()  # doctest: +SKIP
    """

    output_spec = FixN4BiasFieldCorrectionOutputSpec
    _shift_negative = True

    def _run_interface(self, runtime: Any) -> Any:
        runtime = super()._run_interface(runtime)
        self._results["negative_values"] = self._results["correction"]["shift"] != 0
        return runtime
