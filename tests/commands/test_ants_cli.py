"""The command n4ax-n4 beside the ANTs program, and in its place."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import nipype.interfaces.ants as nipype_ants
import nipype.pipeline.engine as pe
import numpy as np
import pytest
import yaml

from n4ax_bids import __version__
from n4ax_bids.commands import ants_cli
from n4ax_bids.foreign import ants
from n4ax_bids.interfaces import N4BiasFieldCorrection
from n4ax_bids.runtime import device

ROOT = Path(__file__).parents[2]
SHAPE = (22, 20, 18)
OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.5, 1.7, 2]), [31.0, -44.0, 12.5]
)
needs_ants = pytest.mark.skipif(
    not importlib.util.find_spec("ants"), reason="antspyx is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in 3D and 2D, a mask of labels and fractions, a weight with zeros."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(20101109)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = sum(x**2 for x in axes) < 0.9
    tissue = np.where(inside, rng.choice([300.0, 500.0, 700.0], SHAPE), 20.0)
    tissue *= np.exp(0.4 * axes[0] - 0.3 * axes[1]) * (1 + 0.03 * rng.standard_normal(SHAPE))
    mask = inside.astype(np.float32)
    mask[:7] *= 2
    mask[7:9] *= 0.5
    weight = np.maximum(rng.uniform(-0.2, 1, SHAPE), 0) * inside
    whole = {"image": tissue.astype(np.int16), "mask": mask, "weight": weight.astype(np.float32)}
    for name, data in whole.items():
        save(data, OBLIQUE, folder / f"{name}.nii.gz")
        save(data[..., 9], np.diag([1.5, 1.7, 1, 1]), folder / f"{name}2.nii.gz")
    save(whole["image"][..., 9:10], OBLIQUE, folder / "slice.nii.gz")
    (folder / "mask(1).nii.gz").symlink_to(folder / "mask.nii.gz")
    return folder


def save(data, affine, path):
    image = nb.Nifti1Image(data, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    image.to_filename(path)


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


ANTS = """
import json, sys
from ants.internal import get_lib_fn
statuses = []
for words in json.loads(sys.argv[1]):
    try:
        statuses.append(get_lib_fn("N4BiasFieldCorrection")(words))
    except RuntimeError:  # as the program, which ends with 1
        statuses.append(1)
