"""Nipype interfaces that correct one image."""

from n4ax_bids.interfaces.bias import BiasFieldCorrection
from n4ax_bids.interfaces.fix import FixN4BiasFieldCorrection
from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection
from n4ax_bids.interfaces.patch import patch
from n4ax_bids.interfaces.zero_shot import ZeroShotBiasCorrection

__all__ = [
    "BiasFieldCorrection",
    "FixN4BiasFieldCorrection",
    "N4BiasFieldCorrection",
    "ZeroShotBiasCorrection",
    "patch",
]
