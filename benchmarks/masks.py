"""Masks beside one another on heads with measured fields or labels: docs/validation/masks.md.

Errors of the field, contrast of the tissues, what of the brain is covered, and seconds.
Only images whose licence allows it are drawn, and of a head with an intact face only cuts through
the brain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np
from nibabel.processing import resample_from_to

from benchmarks import masks_elsewhere
from benchmarks.images import DATA
from benchmarks.machine import ROOT, arguments, computing_on, figure, head, publish, row
from n4ax_bids import N4Options, auto_mask, brain_mask, head_mask, n4, otsu_mask
from n4ax_bids.core.metrics import field_error, joint_variation
from n4ax_bids.phantoms import phantom

LABELLED = DATA / "labelled"
PAGE = ROOT / "docs" / "validation"
HEADS = (
    "xa30-norm-pair",
    "sim-t1-rf40A-pn3",
    "sim-t2-rf60B-pn5",
    "sim-pd-prisma64ch-pn3",
    "aomic-piop2-0001",
    "aomic-piop2-0002",
    "brainweb-t1-pn3-rf20-head2mm",
    "fpg-flair-3t",
)
FILES = (
    ("image", "image"),
    ("grey", "label-GM"),
    ("white", "label-WM"),
    ("csf", "label-CSF"),
    ("brain", "brain_mask"),
    ("rough", "brain_mask_rough"),
    ("truth", "field_true"),
    ("clean", "clean"),
    ("norm", "image_norm"),
)
"""parts of a case, and the files that hold them"""
DRAWN = ("xa30-norm-pair", "aomic-piop2-0001", "fpg-flair-3t")
"""BSD-2, CC0 and MIT; only axial cuts through the brain"""


class Case(NamedTuple):
    """A head and what is known of it."""

    name: str
    image: np.ndarray
    zooms: tuple[float, ...]
    brain: np.ndarray
    grey: np.ndarray | None
    white: np.ndarray | None
    truth: np.ndarray | None
    clean: np.ndarray | None
    """the same head without that field"""
    csf: np.ndarray | None = None


def cases(quick: bool) -> Iterator[Case]:
    """Read the heads that are there, or make a phantom."""
    if quick or not LABELLED.exists():
        made = phantom((40, 36, 32), field="polynomial", amplitude=0.4)
        yield Case("phantom", made.image, (4.0,) * 3, made.mask, None, None, made.log_field, None)
        return
    for name in HEADS:
        yield _case(name, {part: LABELLED / name / f"{file}.nii.gz" for part, file in FILES})
    philips = {
        "image": "head-philips3t_T1w",
        "grey": "head-philips3t_desc-fast_label-GM",
        "white": "head-philips3t_desc-fast_label-WM",
    }
    yield _case("head-philips3t", {k: DATA / f"{file}.nii.gz" for k, file in philips.items()})


def _case(name: str, files: Mapping[str, Path]) -> Case:
    read = nb.load(files["image"])
    zooms = tuple(map(float, read.header.get_zooms()[:3]))
    found = {part: _read(files[part], read) if part in files else None for part, _ in FILES}
    tissues = ("grey", "white", "csf")
    grey, white, csf = (None if found[k] is None else found[k] > 0.5 for k in tissues)
    parts = [found["brain"], found["rough"], grey, white]
    brain = np.any([part > 0 for part in parts if part is not None], axis=0)
    truth = None if found["truth"] is None else np.log(np.maximum(found["truth"], 1e-6))
    clean = found["norm"] if found["clean"] is None else found["clean"]
    return Case(name, found["image"], zooms, brain, grey, white, truth, clean, csf)


def _read(path: Path, image: nb.Nifti1Image) -> np.ndarray | None:
    """Read a file on the grid of an image; labels may be of a part of it."""
    if not path.exists():
        return None
    part = nb.load(path)
    if part.shape != image.shape:
        part = resample_from_to(part, image, order=0)
    return np.asarray(part.dataobj, np.float32)


Maker = Callable[[np.ndarray], np.ndarray]


def makers(case: Case) -> dict[str, Maker]:
    """Return what makes each mask of an image of a head."""
    return {
        "none": lambda image: np.ones(image.shape, bool),
        "otsu": otsu_mask,
        "head": lambda image: head_mask(image, case.zooms),
        "brain": lambda image: brain_mask(image, case.zooms),
        "auto": lambda image: auto_mask(image, case.zooms).mask,
        "label": lambda image: case.brain,
    }


def measured(case: Case) -> Iterator[str]:
    """Yield the rows of one head."""
    options = N4Options(shrink_factor=max(1, round(4 / max(case.zooms))))

    def log_field(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return n4(image, mask, zooms=case.zooms, options=options, return_bias=True)

    for name, make in makers(case).items():
        make(case.image)  # compiled once
        start = time.process_time()
        mask = make(case.image)
        seconds = time.process_time() - start if name not in ("none", "label") else None
        if name == "auto":
            name = f"auto: {auto_mask(case.image, case.zooms).kind}"
        if not mask.any():
            yield row(case.name, name, *["–"] * 5, figure(seconds))
            continue
        corrected, bias = log_field(case.image, mask)
        error = apart = spread = covered = share = None
        if case.truth is not None:
            error = field_error(bias, case.truth, case.brain).rmse
        clean = None if case.truth is None or case.clean is None else make(case.clean)
        if clean is not None and clean.any():
            difference = bias - log_field(case.clean, clean)[1]
            apart = field_error(difference, case.truth, case.brain).rmse
        if case.grey is not None:
            spread = joint_variation(corrected, case.white, case.grey)
            tissue = case.grey | case.white
            covered = np.count_nonzero(mask & tissue) / np.count_nonzero(tissue)
            share = np.count_nonzero(mask & tissue) / np.count_nonzero(mask)
        numbers = (error, apart, spread, covered, share, seconds)
        yield row(case.name, name, *map(figure, numbers))


def draw(case: Case, folder: Path) -> str:
    """Draw three axial cuts through the brain with the contours of two masks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axis = 1 if case.name.startswith("aomic") else 2  # of the feet-to-head direction
    inside = np.flatnonzero(case.brain.any(axis=tuple({0, 1, 2} - {axis})))
    cuts = np.quantile(inside, (0.6, 0.7, 0.8)).astype(int)
    shown = {"auto": auto_mask(case.image, case.zooms).mask, "otsu": otsu_mask(case.image)}
    drawing, panels = plt.subplots(1, 3, figsize=(7.5, 2.8))
    for panel, cut in zip(panels, cuts, strict=True):
        plane = np.take(case.image, cut, axis).T
        top = np.quantile(plane[plane > plane.mean()], 0.95)
        panel.imshow(plane, cmap="gray", vmin=0, vmax=top, origin="lower")
        for mask, colour in zip(shown.values(), ("tab:red", "tab:cyan"), strict=True):
            panel.contour(np.take(mask, cut, axis).T, [0.5], colors=colour, linewidths=0.7)
        panel.set_axis_off()
    drawing.tight_layout(pad=0.2)
    path = folder / f"masks-{case.name}.webp"
    drawing.savefig(path, dpi=80, pil_kwargs={"quality": 60})
    plt.close(drawing)
    return path.name


