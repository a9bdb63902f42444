"""Reports of whole runs: pages, the group's table, what is drawn again and what is not."""

from __future__ import annotations

import csv
import hashlib
import json
import re

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.reports import reports

NAMES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_task-x_acq-a_run-1_T2w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii",
]


@pytest.fixture
def run(make_dataset, tmp_path):
    """Make a dataset on the first call and run on it: (*flags, level=, names=, json_files=)."""

    def run(*flags, level="participant", names=NAMES, json_files=None, out="out"):
        root = tmp_path / "raw"
        if not root.exists():
            make_dataset(*names, json_files=json_files)
        return cli.main([str(root), str(tmp_path / out), level, *flags])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def text_of(path) -> str:
    source = re.sub(r"<(script|style)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", source).split())


def drawn(out) -> dict:
    """When each figure and page was written."""
    found = [*out.glob("sub-*/figures/*"), *out.glob("*.html")]
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in found}


def test_each_participant_has_a_page_whose_figures_are_there(fake_node, run, out):
    assert run() == 0
    assert sorted(path.name for path in out.glob("*.html")) == ["sub-01.html", "sub-02.html"]
    for page, n_images in ((out / "sub-01.html", 2), (out / "sub-02.html", 1)):
        shown = re.findall(r'<img src="([^"]+)"', page.read_text())
        assert len(shown) == 4 * n_images
        assert all((out / name).stat().st_size > 300 for name in shown)
    assert "sub-01_task-x_acq-a_run-1_T2w" in text_of(out / "sub-01.html")
    assert "were corrected for intensity non-uniformity" in text_of(out / "sub-01.html")


def test_the_output_stays_valid(fake_node, run, out, bids_errors):
    assert run() == 0
    assert run(level="group") == 0
    assert bids_errors(out) == []


def test_equal_runs_give_equal_reports(fake_node, run, tmp_path):
    assert run(out="one") == 0
    assert run("--nprocs", "3", out="two") == 0
    for folder in ("one", "two"):
        assert run(level="group", out=folder) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    names = set(drawn(one)) | {"group_n4.tsv"}
    assert names == set(drawn(two)) | {"group_n4.tsv"}
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_faults_and_what_is_left_out_are_on_the_page(fake_node, make_dataset, run, out, tmp_path):
    root = make_dataset(*NAMES, "sub-03/anat/sub-03_FLAIR.nii.gz")
    (root / NAMES[0]).write_bytes(b"")
    assert run() == 1
    page = text_of(out / "sub-01.html")
    assert "1 failed: sub-01_T1w" in page and "Traceback" in page
    assert "task-x" in page  # the other one is there
    assert "sub-03_FLAIR.nii.gz" in text_of(out / "sub-03.html")
    assert run(level="group") == 0
    with open(out / "group_n4.tsv", newline="") as stream:
        status = {
            row["bids_name"]: row["status"] for row in csv.DictReader(stream, delimiter="\t")
        }
    assert status == {
        "sub-01_T1w": "failed",
        "sub-01_task-x_acq-a_run-1_T2w": "corrected",
        "sub-02_ses-1_T1w": "corrected",
    }
    assert 'href="sub-01.html#failed-sub-01_T1w"' in (out / "group.html").read_text()


def test_participants_that_cannot_be_read_are_told_once(fake_node, make_dataset, run, capsys):
    root = make_dataset(*NAMES)
    (root / "participants.tsv").write_bytes(b"\xff\xfe")
    assert run() == 0
    assert capsys.readouterr().err.count("participants.tsv: not readable") == 1


def test_no_reports(fake_node, run, out, capsys):
    assert run("--no-reports") == 0
    assert drawn(out) == {}
    assert run(level="group") == 66
    assert "--reports-only" in capsys.readouterr().err


def test_reports_only_solves_nothing(fake_node, run, out, capsys):
    assert run("--no-reports") == 0
    n_solved = len(fake_node)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*biascorr*")}
    assert run("--reports-only") == 0
    assert len(fake_node) == n_solved
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*biascorr*")} == made
    assert len(drawn(out)) == 5 * len(NAMES) + 2
    assert "3 of 3 images reported" in capsys.readouterr().err


def test_a_figure_that_is_gone_is_drawn_again(fake_node, run, out):
    assert run() == 0
    before, n_solved = drawn(out), len(fake_node)
    (out / "sub-02/figures/sub-02_ses-1_desc-field_T1w.webp").unlink()
    assert run() == 0
    after = drawn(out)
    assert set(after) == set(before) and len(fake_node) == n_solved
    assert {name for name in after if after[name] != before[name] and "sub-01" in name} == set()


def test_reports_only_of_nothing_leaves_nothing(fake_node, run, out, capsys):
    assert run("--reports-only") == 66
    assert not out.exists()
    assert "holds no output of ours" in capsys.readouterr().err


def test_a_dry_run_of_the_group_writes_nothing(fake_node, run, out, capsys):
    assert run() == 0
    before = drawn(out)
    assert run("--dry-run", level="group") == 0
    assert drawn(out) == before and not (out / "group_n4.tsv").exists()
    assert "group_n4.tsv" in capsys.readouterr().out


