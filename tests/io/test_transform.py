"""Transform files: what they claim costs no memory, and what they hold is read as it is."""

from __future__ import annotations

import base64
import os
import resource
import subprocess
import sys
import zlib

import pytest
import SimpleITK as sitk

from n4ax_bids.io.transform import LIMIT, read_transform

GRID = "Parameters: 0 0 0\nFixedParameters: 600 600 600 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1\n"
# An affine transform whose parameters are a sparse data set of 8 GB; ITK writes no such file.
SPARSE = zlib.decompress(
    base64.b85decode(
        b"c-rln&riZI6vx|6;({^Go8ph`C>KM5o;)ZjiqQyBV!R>75lIxxkOcn&{1-fV<mjK^(RlJdLb|;-)+PdpQHgt>!ya"
        b"wl)}?&=T3&g~?e0y-6LBUnO*X+S7N!e)B-JvuUx4Lc+h98a>$%r92lcb?eBG~jlFdr*t_Jp#n(*x$Bcezyn<+?p4"
        b"&@cFZ$kAuC?1|UZlhYSfv((gtx>7FxBG6rdDquzYQ%myi~09(Ec*)NoGZFVYxLUX=lR}6D%}d&Oz#@&Sy>jsuQuU"
        b"%1_uXi{`F_dcyM~0-{nl;%QD*-?2q%c6;sFQ8Ol~fC-hfwQ6HCKanW92A$1X?BUoRdqLUbWzm%J0_UGpQPX368!V"
        b"nMnN!C}>t1@<C*u}?ZDwS%@38HQ3s@}Z3aZ2e@TJ5hhL*E%e5ClOG1VIo4LHsp(o)xo^DJ@Tj`BTgf<i6SOusm05"
        b"$+wi}incCapj-fJCx5nIKi?fB=h^F|s{2v%Y*FX;&QUB|ja<k$o}(B+9JN*k`(yZhT^{U*I=x;bU3t7eZG<iAYS!"
        b"L_vD#v5Q*5mZ=U9QR458{u2wal3wr9f2Q2Sqvrwn6w9v~=e5d=XH1nsB1{S(vdi2Es_?WeeHt2^8A-cJSpY$!h5I"
        b"pK1l?3Qnxd&h04etXrHbEP$ge&1aD(0hIYgf^iZ"
    )
)
PROGRAM = """
import resource, sys
from n4ax_bids.io.transform import read_transform
begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_transform(sys.argv[1])
except ValueError as error:
    print(error)
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun, children)
"""


def affine():
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1, 1 / 3, 0, -2 / 7, 1, 1e-9, 0, 0, 1.1])
    transform.SetTranslation([1 / 3, 1e5 / 7, -1e-9])
    return transform


def composite():
    transform = sitk.CompositeTransform(3)
    transform.AddTransform(affine())
    transform.AddTransform(sitk.Euler3DTransform((0.1, 0.2, 0.3), 0.1, 0.2, 1 / 7))
    return transform


KINDS = [(affine, f"x.{kind}") for kind in ("txt", "tfm", "mat", "h5", "xfm")]
KINDS += [(composite, f"x.{kind}") for kind in ("txt", "tfm", "h5")]  # ITK writes no others


@pytest.mark.parametrize(("make", "name"), KINDS)
def test_every_kind_of_file_gives_the_same_transform(tmp_path, name, make):
    sitk.WriteTransform(make(), str(tmp_path / name))
    expected = sitk.ReadTransform(str(tmp_path / name))
    found = read_transform(tmp_path / name)
    for point in ((0.0, 0.0, 0.0), (101.3, -77.7, 1 / 3)):
        assert found.TransformPoint(point) == expected.TransformPoint(point)


