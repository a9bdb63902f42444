"""The nodes that stand in the place of nipype's class."""

from __future__ import annotations

from n4ax_bids.interfaces import FixN4BiasFieldCorrection, N4BiasFieldCorrection

OURS = (N4BiasFieldCorrection, FixN4BiasFieldCorrection)
