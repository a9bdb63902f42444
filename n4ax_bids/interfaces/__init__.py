"""Nipype interfaces: each a door to one verb."""

from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection

__all__ = ["N4BiasFieldCorrection"]