def of_types():
    dimensions = (2, 3)
    for n in dimensions:
        yield from (sitk.TranslationTransform(n), sitk.ScaleTransform(n), sitk.AffineTransform(n))
        yield sitk.Transform(n, sitk.sitkIdentity)
    yield from (sitk.Euler2DTransform(), sitk.Euler3DTransform(), sitk.VersorTransform())
    yield from (sitk.Similarity2DTransform(), sitk.Similarity3DTransform())
    yield from (sitk.VersorRigid3DTransform(), sitk.ScaleVersor3DTransform())
    yield sitk.ScaleSkewVersor3DTransform()


@pytest.mark.parametrize("transform", list(of_types()), ids=lambda each: each.GetName())
def test_every_linear_type_is_read(tmp_path, transform):
    sitk.WriteTransform(transform, str(tmp_path / "x.txt"))
    assert read_transform(tmp_path / "x.txt").GetDimension() == transform.GetDimension()


def test_a_type_that_simpleitk_has_no_class_for(tmp_path):
    """It raises a KeyError in its own code."""
    path = tmp_path / "x.txt"
    sitk.WriteTransform(sitk.ComposeScaleSkewVersor3DTransform(), str(path))
    with pytest.raises(ValueError, match=r"x\.txt: not readable as an ITK transform"):
        read_transform(path)


def bomb(path, kind):
    """Write a small file that claims some GB."""
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: "
    if kind in ("DisplacementField", "BSpline"):
        path = path.with_suffix(".txt")
        path.write_text(f"{head}{kind}Transform_double_3_3\n{GRID}")
    elif kind == "MATLAB":
        path = path.with_suffix(".mat")
        sitk.WriteTransform(affine(), str(path))
        content = bytearray(path.read_bytes())
        content[4:8] = (4 * 10**8).to_bytes(4, "little")  # rows of the first matrix
        path.write_bytes(content)
    else:
        path = path.with_suffix(".h5")
        path.write_bytes(SPARSE)
    return path


@pytest.mark.parametrize("kind", ["DisplacementField", "BSpline", "MATLAB", "HDF5"])
def test_a_small_file_that_claims_gigabytes(tmp_path, kind):
    path = bomb(tmp_path / "x", kind)
    assert path.stat().st_size < 12_000
    words = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    message, numbers = done.stdout.splitlines()
    assert message.startswith(f"{path}: ") and "expected a linear one" in message
    assert done.stderr == ""  # the HDF5 library writes there
    more, child = map(int, numbers.split())
    assert more < 100_000 and child < 1_000_000  # kB


def test_a_damaged_file_of_hdf5_prints_nothing(tmp_path, capfd):
    path = tmp_path / "x.h5"
    sitk.WriteTransform(affine(), str(path))
    content = bytearray(path.read_bytes())
    content[3000:] = bytes(len(content) - 3000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.h5: not readable as an ITK transform") as caught:
        read_transform(path)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_sizes_and_kinds_of_files(tmp_path):
    large = tmp_path / "large.txt"
    large.write_bytes(b"#Insight Transform File V1.0\n")
    os.truncate(large, 2**40)
    with pytest.raises(ValueError, match=rf"large\.txt: .* more than {LIMIT:,} bytes"):
        read_transform(large)
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"zero\.txt: not readable .*: it is a device"):
        read_transform(tmp_path / "zero.txt")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(ValueError, match=r"pipe\.h5: not readable .*: it is a named pipe"):
        read_transform(tmp_path / "pipe.h5")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt: not readable as an ITK transform"):
        read_transform(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file"):
        read_transform(tmp_path / "none.txt")


def test_a_type_that_is_no_name(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"#Insight Transform File V1.0\nTransform: \x1b[31mred\xff\nParameters: 0\n")
    with pytest.raises(ValueError, match="expected a linear one") as caught:
        read_transform(path)
    assert str(caught.value).isprintable()


def test_memory_is_limited_where_less_is_allowed_already(tmp_path):
    """A hard limit below ours stays as it is."""
    path = tmp_path / "x.h5"
    sitk.WriteTransform(affine(), str(path))
    words = [sys.executable, "-c", PROGRAM, str(path)]
    limit = 2_000_000_000
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert len(done.stdout.splitlines()) == 1
