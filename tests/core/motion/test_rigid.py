"""Motion, matrices and the conventions of other programs."""

import nibabel as nb
import nitransforms as nt
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from n4ax_bids.core.motion import rigid
from n4ax_bids.io import motion_files

SHAPE = (21, 17, 11)
OBLIQUE = nb.affines.from_matvec(
    Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix() @ np.diag([3, 3.2, -4]),
    [-20, 35, 8],
)
AXIAL = nb.affines.from_matvec(np.diag([-3, 3.2, 4]), [30, -25, 8])


@pytest.fixture
def q(rng):
    return np.concatenate([rng.uniform(-5, 5, (6, 3)), rng.uniform(-0.2, 0.2, (6, 3))], axis=1)


def image(affine):
    return nb.Nifti1Image(np.zeros(SHAPE, np.float32), affine)


def test_the_matrix_is_the_product_of_its_rotations():
    q = np.array([1, 2, 3, 0.1, -0.2, 0.3])
    (c1, c2, c3), (s1, s2, s3) = np.cos(q[3:]), np.sin(q[3:])
    r1 = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    r2 = np.array([[c2, 0, s2], [0, 1, 0], [-s2, 0, c2]])
    r3 = np.array([[c3, s3, 0], [-s3, c3, 0], [0, 0, 1]])
    expected = nb.affines.from_matvec(r1 @ r2 @ r3, q[:3])
    np.testing.assert_allclose(rigid.matrix(q), expected, atol=1e-15)


def test_parameters_invert_the_matrix(q):
    np.testing.assert_allclose(rigid.parameters(rigid.matrix(q)), q, atol=1e-14)
    np.testing.assert_allclose(
        rigid.inverse(rigid.matrix(q)), np.linalg.inv(rigid.matrix(q)), atol=1e-14
    )


def test_the_centre_of_the_grid_only_moves_by_the_translation(q):
    centre = rigid.grid_centre(OBLIQUE, SHAPE)
    there = rigid.inverse(rigid.mapping(q, OBLIQUE, SHAPE)) @ [*centre, 1]
    np.testing.assert_allclose(there[:, :3], centre + q[:, :3], atol=1e-12)
    np.testing.assert_allclose(
        rigid.motion(rigid.mapping(q, OBLIQUE, SHAPE), OBLIQUE, SHAPE), q, atol=1e-13
    )


@pytest.mark.parametrize("affine", [OBLIQUE, AXIAL], ids=["oblique", "axial"])
def test_fsl(q, affine, tmp_path):
    """nitransforms writes the same matrix, and reads ours back as the same transform."""
    mappings = rigid.mapping(q, affine, SHAPE)
    matrices = rigid.fsl_matrices(mappings, affine, SHAPE)
    for mapping, ours in zip(mappings, matrices, strict=True):
        nt.linear.Affine(mapping, reference=image(affine)).to_filename(
            tmp_path / "theirs.mat", fmt="fsl", moving=image(affine)
        )
        theirs = motion_files.read_table(tmp_path / "theirs.mat", 4)
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
        (tmp_path / "ours.mat").write_text(motion_files.table_text(ours))
        read = nt.linear.load(
            tmp_path / "ours.mat", fmt="fsl", reference=image(affine), moving=image(affine)
        )
        np.testing.assert_allclose(read.matrix.squeeze(), mapping, atol=1e-5)
    np.testing.assert_allclose(
        rigid.from_fsl_matrices(matrices, affine, SHAPE), mappings, atol=1e-10
    )
    centre = np.array([90.0, 110, 60])
    rows = rigid.fsl_parameters(matrices, centre)
    np.testing.assert_allclose(rigid.from_fsl_parameters(rows, centre), matrices, atol=1e-10)


def test_a_row_that_mcflirt_wrote():
    """A row and its matrix from a run of MCFLIRT, as published on NeuroStars (topic 3839)."""
    row = np.array([0.000388147, -0.000175142, 0.000708284, -0.113317, 0.265861, 0.19274])
    matrix = np.array(
        [
            [1.000000, 0.000708, 0.000175, -0.193283],
            [-0.000708, 1.000000, 0.000388, 0.310994],
            [-0.000175, -0.000388, 1.000000, 0.247711],
            [0, 0, 0, 1],
        ]
    )
    origin = np.zeros(3)
    turned = rigid.from_fsl_parameters(row, origin)
    np.testing.assert_allclose(turned[:3, :3], matrix[:3, :3], atol=6e-7)
    # The image is not published: any centre on one line has these translations, as it should.
    aside = matrix[:3, 3] - row[3:]
    centre = np.linalg.lstsq(np.eye(3) - turned[:3, :3], aside, rcond=1e-3)[0]
    found = rigid.from_fsl_parameters(row, centre)
    np.testing.assert_allclose(found[:3, 3], matrix[:3, 3], atol=1e-4)
    exact = found.copy()
    exact[:3, 3] = matrix[:3, 3]
    np.testing.assert_allclose(rigid.fsl_parameters(exact, centre), row, atol=1e-4)


@pytest.mark.parametrize("first", [-3.0, 3.0])
def test_the_centre_of_gravity_is_fsls(first):
    """In mm from the first voxel, and from the last one where the axes are right-handed."""
    volume = np.full((6, 7, 8), -2.0)
    volume[1, 2, 3], volume[3, 2, 3] = 4, 0  # three quarters and one quarter of the weight
    x = 1.5 if first < 0 else 5 - 1.5
    found = rigid.fsl_gravity(volume, np.diag([first, 2, 4, 1]))
    np.testing.assert_allclose(found, [3 * x, 4, 12])


