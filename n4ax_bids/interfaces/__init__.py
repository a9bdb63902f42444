"""Nipype interfaces that correct images, apply a field or realign a series.

They are loaded at their first use, because two of them are derived from nipype's interfaces of FSL
and SPM, which take long to import. `patch` is the module `n4ax_bids.interfaces.patch`, which can
be called as its function of the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Its modules import one another in a ring. Threads that enter the ring at different places fail,
# so it is loaded here and not with the first node.
import nipype.interfaces.base  # noqa: F401

from n4ax_bids import first_use

if TYPE_CHECKING:
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

_HOMES = {
    "ApplyBiasField": "n4ax_bids.interfaces.apply",
    "BiasFieldCorrection": "n4ax_bids.interfaces.bias",
    "FixN4BiasFieldCorrection": "n4ax_bids.interfaces.fix",
    "MCFLIRT": "n4ax_bids.interfaces.mcflirt",
    "N4BiasFieldCorrection": "n4ax_bids.interfaces.n4",
    "Realign": "n4ax_bids.interfaces.realign",
    "RealignSeries": "n4ax_bids.interfaces.series",
    "StackCorrection": "n4ax_bids.interfaces.stack",
    "StackImageCorrection": "n4ax_bids.interfaces.stack_image",
    "TissueBiasCorrection": "n4ax_bids.interfaces.tissue",
    "ZeroShotBiasCorrection": "n4ax_bids.interfaces.zero_shot",
    "patch": "n4ax_bids.interfaces.patch",
}

__getattr__, __dir__ = first_use.names(__name__, _HOMES)
