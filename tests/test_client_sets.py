"""Parameter sets of real Nipype clients through our node and the ANTs program, cropped volumes.

Few iterations, so that single voxels at the end of the histogram have not acted yet; full runs on
whole volumes: docs/validation/ants-parity.md.
"""

import pytest

from benchmarks import ants_parity


@pytest.mark.parametrize("volume", ants_parity.VOLUMES)
@pytest.mark.parametrize("which", ("P1", "P3", "P4", "P8", "P9", "P10"))
def test_set_gives_the_files_of_ants(which, volume, test_data, tmp_path):
    test_data(ants_parity.VOLUMES[volume])
    full = ants_parity.SETS[which].inputs.get("shrink_factor") == 1
    files = ants_parity.prepare(volume, tmp_path, most_voxels=40_000 if full else 200_000)
    found = ants_parity.compare(which, files, tmp_path, n_iterations=[2, 1])
    assert found.counts == (2, 1)
    assert found.corrected.max <= 2e-6
    assert found.bias.max <= 2e-6
    assert found.same_header
