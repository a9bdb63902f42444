"""The parameter sets of real Nipype clients, through our node and through the ANTs program.

`python -m benchmarks.ants_parity` gives both the same files and writes
docs/validation/ants-parity.md (about half an hour on 2 cores). `--keep FOLDER` keeps what the ANTs
program made, so that the next run needs a few minutes. The tests run some of the sets on cropped
volumes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nb
import numpy as np
from nipype.interfaces.ants import N4BiasFieldCorrection as AntsNode
from scipy import ndimage

from benchmarks.parity_cases import (
    DATA,
    HEAD,
    ROOT,
    Difference,
    difference,
    largest,
    within_full_run_bounds,
)
from benchmarks.peers import ants_n4
from n4ax_bids.core.threshold import otsu_mask
from n4ax_bids.interfaces import N4BiasFieldCorrection

PAGE = ROOT / "docs" / "validation" / "ants-parity.md"

FMRIPREP = {"n_iterations": [50] * 5, "convergence_threshold": 1e-7, "shrink_factor": 4}
MESH = "-b [4x5x4]"


class Set(NamedTuple):
    """What a client gives its node, and who does."""

    inputs: dict[str, Any]
    clients: str
    region: str = "none"
    """none; "float" or "binary" and "weight" or "mask" """


SETS = {
    "P1": Set({}, "defaults: smriprep template, mriqc synthstrip, qsiprep fieldmaps"),
    "P2": Set(
        FMRIPREP | {"n_iterations": [50] * 4, "bspline_fitting_distance": 200},
        "niworkflows brain extraction, qsiprep",
    ),
    "P3": Set(FMRIPREP | {"bspline_fitting_distance": 200}, "niworkflows n4_only, nibabies"),
    "P4": Set(
        FMRIPREP | {"bspline_fitting_distance": 200}, "fMRIPrep's final T1w", "float weight"
    ),
    "P5": Set(FMRIPREP, "niworkflows epi reference, sdcflows"),
    "P6": Set({"bspline_fitting_distance": 200}, "fMRIPrep BOLD", "float weight"),
    "P7": Set({"n_iterations": [50] * 4}, "mriqc after synthstrip", "binary weight"),
    "P8": Set(
        {"n_iterations": [50] * 4, "shrink_factor": 1, "args": MESH}, "mriqc and nirodents, rat"
    ),
    "P9": Set(
        {"n_iterations": [50] * 4, "shrink_factor": 1, "args": MESH, "rescale_intensities": True},
        "nirodents final",
        "float mask",
    ),
    "P10": Set(
        FMRIPREP | {"bspline_fitting_distance": 200, "rescale_intensities": True},
        "nibabies",
        "binary mask",
    ),
}

VOLUMES = {
    "whole head": HEAD,
    "spine slab": "spine-sct_T2starw.nii.gz",
    "kidney": "kidney-ge3t_GRE.nii.gz",
    "oblique FLAIR": "brain-niivue_FLAIR.nii.gz",
}
THICK = 20
"""voxels; a thinner axis keeps all of them, for ANTs fails where shrinking leaves one"""
LARGEST_AT_FULL_RESOLUTION = 250_000
"""voxels; ANTs takes 3 microseconds for one in each of 200 iterations"""


class Files(NamedTuple):
    """One volume and what can be its mask or weight."""

    image: Path
    binary: Path
    float: Path


class Outcome(NamedTuple):
    """Differences of both files, everywhere; and whether both headers are the same."""

    corrected: Difference
    bias: Difference
    outside: float
    """largest difference of corrected intensities outside the mask, relative"""
    same_header: bool
    counts: tuple[int, ...]
    ants: tuple[str, ...]
    """the words that the ANTs program was given"""


def prepare(name: str, folder: Path, most_voxels: int | None = None) -> Files:
    """Write a volume of the test data, every n-th voxel of its middle, with mask and weight."""
    source = nb.load(DATA / VOLUMES[name])
    step, shape = 1, source.shape
    while most_voxels and np.prod(shape) > most_voxels:
        step += 1
        shape = [n // step if n > THICK else n for n in source.shape]
    image = source.slicer[tuple(slice(0, None, step if n > THICK else 1) for n in source.shape)]
    values = np.asarray(image.get_fdata(), np.float32)
    inside = otsu_mask(values)
    smooth = ndimage.gaussian_filter(inside.astype(np.float32), 1.5)
    made = Files(*(folder / f"{part}.nii.gz" for part in ("image", "binary", "float")))
    nb.save(image, made.image)
    for path, array in ((made.binary, inside), (made.float, np.where(smooth < 0.02, 0, smooth))):
        saved = nb.Nifti1Image(array.astype(np.float32), image.affine, image.header)
        saved.set_data_dtype(np.float32)
        nb.save(saved, path)
    return made


def compare(
    which: str, files: Files, folder: Path, kept: Path | None = None, **changes: Any
) -> Outcome:
    """Give both programs the same set and files; `changes` replace inputs (shorter runs)."""
    chosen = SETS[which]
    inputs = chosen.inputs | changes
    kind, _, role = chosen.region.partition(" ")
    if role:
        inputs = inputs | {f"{role}_image": str(getattr(files, kind))}
    node = AntsNode(
        input_image=str(files.image),
        output_image="{corrected}",
        bias_image="{bias}",
        **{name: value for name, value in inputs.items() if name != "rescale_intensities"},
    )
    words = tuple(shlex.split(node.cmdline)[1:])
    theirs = run_ants(words, files, folder, kept)
    made = (
        N4BiasFieldCorrection(
            input_image=str(files.image),
            output_image=str(folder / "ours.nii.gz"),
            bias_image=str(folder / "ours_bias.nii.gz"),
            device="cpu",
            **inputs,
        )
        .run(cwd=str(folder))
        .outputs
    )
    ours = [nb.load(path) for path in (made.output_image, made.bias_image)]
    region = np.asarray(nb.load(getattr(files, kind)).dataobj) if role else None
    corrected, bias, outside = differences(ours, theirs, region)
    return Outcome(
        corrected,
        bias,
        outside,
        all(
            np.allclose(one.affine, other.affine, atol=1e-5)
            for one, other in zip(ours, theirs, strict=True)
        ),
        tuple(made.correction["details"]["n_iterations"]),
        words,
    )


def run_ants(
    words: tuple[str, ...],
    files: Files,
    folder: Path,
    kept: Path | None,
    threads: int = 2,
) -> list[nb.Nifti1Image]:
    """Run the program, or take what it made of the same words and files before."""
    paths = [folder / f"ants_{part}_{threads}.nii.gz" for part in ("corrected", "bias")]
    key = repr((words, threads, version("antspyx"))).replace(str(files.image.parent), "")
    for path in files:
        key += hashlib.sha256(np.asarray(nb.load(path).dataobj).tobytes()).hexdigest()
    stored = kept and kept / hashlib.sha256(key.encode()).hexdigest()
    if stored and stored.exists():
        paths = [stored / path.name for path in paths]
    else:
        named = dict(zip(("corrected", "bias"), paths, strict=True))
        ants_n4(*(word.format_map(named) for word in words), threads=threads)
        if stored:
            stored.mkdir(parents=True)
            for path in paths:
                shutil.copy(path, stored)
    return [nb.load(path) for path in paths]


def differences(
    ours: list[nb.Nifti1Image], theirs: list[nb.Nifti1Image], region: np.ndarray | None = None
) -> tuple[Difference, Difference, float]:
    """Compare corrected images and fields everywhere, and corrected ones outside a mask."""
    (our_out, our_bias), (out, bias) = (
        [np.asarray(image.dataobj, np.float64) for image in pair] for pair in (ours, theirs)
    )
    seen = (out != 0) & (our_out != 0) & (np.sign(out) == np.sign(our_out))
    assert np.array_equal(out == 0, our_out == 0)
    apart = np.where(seen, np.abs(our_out / np.where(seen, out, 1) - 1), 0)
    outside = apart[region == 0] if region is not None else apart[:0]
    return (
        Difference(float(apart.mean()), float(np.quantile(apart, 0.99)), float(apart.max())),
        difference(np.log(our_bias), np.log(bias)),
        float(outside.max()) if outside.size else 0.0,
    )


def rows(kept: Path | None) -> Iterator[str]:
    for which, chosen in SETS.items():
        full = chosen.inputs.get("shrink_factor") == 1
        for name in VOLUMES:
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                files = prepare(name, folder, LARGEST_AT_FULL_RESOLUTION if full else None)
                shape = "×".join(map(str, nb.load(files.image).shape))
                found = compare(which, files, folder, kept)
                floor, itself = None, ""
                if not within(found):
                    two, *others = (
                        run_ants(found.ants, files, folder, kept, n) for n in (2, 1, 3, 4)
                    )
                    each = [differences(other, two)[:2] for other in others]
                    floor = tuple(largest(part) for part in zip(*each, strict=True))
                    itself = "; ".join(map(cell, floor))
            good = found.same_header and within(found, floor)
            yield (
                f"| {which} | {name} | {shape} | {chosen.region} | {cell(found.corrected)} | "
                f"{cell(found.bias)} | {found.outside:.1e} | {itself} | "
                f"{'yes' if good else '**no**'} |"
            )


def within(found: Outcome, floor: tuple[Difference, Difference] | None = None) -> bool:
    """Say whether both files are within the bounds, or within 3 times ANTs' own difference."""
    floor = floor or (Difference(0, 0, 0),) * 2
    return all(map(within_full_run_bounds, (found.corrected, found.bias), floor))