print("statuses", json.dumps(statuses))
"""


def ants_program(cwd, *runs):
    """Run the ANTs program, which antspyx carries, in a process of its own: it may crash.

    Returns the exit statuses and what was printed.
    """
    words = [sys.executable, "-c", ANTS, json.dumps(runs)]
    done = subprocess.run(words, check=True, timeout=300, cwd=cwd, capture_output=True, text=True)
    printed, _, statuses = done.stdout.rpartition("statuses ")
    return json.loads(statuses), printed


def ours(*words):
    return ants_cli.main([str(word) for word in words])


# Words after -i, and before -o; few distinct shapes, as each is compiled.
WORDS = [
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0]",
    "--image-dimensionality 3 --input-image image.nii.gz --shrink-factor 2 --convergence [2x2]",
    "-i image.nii.gz -s 2 -c [ 2x2 , 0.0 ] -v 0 -d 3",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] --mask-image mask.nii.gz -r",
    "-d 3 -i image.nii.gz -r -s 2 -c [2x2,0] -x mask(1).nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz --rescale-intensities 0",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz -r 1",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -w weight.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] --weight-image weight.nii.gz -x mask.nii.gz",
    "-d 3 -i image.nii.gz -s 1 -c [2,0]",
    "-d 3 -i image.nii.gz -s 3 -c [2,0]",
    "-d 3 -i image.nii.gz -c (2)",
    "-d 3 -i image.nii.gz -s -c [2,0] -v 0",  # a bare -s is 1
    "-d 3 -i image.nii.gz -s 0 -c [2,0]",  # as 1
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [2x1x1.9,2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] --bspline-fitting [2x1x1]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [23.7,2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b {23.7}",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [ 23.7 , 3 ] -x mask.nii.gz -w weight.nii.gz",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -t [0.2]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -t [.2,.02]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] --histogram-sharpening [ 0.2, .02, 100 ]",
    "-d 3 -i image.nii.gz -s 2 -c [9x9,0.02]",
    "-d 2 -i image2.nii.gz -s 1 -c [2x2,0]",
    "-d 2 -i image2.nii.gz -s 2 -c [2x2,0] -b [1x2] -x mask2.nii.gz -w weight2.nii.gz",
    # What counts where a flag comes twice or has two values, and what has no effect.
    "-d 3 -i image2.nii.gz -s 4 -c [1,0] -i image.nii.gz --shrink-factor 2 -c [2x2,0]",
    "-d 3 -i image.nii.gz -s 4 2 -c [1,0] [2x2,0] -x mask.nii.gz -r 0 1",
    "-d 3 -i image.nii.gz -s 2 -c [2x2,0] -x mask.nii.gz -r -r 0 -b [20] -b 20 -t .2",
    "hello -d 3 -i image.nii.gz -s 2 - -c [2x2x,0,9] -- -h 0 --version 0 --help 0",
    "-d 3 -i image.nii.gz -s 2 -c 9x9",  # 50 iterations at one level, threshold 0.001
]
# After 50 iterations roundings have grown: a voxel at the end of the histogram may have fallen out
# of it (n4-reference §12). The program's default, 4 levels, is further away than this.
LOOSE = {WORDS[-1]: 5e-3}


@pytest.mark.slow
@needs_ants
def test_the_same_words_give_the_same_images(here, capfd):
    """Few iterations: only rounding may differ, everywhere, in the field and after rescaling.

    2e-6 is 17 float32 roundings; a wrong sample phase moves this field by more than 1e-3.
    """
    runs = [
        [*words.split(), "-o", f"[theirs{i}.nii.gz,theirs{i}_bias.nii]"]
        for i, words in enumerate(WORDS)
    ]
    statuses, printed = ants_program(here, *runs)
    assert statuses == [0] * len(WORDS) and printed == ""
    found = {}
    for i, words in enumerate(WORDS):
        output = ["-o", "[", f"ours{i}.nii.gz,", f"ours{i}_bias.nii", "]"]
        assert ours(*words.split(), *output) == 0, words
        images = [
            nb.load(f"{who}{i}{what}")
            for what in (".nii.gz", "_bias.nii")
            for who in ("ours", "theirs")
        ]
        corrected, their_corrected, bias, their_bias = (
            np.asarray(image.dataobj, np.float64) for image in images
        )
        # Rescaling subtracts: it leaves roundings of the largest intensity.
        scale = np.abs(their_corrected).max() if "mask" in words else np.abs(their_corrected)
        difference = max(
            np.abs(bias / their_bias - 1).max(),
            (np.abs(corrected - their_corrected) / scale).max(),
        )
        if difference > LOOSE.get(words, 2e-6):
            found[words] = difference
        for mine, theirs in (images[:2], images[2:]):
            assert mine.get_data_dtype() == theirs.get_data_dtype() == np.float32
            np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-5)
            assert mine.shape == theirs.shape
            assert mine.header.get_zooms() == theirs.header.get_zooms()
    assert found == {}
    assert capfd.readouterr().out == ""


@needs_ants
@pytest.mark.parametrize("shrink", ["2", "4"])
def test_a_slice_in_a_file_of_three_axes(here, shrink):
    """ITK takes no direction from it, which decides which voxels are sampled."""
    words = ["-d", "2", "-i", "slice.nii.gz", "-s", shrink, "-c", "[2,0]"]
    statuses, _ = ants_program(here, [*words, "-o", "[theirs.nii,theirs_bias.nii]"])
    assert statuses == [0]
    assert ours(*words, "-o", "[ours.nii,ours_bias.nii]") == 0
    bias, their_bias = (nb.load(f"{who}_bias.nii").get_fdata() for who in ("ours", "theirs"))
    assert np.abs(bias[..., 0] / their_bias - 1).max() <= 2e-6  # 17 float32 roundings


FAILING = [
    "-q 3",
    "-help",
    "--help -q",
    "-d 3 -i image.nii.gz -s2",
    "-d 3",
    "-d 5 -i image.nii.gz",
    "-d 3 -i image2.nii.gz -s 2 -c [2,0]",
    "-d 3 -i image.nii.gz -s two",
    "-d 3 -i image.nii.gz -s 2.5",
    "-d 3 -i image.nii.gz -v 2",
    "-d 3 -i image.nii.gz -s 2 -c []",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -b [1x2]",
    "-d 3 -i image.nii.gz -s 2 -b [20 -o [out.nii.gz]",
    "-d 3 -i image.nii.gz -s 2 -b 20]",
    "-d 3 -i image.nii.gz -s 2 -c [2,0] -o nowhere/out.nii.gz",
]


@needs_ants
def test_what_fails_there_fails_here_in_one_line(here, capfd):
    statuses, _ = ants_program(here, *(words.split() for words in FAILING))
    assert statuses == [1] * len(FAILING)
    before = sorted(here.iterdir())
    for words in FAILING:
        assert ours(*words.split()) == 1, words
        printed = capfd.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1, words
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-i missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i empty.nii.gz", "empty.nii.gz: empty file"),
        ("-i image.nii.gz -x missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i image.nii.gz -w missing.nii.gz", "missing.nii.gz: no such file"),
        ("-i image.nii.gz -x mask2.nii.gz", "mask2.nii.gz: shape"),
        ("-d 2 -i image.nii.gz", "dimension is 2"),
        ("-d 4 -i image.nii.gz", "split the series"),
        ("-i image.nii.gz -o out.mha", "out.mha: cannot be written"),
        ("-i image.nii.gz --device gpu:x", "device is 'gpu:x'"),
        ("-i image.nii.gz -c [50,-1]", "convergence_threshold is -1.0"),
        ("-o out.nii.gz", "no input image; name one with -i"),
        ("-i image.nii.gz \u2013x mask.nii.gz -o out.nii.gz", "EN DASH"),
        ("-i image.nii.gz -o out.nii.gz \u2014mask-image mask.nii.gz", "EM DASH"),
        ("-i image.nii.gz mask.nii.gz -o out.nii.gz", "-i has the values"),
        ("-i image.nii.gz -o out.nii.gz bias.nii.gz", "-o has the values"),
    ],
)
def test_what_ends_the_program_or_passes_unseen_is_one_line_here(here, capsys, words, message):
    """A missing input ends ANTs by a segmentation fault; a missing mask, it goes on without."""
    (here / "empty.nii.gz").touch()
    before = sorted(here.iterdir())
    assert ours(*words.split()) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
    assert printed.err.startswith("n4ax-n4: ")
    assert sorted(here.iterdir()) == before


@pytest.fixture(autouse=True)
def name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/n4ax-n4"])


def test_help_and_version(capsys):
    assert ours() == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "-x, --mask-image image" in printed.err
    for words in ("--help", "-d 3 --help -i missing.nii"):
        assert ours(*words.split()) == 0
        assert capsys.readouterr().out == printed.err
    assert ours("-h", "--help", "0") == 0
    short = capsys.readouterr().out
    assert "-x, --mask-image image" in short and len(short) < len(printed.err) / 2
    assert ours("--version", "-i", "missing.nii") == 0
    assert capsys.readouterr().out.startswith("n4ax_bids ")


def test_the_version_under_the_name_of_ants(tmp_path):
    """Programs of others read it: nf-neuro by sed, others by grep."""
    link = tmp_path / "N4BiasFieldCorrection"
    link.symlink_to(Path(sys.executable).with_name("n4ax-n4"))
    done = subprocess.run([link, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ANTs Version: v{__version__} of n4ax_bids, in place of ANTs\n"
    assert done.stderr == ""
    expression = r"s/ANTs Version: v\([0-9.]\+\)/\1/p"
    read = subprocess.run(
        ["sed", "-n", expression], input=done.stdout, capture_output=True, text=True, check=True
    ).stdout
    assert read.split()[0] == __version__ and "n4ax_bids" in read
    # nf-neuro writes it behind a key of a YAML file.
    assert yaml.safe_load(f"ants: {read}") == {"ants": read.strip()}


def test_every_flag_is_explained():
    assert list(ants_cli.HELP) == list(ants.FLAGS)


@needs_ants
def test_the_same_flags_with_the_same_names(tmp_path):
    def flags(menu):
        return {flag for line in menu.splitlines() for flag in re.findall(r" (--?[a-z]\S*)", line)}

    _, printed = ants_program(tmp_path, ["-h"])
    theirs, mine = flags(printed), flags(ants_cli.menu(full=False))
    assert mine - theirs == {"--device", "--field-scale"} and theirs <= mine


def test_help_is_fast():
    """Neither jax nor numpy is imported before there is something to compute."""
    program = """
