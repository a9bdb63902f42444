"""What a run of the node leaves, as scripts in use look for it: results, texts, names of files."""

from __future__ import annotations

import shlex
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype import Node, Workflow

from n4ax_bids.commands import ants_cli
from n4ax_bids.interfaces import N4BiasFieldCorrection
from tests.interfaces.drop_ins import OURS

pytestmark = pytest.mark.usefixtures("no_ants")


@pytest.fixture
def image(tmp_path, rng):
    data = rng.choice([300, 500, 700], (20, 18, 16)) * np.linspace(0.7, 1.3, 20)[:, None, None]
    path = tmp_path / "data" / "sub-01_T1w.nii.gz"
    path.parent.mkdir()
    nb.Nifti1Image(data.astype(np.int16), np.eye(4)).to_filename(path)
    (tmp_path / "work").mkdir()
    return path


def short(image, node_class=N4BiasFieldCorrection, **inputs):
    settings = {"n_iterations": [2, 2], "shrink_factor": 2, "device": "cpu"}
    return node_class(**{"input_image": str(image)} | settings | inputs)


def test_a_script_may_run_the_command_line(image, tmp_path, monkeypatch):
    """As `os.system(n4.cmdline)` does, with the link in the place of the ANTs program."""
    node = short(image, output_image=str(tmp_path / "by_words.nii.gz"))
    assert ants_cli.main(shlex.split(node.cmdline)[1:]) == 0
    made = node.run(cwd=str(tmp_path / "work")).outputs.output_image
    assert made == str(tmp_path / "by_words.nii.gz")


def test_what_the_results_say_of_the_run(image, tmp_path):
    node = short(image, args="-v 1")
    runtime = node.run(cwd=str(tmp_path / "work")).runtime
    assert runtime.cmdline == node.cmdline and runtime.returncode == 0
    assert runtime.success_codes == (0,) and runtime.environ["NSLOTS"] == "1"
    first, second = runtime.stdout.splitlines()
    assert first.startswith("2 iterations, convergence value ") and second.startswith("2 ")
    assert runtime.stderr == "" and runtime.merged == runtime.stdout
    quiet = short(image, terminal_output="none", args="-v 1").run(cwd=str(tmp_path / "work"))
    assert (quiet.runtime.stdout, quiet.runtime.stderr, quiet.runtime.merged) == ("", "", "")
    assert not hasattr(quiet.runtime, "traceback")


def test_what_the_results_say_of_a_failed_run(tmp_path):
    (tmp_path / "empty.nii").touch()
    node = short(tmp_path / "empty.nii")
    runtime = node.run(cwd=str(tmp_path), ignore_exception=True).runtime
    assert runtime.returncode == 1 and "empty.nii: empty file" in runtime.stderr
    assert "ValueError" in runtime.traceback and "empty file" in runtime.traceback
    with pytest.raises(RuntimeError, match="(?s)Command:.*empty file.*Return code: 1"):
        node.raise_exception(runtime)


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("file", {"output.nipype"}),
        ("file_split", {"stdout.nipype", "stderr.nipype"}),
        ("file_stdout", {"stdout.nipype"}),
        ("file_stderr", {"stderr.nipype"}),
        ("allatonce", set()),
    ],
)
def test_what_is_printed_is_kept_where_nipype_keeps_it(image, tmp_path, mode, files):
    work = tmp_path / "work"
    runtime = short(image, terminal_output=mode, args="-v 1").run(cwd=str(work)).runtime
    assert {path.name for path in work.glob("*.nipype")} == files
    texts = {path.name: path.read_text() for path in work.glob("*.nipype")}
    said = runtime.stdout or runtime.merged or texts.get("output.nipype", "")
    assert ("iterations" in said) == (mode != "file_stderr")
    assert all(("iterations" in text) == (name != "stderr.nipype") for name, text in texts.items())


