"""Small series of a moving head, and options that suit their grid."""

from n4ax_bids.core.motion import series, smoothing
from n4ax_bids.options.realign import RealignOptions

SMALL = {"shape": (28, 30, 22), "zooms": (6.0, 6.0, 7.0)}
ONE_PASS = RealignOptions(register_to_mean=False)
COARSE = RealignOptions(register_to_mean=False, separation=8)
"""for the small grid"""


def grid_of(moved):
    """Return the grid of a series, for the solve."""
    return smoothing.grid_of(moved.affine, moved.shape)


def estimated(moved, options=None):
    """Estimate the motion of a series whose volumes are in memory."""
    volumes = moved.volumes
    return series.estimate(
        lambda i: volumes[i], len(volumes), grid_of(moved), options or RealignOptions()
    )
