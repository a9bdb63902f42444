"""Records of images that never were."""

from __future__ import annotations

import pytest

from n4ax_bids.report.measures import COMMON

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def evil() -> str:
    """Text that takes a page over where it is not escaped."""
    return EVIL


@pytest.fixture
def make_record():
    """Make the record of an image: (name, **measures)."""

    def make(name: str, *, warnings=(), **measures) -> dict:
        values = {measure.name: 1.0 for measure in COMMON if "_cv_" not in measure.name}
        return {
            "image": name,
            "suffix": name.rpartition("_")[2],
            "source": f"{name.partition('_')[0]}/anat/{name}.nii.gz",
            "page": f"{name.partition('_')[0]}.html#{name}",
            "region": "voxels above Otsu's threshold",
            "outline": "edge of the mask",
            "field_median": 0.8,
            "files": [],
            "window": [0.0, 200.0],
            "gain": 1.1,
            "tissues": [],
            "notes": [],
            "warnings": list(warnings),
            "panel": "At each level: iterations done.",
            "details": [["voxels used", 7]],
            "measures": values | measures,
        }

    return make


@pytest.fixture
def make_sidecar():
    """Make the sidecar of a corrected image: (**more)."""

    def make(**more) -> dict:
        facts = {
            "Device": "cpu",
            "Options": {"shrink_factor": 4, "bspline_fitting_distance": None, "refine": True},
            "Versions": {"jax": "0"},
        }
        return {"BiasCorrection": facts, "Sources": ["bids:raw:x"], **more}

    return make