def test_fsls_rows_on_its_own_axes(rng):
    """On a grid whose axes are FSL's, the parameters are q but for one sign."""
    affine = np.diag([-3, 3.2, 4, 1])
    q = np.array([[1, 2, 3, 0.01, 0.02, 0.03]])
    to_fsl = np.diag([-1, 1, 1])
    matrices = rigid.fsl_matrices(rigid.mapping(q, affine, SHAPE), affine, SHAPE)
    centre = (np.array(SHAPE) - 1) / 2 * [3, 3.2, 4]
    rows = rigid.fsl_parameters(matrices, centre)
    np.testing.assert_allclose(rows[0, 3:], to_fsl @ q[0, :3], atol=1e-12)
    # A mirrored axis changes the signs of the other two rotations; FSL's second sign is opposite.
    turned = to_fsl @ rigid.matrix(q)[0, :3, :3] @ to_fsl
    r = rigid.parameters(nb.affines.from_matvec(turned, [0, 0, 0]))[3:]
    np.testing.assert_allclose(rows[0, :3], r * [1, -1, 1], atol=1e-12)


@pytest.mark.parametrize("affine", [OBLIQUE, AXIAL], ids=["oblique", "axial"])
def test_itk(q, affine, tmp_path):
    mappings = rigid.mapping(q, affine, SHAPE)
    path = tmp_path / "series.txt"
    path.write_text(motion_files.itk_text(rigid.to_lps(mappings)))
    theirs = nt.linear.load(path, fmt="itk")
    np.testing.assert_allclose(theirs.matrix, mappings, atol=1e-9)
    np.testing.assert_allclose(rigid.to_lps(motion_files.read_itk(path)), mappings, atol=1e-9)
    nt.linear.LinearTransformsMapping(mappings, reference=image(affine)).to_filename(
        tmp_path / "theirs.txt", fmt="itk"
    )
    theirs = motion_files.read_itk(tmp_path / "theirs.txt")
    # nitransforms writes six digits.
    np.testing.assert_allclose(rigid.to_lps(theirs), mappings, rtol=5e-6, atol=1e-6)


def test_afni(q, tmp_path):
    mappings = rigid.mapping(q, AXIAL, SHAPE)
    path = tmp_path / "series.aff12.1D"
    path.write_text(motion_files.table_text(rigid.afni_rows(mappings), "# 3dvolreg matrices"))
    rows = motion_files.read_table(path, 12)
    np.testing.assert_allclose(rigid.from_afni_rows(rows), mappings, atol=1e-9)
    for i, row in enumerate(rows):
        one = tmp_path / "one.aff12.1D"
        one.write_text(motion_files.table_text(row[None]))
        theirs = nt.linear.load(one, fmt="afni", reference=image(AXIAL), moving=image(AXIAL))
        np.testing.assert_allclose(theirs.matrix.squeeze(), mappings[i], atol=1e-6)


def test_spm(q, tmp_path):
    """Relative to the first volume, about the scanner's origin, from moving to reference."""
    mappings = rigid.mapping(q, OBLIQUE, SHAPE)
    rows = rigid.spm_parameters(mappings)
    np.testing.assert_allclose(rows[0], 0, atol=1e-12)
    np.testing.assert_allclose(
        rigid.matrix(rows[3]), np.linalg.inv(mappings[3]) @ mappings[0], atol=1e-12
    )
    path = tmp_path / "rp_bold.txt"
    path.write_text(motion_files.table_text(rows))
    read = rigid.from_spm_parameters(motion_files.read_table(path, 6), mappings[0])
    np.testing.assert_allclose(read, mappings, atol=1e-8)


def test_displacements(rng):
    q = np.zeros((3, 6))
    q[1, 0], q[2, 0], q[2, 4] = 0.5, 0.5, 0.01
    np.testing.assert_allclose(rigid.framewise_displacement(q), [np.nan, 0.5, 0.5])
    mappings = rigid.mapping(q, OBLIQUE, SHAPE)
    centre = rigid.grid_centre(OBLIQUE, SHAPE)
    inside = rng.normal(size=(200_000, 3))
    inside /= np.linalg.norm(inside, axis=1, keepdims=True)
    inside *= 80 * rng.uniform(size=(len(inside), 1)) ** (1 / 3)
    ball = np.column_stack([inside + centre, np.ones(len(inside))])
    at = [ball @ rigid.inverse(each).T for each in mappings]
    expected = [np.sqrt(((at[i] - ball) ** 2).sum(axis=1).mean()) for i in range(3)]
    found = rigid.rms_displacement(mappings, centre, to="reference")
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    relative = rigid.rms_displacement(mappings, centre, to="previous")
    expected = np.sqrt(((at[2] - at[1]) ** 2).sum(axis=1).mean())
    assert relative[2] == pytest.approx(expected, rel=2e-3)
    assert np.isnan(relative[0])


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (motion_files.read_itk, "1 2 3", "not a list of transforms"),
        (motion_files.read_itk, "#Insight Transform File V1.0\n", "no transform"),
        (
            motion_files.read_itk,
            "#Insight Transform File V1.0\nParameters: 1 2",
            "expected 12 numbers",
        ),
        (lambda path: motion_files.read_table(path, 6), "1 2 3 4 5 nan", "expected 6 numbers"),
        (lambda path: motion_files.read_table(path, 6), "# nothing", "no numbers"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, read, text, message):
    path = tmp_path / "motion.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)