def cell(part: Difference) -> str:
    return f"{part.mean:.1e} / {part.p99:.1e} / {part.max:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what ANTs makes here")
    kept = parser.parse_args().keep
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    lines = [
        "# The parameter sets of Nipype clients, compared with the ANTs program",
        "",
        "Written by `python -m benchmarks.ants_parity`; "
        f"antspyx {version('antspyx')}, jax {version('jax')}; CPU.",
        "",
        "Both programs get the same files. The arguments for the ANTs program are those that",
        "nipype's own interface makes. The table gives differences between the written files,",
        "|ours/theirs − 1|, at every voxel, inside and outside the mask: mean / 99th percentile /",
        "max. The bounds are: mean 5e-5, 99th percentile 2e-4, max 5e-4, same affine. If one of",
        "them is exceeded, the ANTs program with two threads is also compared with itself with 1,",
        "3 and 4 threads (corrected; bias field: the largest of each), and the bound is 3 times",
        "that difference. Sets at shrink 1 use every n-th voxel of large volumes, because the",
        f"program takes an hour beyond {LARGEST_AT_FULL_RESOLUTION} voxels.",
        "",
        *(f"- {which}: {chosen.clients}" for which, chosen in SETS.items()),
        "",
        "| set | volume | shape | mask or weight | corrected | bias field | corrected, outside "
        "| ANTs itself | within |",
        "|" + " --- |" * 9,
    ]
    for row in rows(kept):
        print(row, flush=True)
        lines.append(row)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