import sys
from n4ax_bids.commands.ants_cli import main
for words in (["--help"], ["-d", "3", "-q"], [], ["--version"]):
    main(words)
assert not {"jax", "numpy", "nibabel", "SimpleITK", "nipype"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ("", []),
        ("-o a.nii", ["a.nii"]),
        ("-o [a.nii]", ["a.nii"]),
        ("-o [a.nii,]", ["a.nii"]),
        ("-o [a.nii,b.nii.gz]", ["a.nii", "b.nii.gz"]),
        ("-o [,b.nii.gz]", ["b.nii.gz"]),
        ("-o [a.nii,b.nii.gz,c.nii]", ["a.nii", "b.nii.gz"]),
    ],
)
def test_what_is_written(folder, tmp_path, monkeypatch, capfd, output, written):
    monkeypatch.chdir(tmp_path)
    image = folder / "image.nii.gz"
    assert ours("-i", image, "-s", 2, "-c", "[2x2,0]", *output.split()) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    source = nb.load(image)
    for path in tmp_path.iterdir():
        made = nb.load(path)
        assert made.get_data_dtype() == np.float32 and made.shape == source.shape
        np.testing.assert_array_equal(made.affine, source.affine)
        for key in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
            np.testing.assert_array_equal(made.header[key], source.header[key])
    assert capfd.readouterr() == ("", "")


