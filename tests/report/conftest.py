"""Records of images that never were."""

from __future__ import annotations

import pytest

from n4ax_bids.report.measures import MEASURES

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def evil() -> str:
    """Text that takes a page over where it is not escaped."""
    return EVIL


@pytest.fixture
def make_record():
    """Make the record of an image: (name, **measures)."""

    def make(name: str, *, warnings=(), **measures) -> dict:
        values = {measure.name: 1.0 for measure in MEASURES if "_cv_" not in measure.name}
        return {
            "image": name,
            "suffix": name.rpartition("_")[2],
            "source": f"{name.partition('_')[0]}/anat/{name}.nii.gz",
            "page": f"{name.partition('_')[0]}.html#{name}",
            "region": "voxels above Otsu's threshold",
            "window": [0.0, 200.0],
            "gain": 1.1,
            "tissues": [],
            "notes": [],
            "warnings": list(warnings),
            "measures": values | measures,
        }

    return make


@pytest.fixture
def make_sidecar():
    """Make the sidecar of a corrected image: (**more)."""

    def make(**more) -> dict:
        n4 = {
            "n_voxels_used": 7,
            "device": "cpu",
            "options": {"shrink_factor": 4, "bspline_fitting_distance": None, "refine": True},
            "versions": {"jax": "0"},
        }
        return {"N4": n4, "Sources": ["bids:raw:x"], **more}

    return make