def lines(given: argparse.Namespace, folder: Path | None) -> Iterator[str]:
    """Yield the page."""
    yield (
        "RMSE: standard deviation of the difference between the estimated and the true ln b in "
        "the brain. Difference: the same, but the estimate on the head without the field, in its "
        "own mask, is first subtracted from the estimate. CJV: coefficient of joint variation of "
        "white and grey matter after correction. Covered: share of GM and WM that is in the mask. "
        "Tissue: share of the mask that is GM or WM. Seconds: CPU seconds that the mask takes. N4 "
        "has the preset `ants` with samples 4 mm apart. A dash means that the value is unknown or "
        "that no mask was found."
    )
    yield ""
    pictures = []
    yield from head("head", "mask", "RMSE", "difference", "CJV", "covered", "tissue", "seconds")
    for case in cases(given.quick):
        yield from measured(case)
        if folder and case.name in DRAWN:
            pictures.append((case.name, draw(case, folder)))
    for name, file in pictures:
        yield ""
        yield f"![masks of {name}]({file})"
        yield ""
        yield f"{name}: the mask `auto` (red) and Otsu's (cyan)."
    yield ""
    yield from masks_elsewhere.lines(given.quick)
    if not given.quick:
        yield ""
        for part in ATTEMPTS.strip().split("\n\n"):
            yield from part.splitlines() if part.startswith("|") else [" ".join(part.splitlines())]
            yield ""


ATTEMPTS = (Path(__file__).with_name("masks_attempts.md")).read_text(encoding="utf-8")


def main() -> None:
    given = arguments("masks", __doc__)
    given.out = given.out or (None if given.quick else PAGE)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    with computing_on(given.device, quick=given.quick):
        publish(given, "Masks", lines(given, given.out))


if __name__ == "__main__":
    main()
