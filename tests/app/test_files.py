"""`n4ax-files`: any files and folders in, a mirrored tree with the App's records and pages out."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.command import descriptor, files
from n4ax_bids.app.command.parser import build_parser
from n4ax_bids.app.status import Status

ROOT = Path(__file__).parents[2]
MADE = ("biascorr", "biasfield", "biaslattice")


@pytest.fixture
def scans(tmp_path, write_image):
    """A tree of four scans, two of one name; names with a blank and of two kinds of letters."""
    root = tmp_path / "scans"
    names = ("one.nii.gz", "anna/a scan.nii.gz", "anna/deep/a scan.nii.gz", "bért/x_T1w.nii")
    for seed, name in enumerate(names):
        write_image(root / name, seed=seed, shape=(9, 8, 7))
    return root


@pytest.fixture
def run(tmp_path, fake_node, capsys):
    """Run the command with an output folder at the end; return status and log."""

    def main(*words, out=tmp_path / "out"):
        try:
            status = cli.files_main([*map(str, words), str(out), "--device", "cpu"])
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err

    main.given = fake_node
    return main


def images(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*_biascorr.nii.gz"))


ALL = [
    "anna/a scan_biascorr.nii.gz",
    "anna/deep/a scan_biascorr.nii.gz",
    "bért/x_T1w_biascorr.nii.gz",
    "one_biascorr.nii.gz",
]


def test_a_folder_becomes_a_mirrored_tree_with_pages_and_records(run, scans, tmp_path):
    (scans / "one.json").write_text('{"EchoTime": 0.1, "ImageType": ["NORM"]}')
    (scans / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    status, said = run(scans)
    assert status == 0 and images(out) == ALL
    for name in ALL:
        for label in MADE:
            made = out / name.replace("biascorr", label)
            assert made.is_file() and made.with_suffix("").with_suffix(".json").is_file()
    sidecar = json.loads((out / "one_biascorr.json").read_text())
    assert sidecar["Sources"] == ["one.nii.gz"] and sidecar["EchoTime"] == 0.1
    assert sidecar["Description"] == "image divided by its estimated bias field"
    assert "the scanner has corrected this image already" in said
    assert not (out / "dataset_description.json").exists()
    pages = {page.name: page.read_text() for page in out.glob("*.html")}
    assert set(pages) == {"images.html", "anna.html", "bért.html", "group.html"}
    assert pages["anna.html"].count("<article id=") == 2
    links = set(re.findall(r'href="([^"#]+)#', pages["group.html"]))
    assert links == {"images.html", "anna.html", "b%C3%A9rt.html"}
    assert len((out / "group_bias.tsv").read_text().splitlines()) == 5
    methods = (out / "logs" / "CITATION.md").read_text()
    assert methods.splitlines()[2].startswith("The images were corrected")
    assert "BIDS" not in methods


def test_finished_images_stay_and_a_changed_one_is_done_again(run, scans, tmp_path, write_image):
    assert run(scans)[0] == 0
    facts = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*_biascorr.nii.gz")}
    assert "4 of 4 images are finished already" in run(scans)[1]
    write_image(scans / "anna/deep/a scan.nii.gz", seed=9, shape=(9, 8, 7))
    assert "1 of 4 images corrected, 0 failed, 3 finished before" in run(scans)[1]
    changed = [p.parent.name for p, time in facts.items() if p.stat().st_mtime_ns != time]
    assert changed == ["deep"]
    # One file of the tree, as a job of an array would give it, is the same image.
    one = run(scans / "bért" / "x_T1w.nii", "--root", scans)[1]
    assert "1 of 1 images are finished already" in one


def test_files_and_patterns(run, scans, tmp_path):
    again = scans / "anna" / ".." / "one.nii.gz"  # the same file
    assert run(scans / "one.nii.gz", again, scans / "one.nii.gz")[0] == 0
    assert images(tmp_path / "out") == ["one_biascorr.nii.gz"]
    patterns = tmp_path / "patterns"
    assert run(scans / "**" / "a*.nii.gz", out=patterns)[0] == 0
    assert images(patterns) == ALL[:2]
    two = tmp_path / "two"
    assert run(scans / "anna" / "deep", scans / "bért", out=two)[0] == 0
    assert images(two) == ALL[1:3]
    assert len(run.given) == 5


def test_outputs_inside_the_input_are_no_inputs(run, scans):
    out = scans / "out"
    assert run(scans, out=out)[0] == 0
    assert "4 of 4 images are finished already" in run(scans, out=out)[1]
    # A shell expands scans/* to the output folder too.
    assert "4 of 4" in run(*sorted(scans.iterdir()), out=out)[1]
    status, said = run(scans, "--dry-run", out=scans.parent / "other")
    assert status == 0 and images(out) == ALL
    # Another folder of outputs is recognised by its mark, and a copy of one by its name.
    (scans / "copy_biascorr.nii.gz").write_bytes((out / "one_biascorr.nii.gz").read_bytes())
    other = scans.parent / "other"
    _, said = run(scans, out=other)
    assert "skipped out: an output folder of n4ax-files" in said
    assert "its name ends with _biascorr, like an output of n4ax-files" in said
    assert images(other) == ALL
    assert "out\tan output folder" in (other / "logs" / "skipped" / "images.tsv").read_text()


def test_one_bad_image_costs_no_other(run, scans, tmp_path):
    (scans / "anna" / "bad.nii.gz").write_bytes(b"")
    (scans / "anna" / "lost.nii").symlink_to("nowhere.nii")
    status, said = run(scans)
    assert status == Status.SOME_FAILED and images(tmp_path / "out") == ALL
    assert "empty file (0 bytes)" in said and "broken link to nowhere.nii" in said
    page = (tmp_path / "out" / "anna.html").read_text()
    assert page.count('<article id="failed-') == 2
    assert 'id="failed-' not in (tmp_path / "out" / "images.html").read_text()
    assert "anna.html#failed-bad-" in (tmp_path / "out" / "group.html").read_text()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("scans/none.nii",), 16, "none.nii: no such file or folder"),
        (("scans/*.mgz",), 16, "*.mgz: no file matches this pattern"),
        (("scans/readme.md",), 16, "readme.md: not named .nii or .nii.gz; expected NIfTI"),
        (("scans/IM1",), 16, "a DICOM file; convert them first: dcm2niix"),
        (("dicom",), 66, "dicom: DICOM files; convert them first: dcm2niix"),
        (("dcm",), 18, "a folder of DICOM files, a.dcm among them; convert them first: dcm2niix"),
        (("empty",), 66, "empty: no NIfTI file (.nii, .nii.gz) in it"),
        (("twice",), 16, "x.nii and x.nii.gz would share the output x_biascorr.nii.gz"),
        (("scans", "--root", "empty"), 2, "is not in --root"),
        (("scans", "--method", "realign"), 2, "invalid choice: 'realign'"),
        (("scans", "--mask", "derivatives"), 2, "invalid choice: 'derivatives'"),
        (("scans", "--participant-label", "1"), 2, "unrecognized arguments: --participant-label"),
    ],
)
def test_what_cannot_be_corrected(run, scans, tmp_path, monkeypatch, words, status, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("dicom", "dcm", "empty", "twice"):
        (tmp_path / folder).mkdir()
    dicom = bytes(128) + b"DICM"
    for name in ("scans/IM1", "dicom/IM1", "dcm/a.dcm"):
        (tmp_path / name).write_bytes(dicom)
    (scans / "readme.md").write_text("x")
    for name in ("x.nii", "x.nii.gz"):
        (tmp_path / "twice" / name).touch()
    got, said = run(*words)
    assert (got, message in said) == (status, True), said
    assert "Traceback" not in said and not run.given


def test_what_is_left_out_is_named(run, scans, tmp_path):
    (scans / "t.mgz").touch()
    (scans / "BIG.NII").touch()
    (scans / "linked").symlink_to(scans / "anna", target_is_directory=True)
    (scans / ".hidden").mkdir()
    (scans / ".hidden" / "x.nii").touch()
    (scans / "new\nline.nii").touch()
    (scans / "logs").mkdir()
    (scans / "logs" / "x.nii").write_bytes((scans / "bért" / "x_T1w.nii").read_bytes())
    status, said = run(scans)
    assert status == Status.SOME_FAILED
    for words in (
        "BIG.NII, t.mgz: not named .nii or .nii.gz; only such files are taken",
        "skipped linked: a link to a folder, which is not followed; give its target",
        "skipped new\\nline.nii: its name has the control character \\n; rename it",
        "expected --root with a folder above it",
    ):
        assert words in said, words
    assert "hidden" not in said and images(tmp_path / "out") == ALL
    # Its folder, given itself, has another name.
    assert run(scans / "logs", out=tmp_path / "logs of them")[0] == 0


def test_a_folder_of_outputs_belongs_to_one_command(run, scans, tmp_path, make_dataset, capsys):
    out = tmp_path / "out"
    assert run(scans)[0] == 0
    raw = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
    assert cli.main([str(raw), str(out), "participant"]) == Status.USAGE
    assert "holds outputs of n4ax-files; expected an empty folder" in capsys.readouterr().err
    other = tmp_path / "dataset"
    assert cli.main([str(raw), str(other), "participant", "--no-reports"]) == 0
    status, said = run(scans, out=other)
    assert status == Status.USAGE and "holds a BIDS dataset; expected a folder" in said
    # Files of the same names from another folder, too.
    scans.rename(tmp_path / "old")
    for seed, name in enumerate(("one.nii.gz", "anna/a scan.nii.gz")):
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        (scans / name).write_bytes((tmp_path / "old" / "bért" / "x_T1w.nii").read_bytes()[seed:])
    status, said = run(scans)
    assert status == Status.USAGE and "images compared have another content" in said


def test_a_changed_option_and_a_config_file(run, scans, tmp_path):
    assert run(scans, "--no-reports", "--shrink-factor", "3")[0] == 0
    (snapshot,) = (tmp_path / "out" / "logs").glob("*/options.toml")
    said = run(scans, "--config-file", snapshot)[1]
    assert "4 of 4 images are finished already" in said
    assert "4 images will be done again: made with other options" in run(scans)[1]
    config = tmp_path / "c.toml"
    config.write_text('participant-label = ["01"]')
    assert "no option participant-label" in run(scans, "--config-file", config)[1]


def test_another_method_names_its_images_alike(scans, tmp_path):
    from n4ax_bids.app.command.asked import options_of, parse, request_of
    from n4ax_bids.app.select import plain

    words = [
        str(scans),
        str(tmp_path / "out"),
        "--method",
        "tissue",
        "--posteriors",
        "--save-mask",
    ]
    arguments = parse([*words, "--contrast", "T1w"], files.FILES)
    request = request_of(arguments, options_of(arguments), files.FILES)
    job = plain.select(request).jobs[-1]
    assert {path.name for path in job.outputs.further.values()} >= {"one_GMprobseg.nii.gz"}
    assert job.outputs.masks["brain"].name == "one_brainmask.nii.gz"
    assert job.outputs.mask("brain") == job.outputs.masks["brain"]


def test_the_descriptor_is_the_parsers(tmp_path):
    """Where this fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION n4ax-files > boutiques/n4ax-files.json
    """
    file = ROOT / "boutiques" / "n4ax-files.json"
    version = json.loads(file.read_text())["tool-version"]
    assert file.read_text() == descriptor.encode(descriptor.DESCRIPTORS["n4ax-files"](version))
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(file)])
    invocation = tmp_path / "invocation.json"
    values = {"inputs": ["/a b", "/c.nii"], "output_dir": "/out", "mask": "brain"}
    invocation.write_text(json.dumps(values))
    made = bosh(["exec", "simulate", str(file), "-i", str(invocation)])
    command = re.search(r"^n4ax-files (.*)$", str(made), flags=re.MULTILINE)[1]
    parser = build_parser(program=files.FILES)
    asked = parser.parse_args(shlex.split(command))
    assert list(map(str, asked.inputs)) == ["/a b", "/c.nii"] and asked.mask == "brain"


def test_every_command_of_the_page_runs(run, tmp_path, monkeypatch, write_image):
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    commands = re.findall(r"^n4ax-files .*$", page, flags=re.MULTILINE)
    assert len(commands) >= 4
    for name in ("scans/anna/T1.nii.gz", "scans/bert/T1.nii.gz", "scans/bert/flair.nii.gz"):
        write_image(tmp_path / name, shape=(9, 8, 7))
    monkeypatch.chdir(tmp_path)
    for command in commands:
        status = cli.files_main(shlex.split(command, comments=True)[1:])
        assert status == 0, command
    assert len(images(Path("corrected"))) == 3
