"""Nipype interfaces that correct images, apply a field or realign a series."""

from n4ax_bids.interfaces.apply import ApplyBiasField
from n4ax_bids.interfaces.bias import BiasFieldCorrection
from n4ax_bids.interfaces.fix import FixN4BiasFieldCorrection
from n4ax_bids.interfaces.mcflirt import MCFLIRT
from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection
from n4ax_bids.interfaces.patch import patch
from n4ax_bids.interfaces.realign import Realign
from n4ax_bids.interfaces.series import RealignSeries
from n4ax_bids.interfaces.stack import StackCorrection
from n4ax_bids.interfaces.stack_image import StackImageCorrection
from n4ax_bids.interfaces.tissue import TissueBiasCorrection
from n4ax_bids.interfaces.zero_shot import ZeroShotBiasCorrection

__all__ = [
    "MCFLIRT",
    "ApplyBiasField",
    "BiasFieldCorrection",
    "FixN4BiasFieldCorrection",
    "N4BiasFieldCorrection",
    "Realign",
    "RealignSeries",
    "StackCorrection",
    "StackImageCorrection",
    "TissueBiasCorrection",
    "ZeroShotBiasCorrection",
    "patch",
]
