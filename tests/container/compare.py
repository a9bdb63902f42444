"""Compare two derivative datasets that should be the same: compare.py {same,close} OURS THEIRS.

same: made with the same packages. Images agree to 1e-6, sidecars word for word.
close: made with other versions of Python, JAX and numpy. Images agree within the bounds of a full
run (docs/validation/itk-parity.md): another rounding early in a run moves all that follows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nb
import numpy as np

SAME = {"max": 1e-6}
CLOSE = {"mean": 5e-5, "99th percentile": 2e-4, "max": 5e-4}


def main(kind: str, ours: Path, theirs: Path) -> int:
    """Print what differs too much; return 1 if anything does."""
    complaints = list(compare(ours, theirs, bounds={"same": SAME, "close": CLOSE}[kind]))
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return int(bool(complaints))


def compare(ours: Path, theirs: Path, *, bounds: dict[str, float]) -> Iterator[str]:
    """Yield a line for each file that is missing or differs."""
    names, others = names_in(ours), names_in(theirs)
    yield from (f"{name}: only in one of them" for name in sorted(names ^ others))
    images = sorted(name for name in names & others if name.endswith(".nii.gz"))
    if not images:
        yield f"{ours}: no images"
    worst = dict.fromkeys(bounds, 0.0)
    for name in images:
        for what, value in differences(ours / name, theirs / name).items():
            if what in bounds:
                worst[what] = max(worst[what], value)
                if not value <= bounds[what]:
                    yield f"{name}: {what} {value:.1e}, bound {bounds[what]:.0e}"
    found = ", ".join(f"{what} {value:.1e}" for what, value in worst.items())
    print(f"          {len(images)} images, largest differences: {found}")
    if bounds is SAME:
        for name in sorted(name for name in names & others if name.endswith(".json")):
            if content(ours / name) != content(theirs / name):
                yield f"{name}: other content"


def names_in(folder: Path) -> set[str]:
    """Return the files of a dataset, but for the records of single runs."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != "logs"}


def differences(ours: Path, theirs: Path) -> dict[str, float]:
    """Return how much two images differ, by their values; a lattice by the fields it means."""
    a, b = nb.load(ours), nb.load(theirs)
    if a.shape != b.shape or not np.array_equal(a.affine, b.affine):
        return dict.fromkeys(CLOSE, np.inf)
    a, b = (np.asarray(image.dataobj, np.float64) for image in (a, b))
    if "desc-biaslattice" in ours.name:
        a, b = np.exp(a), np.exp(b)
    error = np.abs(a - b) / np.where(b == 0, 1, np.abs(b))
    return {
        "mean": float(error.mean()),
        "99th percentile": float(np.quantile(error, 0.99)),
        "max": float(error.max()),
    }


def content(path: Path) -> object:
    """Return what a JSON file says, but for the container and the way to the input."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "dataset_description.json":
        found.pop("DatasetLinks")
        for maker in found["GeneratedBy"]:
            maker.pop("Container", None)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