def test_an_image_in_place_is_refused(folder, tmp_path, capsys):
    """ANTs overwrites it; the raw image would be gone."""
    path = tmp_path / "image.nii.gz"
    path.write_bytes((folder / "image.nii.gz").read_bytes())
    assert ours("-i", path, "-s", 2, "-c", "[2x2,0]", "-o", path) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and f"{path}: is the input image itself" in printed
    assert path.read_bytes() == (folder / "image.nii.gz").read_bytes()
    assert list(tmp_path.iterdir()) == [path]


LINE = (
    r"  Iteration (\d+) \(of (\d+)\)\.   Current convergence value = (\S+) \(threshold = (\S+)\)"
)


@needs_ants
@pytest.mark.parametrize("convergence", ["[3x0x2,0]", "[9x1,0.003]", "[3x3,1e-7]"])
def test_verbose_prints_what_ants_prints(here, capsys, convergence):
    words = f"-d 3 -i image.nii.gz -x mask.nii.gz -s 2 -v -c {convergence}".split()
    _, printed = ants_program(here, words)
    assert ours(*words) == 0
    mine = capsys.readouterr().out
    said = [
        re.findall(rf"^(?:Current level = (\d+)|{LINE})$", text, re.MULTILINE)
        for text in (printed, mine)
    ]
    for theirs, line in zip(*said, strict=True):
        assert theirs[:3] + theirs[4:] == line[:3] + line[4:]
        if theirs[3]:  # six digits of a float32 statistic of rounded fields
            assert float(line[3]) == pytest.approx(float(theirs[3]), rel=1e-4)
    assert len(said[0]) >= 4 and "Elapsed time: " in mine and "Device: " in mine


