"""Few programs for many numbers of samples; a small series of a moving head."""

import pytest

from n4ax_bids.core.motion import samples
from tests.core.motion.small_series import SMALL
from tests.moving_head import motions, moving_head

SIZES = (7168, 49152, 65536)
"""numbers of samples: of the small grids, of the large one, and of the latter before any is
dropped"""


@pytest.fixture(scope="module")
def few_programs():
    """Pad the samples to few sizes, so that images that keep a few more share a program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "bucket", lambda n: next(size for size in SIZES if n <= size))
        yield


@pytest.fixture(scope="module")
def small():
    """Five volumes of 6 mm voxels that share their programs."""
    return moving_head(motions(5), noise=0.005, **SMALL)