def test_reports_only_names_what_has_not_been_corrected(fake_node, run, out, capsys):
    assert run("--participant-label", "01", "--no-reports") == 0
    assert run("--reports-only") == 1
    assert "sub-02_ses-1_T1w: not corrected yet" in capsys.readouterr().err


def test_both_flags_contradict_each_other(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--no-reports", "--reports-only")
    assert "--no-reports and --reports-only" in capsys.readouterr().err


def test_an_image_that_cannot_be_drawn_stays_corrected(fake_node, run, out, monkeypatch, capsys):
    from n4ax_bids.app.reports import image_report

    write = image_report.write

    def broken(job, *rest):
        if job.name == "sub-02_ses-1_T1w":
            raise ValueError("no ink")
        return write(job, *rest)

    monkeypatch.setattr(image_report, "write", broken)
    assert run() == 1
    assert "sub-02_ses-1_T1w: corrected, but without figures: no ink" in capsys.readouterr().err
    assert (out / "sub-02/ses-1/anat/sub-02_ses-1_desc-biascorr_T1w.nii.gz").is_file()
    assert "without figures: ValueError: no ink" in text_of(out / "sub-02.html")
    monkeypatch.undo()
    assert run("--reports-only") == 0
    assert "no ink" not in text_of(out / "sub-02.html")


def test_outputs_of_a_version_with_other_sidecars_are_named(fake_node, run, out, caplog):
    """They are neither shown nor end the run; the images have to be corrected again."""
    assert run() == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    content = json.loads(sidecar.read_text())
    content["N4"] = content.pop("BiasCorrection")
    sidecar.write_text(json.dumps(content))
    record = next((out / "sub-01/figures").glob("*_desc-record_T1w.json"))
    facts = json.loads(record.read_text())
    facts["sidecar_sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
    record.write_text(json.dumps(facts))
    assert run(level="group") == 0
    assert "sub-01_T1w" not in text_of(out / "group.html")
    assert run("--reports-only") == 1
    text = next((out / "logs").glob("report-sub-01_*.txt")).read_text()
    assert "has no BiasCorrection; expected a sidecar of this version" in text


def test_figures_of_an_earlier_correction_are_not_shown(fake_node, run, out):
    """As where a run was killed after an image was corrected anew and before it was drawn."""
    assert run() == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    content = json.loads(sidecar.read_text())
    content["BiasCorrection"]["FieldMax"] = 3.0
    sidecar.write_text(json.dumps(content))
    assert run(level="group") == 0
    assert "sub-01_T1w" not in text_of(out / "group.html")
    assert run("--reports-only") == 0 == run(level="group")
    assert "sub-01_T1w" in text_of(out / "group.html")
    assert "… 3" in text_of(out / "sub-01.html")


def test_what_is_missing_is_drawn_at_the_end_and_the_rest_stays(run, out, capsys):
    """As where images have been finished by a run that was killed, or that drew nothing."""
    fast = ["--device", "cpu", "--sloppy"]
    assert run("--no-reports", *fast) == 0
    assert run(*fast) == 0
    before = drawn(out)
    assert len(before) == 5 * len(NAMES) + 2
    (out / "sub-02.html").unlink()
    (out / "sub-01/figures/sub-01_desc-record_T1w.json").unlink()
    assert run(*fast) == 0
    assert capsys.readouterr().err.count("corrected in") == len(NAMES)  # by the first run
    after = drawn(out)
    assert set(after) == set(before)
    changed = {name for name in before if after[name] != before[name]}
    of_the_image = {name for name in before if name.startswith("sub-01/") and "_T1w" in name}
    assert changed == of_the_image | {"sub-02.html"}  # the page of sub-01 is as it was


def test_what_failed_at_last_has_failed(fake_node, run, out, tmp_path):
    """Though an earlier run has made something of it, and that is there still."""
    assert run() == 0
    (tmp_path / "raw" / NAMES[0]).write_bytes(b"")
    assert run() == 1
    assert "sub-01_desc-before_T1w" not in (out / "sub-01.html").read_text()
    assert run(level="group") == 0
    with (out / "group_n4.tsv").open(newline="") as stream:
        rows = {row["bids_name"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert rows["sub-01_T1w"]["status"] == "failed, earlier outputs kept"
    assert rows["sub-01_T1w"]["cv_after"] == "n/a"
    assert rows["sub-02_ses-1_T1w"]["status"] == "corrected"
    assert len(rows) == 3


def test_a_page_that_was_overtaken_is_written_again(fake_node, run, out, monkeypatch, tmp_path):
    """Another run finishes an image of the participant while the page is being written."""
    from n4ax_bids.app.request import Request
    from n4ax_bids.report import page

    assert run() == 0
    (hidden,) = (out / "sub-01" / "figures").glob("*_desc-record_T2w.json")
    content = hidden.read_bytes()
    hidden.unlink()
    html = page.html

    def slow(*given, **more):
        made = html(*given, **more)
        hidden.write_bytes(content)
        return made

    monkeypatch.setattr(page, "html", slow)
    reports.page("sub-01", Request(tmp_path / "raw", out))
    assert "task-x" in text_of(out / "sub-01.html")


def test_text_of_the_dataset_stays_text(fake_node, run, make_dataset, tmp_path, out):
    evil = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    sidecar = {"ProtocolName": evil, evil: evil, "ImageComments": {"a": [evil, "</table>"]}}
    root = make_dataset(*NAMES, json_files={"sub-01/anat/sub-01_T1w.json": sidecar})
    lines = [f"participant_id\tage\t{evil}", f"sub-01\t{evil}\t</p><b>", "sub-02\t3\tn/a", ""]
    (root / "participants.tsv").write_text("\n".join(lines))
    assert run() == 0
    source = (out / "sub-01.html").read_text()
    assert "<script>document" not in source and "<img src=x" not in source
    assert source.count("&lt;script&gt;document.title=") >= 5
    assert "</p><b>" not in source


def test_a_page_that_cannot_be_written_is_told(fake_node, run, out, capsys):
    (out / "sub-01.html").mkdir(parents=True)
    assert run() == 1
    assert "sub-01: no page: " in capsys.readouterr().err
    assert (out / "sub-02.html").is_file()
    assert (out / "sub-01/anat/sub-01_desc-biascorr_T1w.nii.gz").is_file()


def test_a_participants_file_that_cannot_be_read_costs_no_page(fake_node, run, make_dataset, out):
    root = make_dataset(*NAMES)
    (root / "participants.tsv").write_bytes(b"participant_id\tx\nsub-01\t\xff\xfe\n")
    assert run() == 0
    assert (out / "sub-01.html").is_file()


def test_the_log_warns_of_what_the_page_remarks(run, out, capsys, make_dataset, tmp_path):
    """An image that the run makes less even, and voxels without a logarithm, by one rule."""
    import nibabel as nb
    import numpy as np

    root = make_dataset(NAMES[0])
    image = nb.load(root / NAMES[0])
    rng = np.random.default_rng(0)
    data = rng.choice([-3, 40, 90], image.shape)  # noise without a field: N4 finds one
    mask = tmp_path / "prep/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    nb.Nifti1Image(data.astype(np.int16), image.affine).to_filename(root / NAMES[0])
    nb.Nifti1Image(np.ones(image.shape, np.uint8), image.affine).to_filename(mask)
    flags = ["-d", str(mask.parents[2]), "--mask", "derivatives", "--device", "cpu"]
    assert run(*flags, "--shrink-factor", "1", "--n-iterations", "5", "5") == 0
    said = [line.partition("WARNING ")[2] for line in capsys.readouterr().err.splitlines()]
    told = {line.partition(": ")[2] for line in said if "] sub-01_T1w: " in line}
    (record,) = out.glob("sub-01/figures/*_desc-record_T1w.json")
    remarks = json.loads(record.read_text())["warnings"]
    assert told == set(remarks) and len(remarks) == 2
    assert any("voxels inside the mask are 0 or less" in remark for remark in remarks)
    record.unlink()
    assert run(*flags, "--shrink-factor", "1", "--n-iterations", "5", "5", "--reports-only") == 0
    assert "less even inside the mask" in capsys.readouterr().err


def test_a_mask_without_a_positive_voxel_is_told(run, capsys, make_dataset, tmp_path):
    import nibabel as nb
    import numpy as np

    root = make_dataset(NAMES[0])
    image = nb.load(root / NAMES[0])
    mask = tmp_path / "prep/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    inside = np.zeros(image.shape, np.uint8)
    inside[:12] = 1
    data = np.where(inside, -(np.arange(inside.size).reshape(image.shape) % 7), 50)
    nb.Nifti1Image(data.astype(np.int16), image.affine).to_filename(root / NAMES[0])
    nb.Nifti1Image(inside, image.affine).to_filename(mask)
    flags = ["-d", str(mask.parents[2]), "--mask", "derivatives", "--device", "cpu"]
    run(*flags, "--n-iterations", "2", "--no-reports")
    assert "every voxel that is used is 0 or less" in capsys.readouterr().err


def test_the_last_line_says_where_the_pages_are(fake_node, run, out, capsys):
    assert run() == 0
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"INFO 2 reports, the first is {out / 'sub-01.html'}")
    )
    assert run("--participant-label", "02", "--reports-only") == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"INFO report: {out / 'sub-02.html'}")
    assert run("--no-reports", "--overwrite") == 0
    assert ".html" not in capsys.readouterr().err.splitlines()[-1]


def test_hidden_files_of_macos_are_no_images(fake_node, run, out, capsys):
    """What Finder leaves beside each file on a network disk."""
    assert run() == 0
    for path in [*out.glob("sub-*/**/*.nii.gz"), *out.glob("sub-*/**/*.json")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert run(level="group") == 0
    assert "WARNING" not in capsys.readouterr().err.replace("WARNING dataset not validated", "")
    with open(out / "group_n4.tsv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream, delimiter="\t"))) == len(NAMES)