@needs_ants
def test_iterations_and_threshold_without_words_are_those_of_ants(here, capsys):
    words = "-d 3 -i image.nii.gz -v".split()
    _, printed = ants_program(here, words)
    assert ours(*words) == 0
    theirs, mine = (
        [(line[0], line[1], line[3]) for line in re.findall(LINE, text)]
        for text in (printed, capsys.readouterr().out)
    )
    assert mine == theirs and len(theirs) == 4 * 50


def test_words_without_effect_are_said(here, capsys):
    assert ours(*"-i image.nii.gz -s 2 -c [2x2,0] -b 200 -v 0".split()) == 0
    expected = "n4ax-n4: -b 200: not read, as it has no brackets; the default counts\n"
    assert capsys.readouterr() == ("", expected)


# In the place of the ANTs program.


@pytest.fixture
def in_the_place_of_ants(tmp_path, monkeypatch):
    """A folder in front of PATH with a link to the command under the name of the ANTs program.

    The command is what pip writes for it.
    """
    command = tmp_path / "venv" / "n4ax-n4"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "from n4ax_bids.commands.ants_cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    link = tmp_path / "in-place" / "N4BiasFieldCorrection"
    link.parent.mkdir()
    link.symlink_to(command)
    monkeypatch.setenv("PATH", f"{link.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return link.parent


def test_under_the_name_of_ants(in_the_place_of_ants):
    def run(*words):
        return subprocess.run(
            ["N4BiasFieldCorrection", *words], capture_output=True, text=True, timeout=60
        )

    shown = run("-h")
    assert shown.returncode == 0 and "COMMAND:\n     N4BiasFieldCorrection\n" in shown.stdout
    failed = run("-d", "3", "-i", "missing.nii.gz")
    expected = (1, "", "N4BiasFieldCorrection: missing.nii.gz: no such file\n")
    assert (failed.returncode, failed.stdout, failed.stderr) == expected


@pytest.mark.parametrize(
    "inputs",
    [
        {"save_bias": True, "copy_header": True, "weight_image": "weight.nii.gz"},
        {"mask_image": "mask.nii.gz", "rescale_intensities": True, "args": "-r 0"},
        {
            "args": "-x mask.nii.gz -r 0 -b [2x1x1]",
            "bias_image": "field.nii",
            "output_image": "%s_n4.nii",
            "copy_header": True,
            "histogram_sharpening": (0.2, 0.01, 200),
        },
    ],
)
def test_nipypes_own_interface_with_our_program(here, tmp_path, in_the_place_of_ants, inputs):
    """Files, names and every voxel as from our node; an int16 image."""
    files = {
        name: str(here / value) if name in ("mask_image", "weight_image") else value
        for name, value in inputs.items()
    }
    if "-x" in files.get("args", ""):
        files["args"] = files["args"].replace("mask", str(here / "mask"))
    made = []
    for interface, name in (
        (nipype_ants.N4BiasFieldCorrection, "ants"),
        (N4BiasFieldCorrection, "us"),
    ):
        cwd = tmp_path / name
        cwd.mkdir()
        node = interface(
            input_image=str(here / "image.nii.gz"), n_iterations=[2, 2], shrink_factor=2, **files
        )
        if name == "us":
            node.inputs.device = "cpu"
        made.append(node.run(cwd=str(cwd)).outputs)
    for name in ("output_image", "bias_image"):
        theirs, mine = (getattr(outputs, name) for outputs in made)
        if name == "bias_image" and not {"save_bias", "bias_image"} & inputs.keys():
            continue
        assert Path(theirs).name == Path(mine).name
        theirs, mine = nb.load(theirs), nb.load(mine)
        np.testing.assert_array_equal(theirs.dataobj, mine.dataobj)
        assert theirs.header == mine.header


def test_a_graph_with_nipypes_class_and_our_program_or_with_our_node(
    here, tmp_path, in_the_place_of_ants
):
    """Two passes in a row as in NiPreps, the first on a list, the second inside a mask."""

    def build(interface, name):
        first = pe.MapNode(
            interface(
                dimension=3,
                copy_header=True,
                save_bias=True,
                n_iterations=[2],
                convergence_threshold=1e-7,
                shrink_factor=2,
                bspline_fitting_distance=40,
            ),
            name="first",
            iterfield=["input_image"],
        )
        first.inputs.input_image = [str(here / "image.nii.gz")] * 2
        second = pe.MapNode(
            interface(dimension=3, copy_header=True, n_iterations=[1, 1], shrink_factor=2),
            name="second",
            iterfield=["input_image"],
        )
        second.inputs.mask_image = str(here / "mask.nii.gz")
        workflow = pe.Workflow(name, base_dir=str(tmp_path))
        workflow.config["execution"] = {"remove_unnecessary_outputs": "false"}
        workflow.connect(first, "output_image", second, "input_image")
        return workflow

    found = []
    for interface, name in ((nipype_ants.N4BiasFieldCorrection, "ants"), (OnCPU, "us")):
        ran = build(interface, name).run()
        outputs = {node.name: node.result.outputs for node in ran.nodes()}
        found.append([*outputs["first"].bias_image, *outputs["second"].output_image])
    assert len(found[0]) == 4
    for theirs, mine in zip(*found, strict=True):
        assert Path(theirs).name == Path(mine).name
        theirs, mine = nb.load(theirs), nb.load(mine)
        np.testing.assert_array_equal(theirs.get_fdata(), mine.get_fdata())
        assert theirs.header == mine.header


class OnCPU(N4BiasFieldCorrection):
    """Our node, on the CPU wherever the test runs."""

    def __init__(self, **inputs):
        super().__init__(device="cpu", **inputs)


def test_a_script_in_the_manner_of_ants_brain_extraction(here, tmp_path, in_the_place_of_ants):
    """Its words for N4, unquoted and through $ANTSPATH as there, with fewer iterations."""
    (tmp_path / "run.sh").write_text(r"""
set -u
logCmd() { echo "$*"; $*; status=$?; [ $status -gt 0 ] && exit 1; return 0; }
[[ -s ${ANTSPATH}/N4BiasFieldCorrection ]] || exit 2
N4=${ANTSPATH}/N4BiasFieldCorrection
logCmd ${N4} -d 3 -i image.nii.gz -s 2 -c [2x2,0.0000001] -b [200] -o $1/out.nii.gz --verbose 1
logCmd ${N4} -d 3 -i image.nii.gz -w weight.nii.gz -s 2 -c [2x2,0.0000001] -b [200] \
    -o [$1/out.nii.gz,$1/bias.nii.gz] --verbose 1
logCmd ${N4} -d 3 -i missing.nii.gz -o $1/missing.nii.gz
echo not reached
""")
    done = subprocess.run(
        ["bash", str(tmp_path / "run.sh"), str(tmp_path)],
        cwd=here,
        env={**os.environ, "ANTSPATH": str(in_the_place_of_ants)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "not reached" not in done.stdout
    assert done.stdout.count("Current level = 2") == 2
    corrected, bias = (
        nb.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in ("out", "bias")
    )
    source = nb.load(here / "image.nii.gz").get_fdata()
    np.testing.assert_allclose(corrected * bias, source, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ("2", 2), ("0", None), ("-1", None), ("many", None)]
)
def test_threads_are_those_asked_of_itk(folder, monkeypatch, value, expected):
    name = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    started = []
    monkeypatch.setattr(device, "start", lambda n=None: started.append(n) or 1)
    assert ants_cli.main(["-i", str(folder / "absent.nii")]) == 1
    assert started[0] == expected


@pytest.mark.parametrize("delay", (0, 0.4))
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_a_signal_leaves_nothing_behind(folder, tmp_path, number, delay):
    """Also one that comes while JAX compiles, in which an exception would be lost."""
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    words = ["-i", folder / "image.nii.gz", "-c", "[20000,0]", "-o", out / "a.nii"]
    process = subprocess.Popen(
        [sys.executable, "-m", "n4ax_bids.commands.ants_cli", *map(str, words)],
        env={**os.environ, "N4AX_CACHE_DIR": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
        # Who starts the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(cache.glob("*/running/*")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, errors
    assert errors == "" and not list(out.iterdir())
    assert not list(cache.glob("*/running/*"))
