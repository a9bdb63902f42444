"""One field for other images of the same scan."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.command import descriptor
from n4ax_bids.apply import apply_field, load_field
from n4ax_bids.commands import apply_cli
from n4ax_bids.core import bspline
from n4ax_bids.core.field import LogField, divide
from n4ax_bids.core.placed_field import at_voxels, of_samples
from n4ax_bids.io.lattice import save_lattice

FILE = Path(__file__).parents[1] / "boutiques" / "n4ax-apply.json"
SHAPE = (24, 20, 16)
AFFINE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.05, -0.1, 0.2) @ np.diag([-2.0, 2.0, 3.0]), [20.0, -18.0, -25.0]
)
ROTATED = AFFINE @ nb.affines.from_matvec(nb.eulerangles.euler2mat(0.35, 0, 0), [0, 3, -3])
GRIDS = {
    "the same": (AFFINE, SHAPE),
    "coarser": (AFFINE @ np.diag([2, 2, 1.5, 1]), (12, 10, 10)),
    "oblique": (ROTATED, SHAPE),
    "flipped": (AFFINE @ nb.affines.from_matvec(np.diag([-1, 1, -1]), [23, 0, 15]), SHAPE),
    "other order of axes": (AFFINE[:, [2, 0, 1, 3]], (16, 24, 20)),
}


def log_field(rng, order=3):
    return LogField(
        rng.normal(0, 0.3, (5, 6, 7)).astype(np.float32),
        order,
        (0.1, 0.3, 0.0),
        tuple((n - order) / (m + 2.0) for n, m in zip((5, 6, 7), SHAPE, strict=True)),
        tuple(n - order - 1e-4 for n in (5, 6, 7)),
    )


def by_definition(field, affine, shape):
    """ln b at each voxel, from the definition of the spline, in float64."""
    index = np.moveaxis(np.indices(shape, float), 0, -1).reshape(-1, 3)
    at = nb.affines.apply_affine(np.linalg.inv(AFFINE) @ affine, index)
    t = np.clip(np.array(field.first) + np.array(field.step) * at, 0, field.clamp)
    weights = [
        bspline.basis_matrix(t[:, d], field.lattice.shape[d], field.order) for d in range(3)
    ]
    return np.einsum("pi,pj,pk,ijk->p", *weights, field.lattice, optimize=True).reshape(shape)


def save(path, data, affine=AFFINE):
    nb.Nifti1Image(np.asarray(data, np.float32), affine).to_filename(path)
    return path


@pytest.fixture
def lattice(tmp_path, rng):
    """A field, in a file."""
    field = log_field(rng)
    path = tmp_path / "sub-1_desc-biaslattice_T1w.nii.gz"
    places = {name: getattr(field, name) for name in ("first", "step", "clamp", "order")}
    save_lattice(path, field.lattice, **places, shape=SHAPE, affine=AFFINE)
    return path


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_field_is_evaluated_where_a_voxel_lies(rng, grid, order):
    affine, shape = GRIDS[grid]
    field = log_field(rng, order)
    placed = at_voxels(field, np.linalg.inv(AFFINE) @ affine, shape)
    np.testing.assert_allclose(placed.log_bias, by_definition(field, affine, shape), atol=2e-6)
    assert (placed.n_outside == 0) == (grid != "oblique")


def test_on_its_own_grid_it_is_the_division_of_a_correction(rng):
    field, image = log_field(rng), rng.uniform(1, 2, SHAPE).astype(np.float32)
    placed = at_voxels(field, np.eye(4), SHAPE)
    np.testing.assert_allclose(placed.log_bias, divide(image, field)[1], atol=1e-6)


def test_voxels_outside_have_the_value_at_the_border_and_are_counted(rng):
    field = of_samples(rng.normal(0, 0.1, SHAPE))
    shifted = nb.affines.from_matvec(np.eye(3), [-3, 0, 0])
    placed = at_voxels(field, shifted, (8, *SHAPE[1:]))
    assert placed.n_outside == 3 * SHAPE[1] * SHAPE[2]
    for plane in range(3):
        np.testing.assert_allclose(placed.log_bias[plane], placed.log_bias[3], atol=1e-6)


def test_an_image_of_the_field_gives_its_values_and_a_spline_between_them(rng):
    field = log_field(rng)
    dense = by_definition(field, AFFINE, SHAPE)
    found = of_samples(dense)
    np.testing.assert_allclose(at_voxels(found, np.eye(4), SHAPE).log_bias, dense, atol=2e-6)
    finer = AFFINE @ nb.affines.from_matvec(np.eye(3) / 2, [4, 4, 4])
    placed = at_voxels(found, np.linalg.inv(AFFINE) @ finer, (20, 20, 16))
    exact = by_definition(field, finer, (20, 20, 16))
    assert np.abs(placed.log_bias - exact).max() < 2e-3  # linear interpolation: 1.5e-2


def test_every_volume_of_a_series_gets_the_same_field(tmp_path, lattice, rng):
    series = rng.uniform(1, 2, (*SHAPE, 3)).astype(np.float32)
    image = nb.Nifti1Image((1000 * series).astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.001, 0)
    image.header.extensions.append(nb.nifti1.Nifti1Extension("comment", b"kept"))
    image.to_filename(tmp_path / "bold.nii.gz")
    out, bias = tmp_path / "out.nii.gz", tmp_path / "bias.nii"
    done = apply_field(tmp_path / "bold.nii.gz", lattice, out, bias_image=bias)
    assert (done.n_volumes, done.n_outside, done.notes) == (3, 0, ())
    written, b = nb.load(out), nb.load(bias).get_fdata()
    assert b.shape == SHAPE and written.header.extensions[0].get_content() == b"kept"
    np.testing.assert_array_equal(written.affine, nb.load(tmp_path / "bold.nii.gz").affine)
    expected = nb.load(tmp_path / "bold.nii.gz").get_fdata() / b[..., None]
    np.testing.assert_allclose(written.get_fdata(), expected, rtol=1e-6)
    again = tmp_path / "again.nii.gz"
    apply_field(out, bias, again, multiply=True)
    np.testing.assert_allclose(nb.load(again).get_fdata(), series, atol=1.1e-3)


MEASURE = """
import re, sys
from n4ax_bids.apply import apply_field
apply_field(*sys.argv[1:])
print(re.search(r"VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
"""


def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path, lattice):
    peaks = []
    for n in (2, 60):
        volume = nb.Nifti1Image(np.ones((96, 96, 48, n), np.float32), AFFINE)
        path = tmp_path / f"{n}.nii"
        volume.to_filename(path)
        words = [sys.executable, "-c", MEASURE, str(path), str(lattice), f"{tmp_path}/o{n}.nii"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 30  # MiB; the longer series has 98 MiB more


def test_a_field_is_found_beside_a_corrected_image(tmp_path, lattice):
    beside = tmp_path / "sub-1_desc-biascorr_T1w.nii.gz"
    assert load_field(beside).path == lattice
    lattice.unlink()
    with pytest.raises(ValueError, match="neither .*biaslattice.* nor .*biasfield.* is beside"):
        load_field(beside)
    field = save(tmp_path / "sub-1_desc-biasfield_T1w.nii.gz", np.full(SHAPE, 2.0))
    assert load_field(beside).path == field


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 1)])
def test_images_of_one_plane(tmp_path, shape):
    ramp = np.linspace(1, 2, 24)[:, None] * np.ones((24, 20))
    field = save(tmp_path / "field.nii", ramp)
    image = save(tmp_path / "image.nii", ramp.reshape(shape))
    done = apply_field(image, field, tmp_path / "out.nii")
    assert done.n_outside == 0
    found = nb.load(tmp_path / "out.nii")
    assert found.shape == shape
    np.testing.assert_allclose(found.get_fdata(), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": np.zeros(SHAPE)}, "values from 0 to 0; expected a field"),
        ({"field": np.full(SHAPE, np.nan)}, "expected a field, which is positive"),
        ({"output": "in.nii"}, "is the image itself; expected another name"),
        ({"output": "f.nii"}, "is the field itself"),
        ({"output": "out.txt"}, "its name ends in neither .nii nor .nii.gz"),
        ({"output": "no/out.nii"}, "no/out.nii: cannot be written"),
        ({"cut": True}, "truncated"),
    ],
)
def test_bad_input_gets_one_line_and_no_output(tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    save("f.nii", change.get("field", np.ones(SHAPE)))
    save("in.nii", np.ones((*SHAPE, 2)))
    if change.get("cut"):
        os.truncate("in.nii", 40000)
    before = sorted(tmp_path.iterdir())
    assert apply_cli.main(["f.nii", "in.nii", "-o", change.get("output", "out.nii")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.startswith("n4ax-apply: ")
    assert sorted(tmp_path.iterdir()) == before


def test_several_images_go_into_a_folder(tmp_path, lattice, capsys):
    images = [save(tmp_path / f"{name}.nii", np.ones(SHAPE)) for name in ("FLAIR", "bold")]
    far = save(tmp_path / "far.nii", np.ones(SHAPE), AFFINE + 100 * np.eye(4)[:, [3, 1, 2, 0]])
    words = [str(lattice), *map(str, images), str(far), "-o", str(tmp_path / "out")]
    assert apply_cli.main(words) == 0
    names = {"FLAIR.nii", "bold.nii", "far.nii"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    (line,) = capsys.readouterr().err.splitlines()
    assert "far.nii" in line and "voxels lie outside" in line
    twice = [str(lattice), str(images[0]), str(images[0]), "-o", str(tmp_path / "two")]
    assert apply_cli.main(twice) == 1 and not (tmp_path / "two").exists()


def test_a_node_does_what_the_call_does(tmp_path, lattice, monkeypatch):
    from n4ax_bids.interfaces import ApplyBiasField

    (tmp_path / "a").mkdir()
    images = [save(tmp_path / name, np.ones(SHAPE)) for name in ("x.nii", "a/x.nii")]
    monkeypatch.chdir(tmp_path)
    found = ApplyBiasField(in_files=[str(i) for i in images], field=str(lattice)).run().outputs
    assert len(set(found.out_files)) == len(set(found.bias_images)) == 2
    assert found.n_outside == [0, 0]
    apply_field(images[0], lattice, tmp_path / "out.nii")
    for each in found.out_files:
        assert Path(each).read_bytes() == (tmp_path / "out.nii").read_bytes()


def test_a_field_of_a_real_scan_on_other_grids(tmp_path, test_data):
    """The lattice of a correction, applied to the same scan resliced, is the field there."""
    from n4ax_bids import N4Options, correct

    source = test_data("head-philips3t_T1w.nii.gz")
    lattice = tmp_path / "lattice.nii.gz"
    correct(
        source,
        output_image=tmp_path / "c.nii.gz",
        lattice_image=lattice,
        options=N4Options(shrink_factor=8, n_iterations=(5, 5)),
    )
    field, image = load_field(lattice), nb.load(source)
    shape = image.shape[:3]
    flipped = image.affine @ nb.affines.from_matvec(np.diag([-1, 1, 1]), [shape[0] - 1, 0, 0])
    turned = image.affine @ nb.affines.from_matvec(nb.eulerangles.euler2mat(np.pi / 9, 0, 0))
    grids = {
        "2mm": (image.affine @ np.diag([2, 2, 2, 1]), tuple(n // 2 for n in shape)),
        "flipped": (flipped, shape),
        "oblique": (turned, shape),
    }
    for name, (affine, size) in grids.items():
        path = save(tmp_path / f"{name}.nii", np.ones(size, np.float32), affine)
        apply_field(path, field, tmp_path / f"{name}-out.nii")
        found = -np.log(nb.load(tmp_path / f"{name}-out.nii").get_fdata())
        some = np.random.default_rng(1).integers(0, size, (2000, 3))
        at = nb.affines.apply_affine(np.linalg.inv(field.affine) @ affine, some)
        inside = ((at >= 0) & (at <= np.array(shape) - 1)).all(axis=1)
        t = np.array(field.log_field.first) + np.array(field.log_field.step) * at
        t = np.clip(t, 0, field.log_field.clamp)
        weights = [
            bspline.basis_matrix(t[:, d], n, field.log_field.order)
            for d, n in enumerate(field.log_field.lattice.shape)
        ]
        control = np.asarray(field.log_field.lattice, float)
        exact = np.einsum("pi,pj,pk,ijk->p", *weights, control, optimize=True)
        assert inside.sum() > 500
        assert np.abs(found[tuple(some.T)] - exact)[inside].max() < 1e-4


def test_the_descriptor_is_the_parsers():
    """Where this fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION n4ax-apply > boutiques/n4ax-apply.json
    """
    version = json.loads(FILE.read_text())["tool-version"]
    assert FILE.read_text() == descriptor.encode(descriptor.apply_descriptor(version))


def test_boutiques_makes_our_command_line(tmp_path):
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(FILE)])
    invocation = tmp_path / "invocation.json"
    values = {"field": "/f.nii", "images": ["/a.nii", "/b.nii"], "output": "/out"}
    invocation.write_text(json.dumps(values))
    made = bosh(["exec", "simulate", str(FILE), "-i", str(invocation)])
    command = re.search(r"^n4ax-apply (.*)$", str(made), flags=re.MULTILINE)[1]
    asked = apply_cli.build_parser().parse_args(command.split())
    assert [str(p) for p in asked.images] == ["/a.nii", "/b.nii"] and str(asked.output) == "/out"


def test_every_command_of_the_page_runs(tmp_path, lattice):
    """The page's commands, with files of its names."""
    page = (Path(__file__).parents[1] / "docs" / "apply.md").read_text()
    commands = re.findall(r"^n4ax-apply .*$", page, flags=re.MULTILINE)
    assert len(commands) >= 3
    for name in ("T1w", "FLAIR", "bold", "T2w"):
        save(tmp_path / f"sub-01_{name}.nii.gz", np.ones(SHAPE))
    lattice.rename(tmp_path / "sub-01_desc-biaslattice_T1w.nii.gz")
    save(tmp_path / "field.nii.gz", np.full(SHAPE, 2.0))
    for command in commands:
        words = [sys.executable, "-m", "n4ax_bids.commands.apply_cli", *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
