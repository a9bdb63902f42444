"""The node for images with negative values, in the place of niworkflows' own."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.base import traits

from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection, N4BiasFieldCorrectionOutputSpec


class FixN4BiasFieldCorrectionOutputSpec(N4BiasFieldCorrectionOutputSpec):
    """The node's outputs, and niworkflows' one."""

    negative_values = traits.Bool(
        False, usedefault=True, desc="whether the image had negative values and was shifted"
    )


class FixN4BiasFieldCorrection(N4BiasFieldCorrection):
    """Bias field correction of an image whose lowest value, where negative, is brought to 0.

    Takes the place of `niworkflows.interfaces.fixes.FixN4BiasFieldCorrection`. As there, the
    shift stays in the corrected image, and outside a mask as well; the names and `copy_header`
    are those of the image as it was given. How much was subtracted is in the output
    `correction`.

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
