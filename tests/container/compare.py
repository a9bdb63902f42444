"""Compare two derivative datasets.

    compare.py same OURS THEIRS         made with the same packages: images agree to 1e-6, sidecars
                                        word for word
    compare.py close OURS THEIRS BIDS   made with other versions of Python, JAX and numpy: fields
                                        and images agree inside the mask within the bounds of a
                                        full run (docs/validation/itk-parity.md)

Another rounding early in a run moves all that follows. So a full run is held to a bound or, where
that is larger, to three times what ITK differs from itself on the same image when it has other
numbers of threads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nb
import numpy as np
import SimpleITK as sitk

from benchmarks.parity_cases import FULL, Difference, difference, largest, within_full_run_bounds
from benchmarks.peers import itk_n4
from n4ax_bids.core.threshold import otsu_mask

SAME = 1e-6
NOTHING = Difference(0, 0, 0)


def main(kind: str, ours: Path, theirs: Path, bids: Path | None = None) -> int:
    """Print what differs too much; return 1 if anything does."""
    names, others = names_in(ours), names_in(theirs)
    complaints = [f"{name}: only in one of them" for name in sorted(names ^ others)]
    both = sorted(names & others)
    if not any(name.endswith(".nii.gz") for name in both):
        complaints.append(f"{ours}: no images")
    if kind == "same":
        complaints += same(ours, theirs, both)
    else:
        complaints += close(ours, theirs, both, bids)
    for line in complaints:
        print(line)
    return int(bool(complaints))


def names_in(folder: Path) -> set[str]:
    """Return the files of a dataset, but for the records of single runs."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != "logs"}


def same(ours: Path, theirs: Path, names: list[str]) -> Iterator[str]:
    """Yield a line for each image or sidecar that is another."""
    worst = 0.0
    for name in names:
        if name.endswith(".nii.gz"):
            a, b = nb.load(ours / name), nb.load(theirs / name)
            if a.header != b.header:
                yield f"{name}: other header"
                continue
            a, b = (np.asarray(image.dataobj, np.float64) for image in (a, b))
            found = float((np.abs(a - b) / np.where(b == 0, 1, np.abs(b))).max())
            worst = max(worst, found)
            if not found <= SAME:
                yield f"{name}: differs by {found:.1e}, bound {SAME:.0e}"
        elif name.endswith(".json") and content(ours / name) != content(theirs / name):
            yield f"{name}: other content"
    print(f"          largest difference {worst:.1e}")


def content(path: Path) -> object:
    """Return what a JSON file says, but for the container and the way to the input."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "dataset_description.json":
        found.pop("DatasetLinks")
        for maker in found["GeneratedBy"]:
            maker.pop("Container", None)
    return found


def close(ours: Path, theirs: Path, names: list[str], bids: Path) -> Iterator[str]:
    """Yield a line for each field or corrected image that is too far from the other."""
    for name in names:
        if name.endswith(("T1w.nii.gz", "T2w.nii.gz")) and "desc-biaslattice" not in name:
            record = json.loads((ours / name.replace(".nii.gz", ".json")).read_text())
            source = bids / record["Sources"][0].removeprefix("bids:raw:")
            mask = otsu_mask(array(source)) & (array(ours / name) > 0)
            pair = (np.log(array(folder / name)[mask]) for folder in (ours, theirs))
            found = difference(*pair)
            itself = NOTHING
            if not within_full_run_bounds(found, itself):
                details = record["BiasCorrection"]["Details"]
                itself = itk_itself(source, details["shrink_factors"], found)
            beside = "" if itself is NOTHING else f"; ITK itself {figures(itself)}"
            print(f"          {Path(name).name}: {figures(found)}{beside}")
            if not within_full_run_bounds(found, itself):
                yield f"{name}: beyond the bounds of a full run"


def itk_itself(source: Path, factors: list[int], found: Difference) -> Difference:
    """Return how much ITK's fields differ between numbers of threads; stop when it explains."""
    image = sitk.ReadImage(str(source), sitk.sitkFloat32)
    mask = sitk.OtsuThreshold(image, 0, 1, 200)
    small, inside = (
        sitk.GetArrayFromImage(sitk.Shrink(part, factors)).T for part in (image, mask)
    )
    inside = inside > 0

    def log_bias(threads: int) -> np.ndarray:
        return itk_n4(small, inside, n_iterations=FULL, threads=threads).log_bias[inside]

    two, itself = log_bias(2), NOTHING
    for threads in (1, 4, 8):
        itself = largest([itself, difference(log_bias(threads), two)])
        if within_full_run_bounds(found, itself):
            break
    return itself


def array(path: Path) -> np.ndarray:
    return np.squeeze(np.asarray(nb.load(path).dataobj, np.float32, order="F"))


def figures(found: Difference) -> str:
    return " / ".join(f"{value:.1e}" for value in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(Path, sys.argv[2:])))