@pytest.mark.parametrize("node_class", OURS)
def test_in_a_workflow_the_command_is_kept_beside_the_results(image, tmp_path, node_class):
    node = Node(short(image, node_class), name="n4", base_dir=str(tmp_path))
    node.interface.terminal_output = "allatonce"
    workflow = Workflow(name="wf", base_dir=str(tmp_path))
    workflow.add_nodes([node])
    workflow.run(plugin="MultiProc", plugin_args={"n_procs": 1, "mp_context": "spawn"})
    assert (tmp_path / "wf" / "n4" / "command.txt").read_text() == node.interface.cmdline
    assert "N4BiasFieldCorrection -d 3" in (tmp_path / "wf/n4/_report/report.rst").read_text()
    assert workflow.get_node("n4").result.runtime.returncode == 0


@pytest.mark.parametrize("folder", ["100%s", "50%", "%d%(x)s{0}$HOME", "%%", "a\nb%s"])
def test_folders_are_no_templates(image, tmp_path, folder):
    place = tmp_path / folder
    (place / "work").mkdir(parents=True)
    source = place / "100%s_%d.nii.gz"
    source.write_bytes(image.read_bytes())
    outputs = short(source, save_bias=True).run(cwd=str(place / "work")).outputs
    for name, suffix in (("output_image", "corrected"), ("bias_image", "bias")):
        assert getattr(outputs, name) == str(place / "work" / f"100%s_%d_{suffix}.nii.gz")
    assert outputs.lattice_image == str(place / "work" / "100%s_%d_lattice.nii.gz")
    named = {"output_image": str(place / "x.nii"), "bias_image": str(place / "b%s.nii")}
    node = short(source, lattice_image=str(place / "l%s.nii"), **named)
    outputs = node.run(cwd=str(place / "work")).outputs
    assert outputs.output_image == named["output_image"] and Path(outputs.output_image).is_file()
    assert outputs.bias_image == named["bias_image"]
    assert "--output [ {output_image}, {bias_image} ]".format(**named) in node.cmdline


def test_a_file_name_is_nipypes_template(image, tmp_path):
    work = tmp_path / "100%s"
    work.mkdir()
    for given, made in {
        "x_%s.nii": "x_sub-01_T1w.nii",
        "50%%_%s": "50%_sub-01_T1w.nii.gz",
        "50%_%s": "50%_sub-01_T1w.nii.gz",  # an error of nipype's
        "50%.nii": "50%.nii",
        "50%%.nii": "50%%.nii",
        f"{work}/%s.nii": f"{work}/sub-01_T1w.nii",
    }.items():
        node = short(image, output_image=given)
        assert f"--output {made} " in node.cmdline
        assert node.run(cwd=str(work)).outputs.output_image == str(work / made)


@pytest.mark.parametrize("n_bytes", [225, 236, 245, 255])
@pytest.mark.parametrize("character", ["a", "\u00e9"])
def test_long_names(image, tmp_path, n_bytes, character):
    """Names that nipype's class can write, ours writes; the lattice, which it has not, fits."""
    work, size = tmp_path / "work", len(character.encode())
    n, rest = divmod(n_bytes - len("sub-.nii.gz"), size)
    source = image.with_name(f"sub-{'b' * rest}{character * n}.nii.gz")
    source.write_bytes(image.read_bytes())
    assert len(source.name.encode()) == n_bytes
    node = short(source, output_image="x" * (255 - 7) + ".nii.gz", bias_image="b.nii")
    outputs = node.run(cwd=str(work)).outputs
    assert Path(outputs.output_image).is_file() and Path(outputs.lattice_image).is_file()
    assert all(len(path.name.encode()) <= 255 for path in work.iterdir())
    assert not [path for path in work.iterdir() if path.name.startswith(".")]
    if n_bytes + len("_corrected") <= 255:
        node = short(source, save_bias=True)
        assert Path(node.run(cwd=str(work)).outputs.output_image).is_file()
    else:
        reason = f"_corrected.nii.gz: cannot be written, its name has {n_bytes + 10} bytes"
        with pytest.raises(OSError, match=reason) as raised:
            short(source).run(cwd=str(work))
        assert "\n" not in raised.value.args[0]


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("scan.txt", {}, "scan.txt: its name ends in neither .nii nor .nii.gz; expected a NIfTI"),
        ("scan.nii", {"output_image": ""}, "scan.nii: output_image is ''; expected a name"),
    ],
)
def test_names_that_serve_for_no_output(name, inputs, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=words):
        N4BiasFieldCorrection(input_image=str(path), **inputs).run()
