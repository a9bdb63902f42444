"""A ball in an image file, with masks; its correction by `correct` and by the ANTs program."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nb
import numpy as np

from n4ax_bids.correct import correct
from n4ax_bids.io import volume
from n4ax_bids.options import N4Options

SHAPE = (26, 24, 22)
OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.5, 1.5, 2]), [31.0, -44.0, 12.5]
)
SHORT = N4Options(n_iterations=(2, 2), shrink_factor=2)


def bright_ball(rng, shape=SHAPE):
    """Three tissues in a ball on a weak background, under a field of ±40 %."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(x**2 for x in axes) < 0.8
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], shape), 20.0)
    tissue *= 1 + 0.03 * rng.standard_normal(shape)
    return (tissue * np.exp(0.4 * axes[0] - 0.3 * axes[1])).astype(np.float32), inside


def write(path, data, affine=OBLIQUE, dtype=np.float32):
    image = nb.Nifti1Image(np.asarray(data, dtype), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.to_filename(path)
    return path


def save_ball(folder, rng):
    """Write an image, masks of it and a weight for the fixture `ball`; return the folder."""
    data, inside = bright_ball(rng)
    write(folder / "image.nii.gz", data)
    write(folder / "binary.nii.gz", inside, dtype=np.uint8)
    labels = inside.astype(np.float32)
    labels[:9] *= 2
    labels[9:12] *= 0.5
    write(folder / "labels.nii.gz", labels)
    weight = rng.uniform(-0.2, 1, SHAPE) * inside
    write(folder / "weight.nii.gz", weight)
    (folder / "out").mkdir()
    return folder


def run(folder, name="image.nii.gz", **kwargs):
    """Correct with all outputs; return the record and what was written."""
    record = correct(
        folder / name,
        folder / "out" / "corrected.nii.gz",
        bias_image=folder / "out" / "bias.nii.gz",
        lattice_image=folder / "out" / "lattice.nii.gz",
        **{"options": SHORT, "device": "cpu"} | kwargs,
    )
    corrected, bias = (volume.load(p).data for p in (record.output_image, record.bias_image))
    return record, corrected, bias


NOT_NUMBERS = [np.nan, np.inf, -np.inf]


def save_holed(ball):
    """Write the images for the fixture `holed`; return the folder."""
    data = volume.load(ball / "image.nii.gz").data.copy()
    outside = np.argwhere(volume.load(ball / "binary.nii.gz").data == 0)
    for number, place in enumerate(outside[:: len(outside) // 9]):
        data[tuple(place)] = NOT_NUMBERS[number % 3]
    data[0] = np.nan
    data[1, 1, 1] = -50
    write(ball / "holed.nii.gz", data)
    write(ball / "filled.nii.gz", np.where(np.isfinite(data), data, 0))
    return ball


def in_unit(path, name, unit, mm):
    """Write the same image with its header in another unit."""
    image = nb.load(path)
    affine = image.affine.copy()
    affine[:3] /= mm
    image = nb.Nifti1Image(image.dataobj, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units(unit)
    image.to_filename(path.with_name(name))
    return path.with_name(name)


ANTS = """
import json, sys
from ants.internal import get_lib_fn
for words in json.loads(sys.argv[1]):
    assert get_lib_fn("N4BiasFieldCorrection")(words) == 0, words
"""


def ants(*runs):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash."""
    words = json.dumps([[str(word) for word in words] for words in runs])
    subprocess.run([sys.executable, "-c", ANTS, words], check=True, timeout=300)
