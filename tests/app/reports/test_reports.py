"""Reports of whole runs: pages, the table of all images, and what is drawn again."""

from __future__ import annotations

import csv
import hashlib
import json
import re

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.outputs import boilerplate
from n4ax_bids.app.reports import reports
from n4ax_bids.app.request import Request

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


@pytest.fixture
def request_of(tmp_path):
    """Make the request of a run in the same folders."""
    return lambda: Request(tmp_path / "raw", tmp_path / "out")


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
    names = set(drawn(one)) | {"group_bias.tsv"}
    assert names == set(drawn(two)) | {"group_bias.tsv"}
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
    with open(out / "group_bias.tsv", newline="") as stream:
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
    assert drawn(out) == before and not (out / "group_bias.tsv").exists()
    assert "group_bias.tsv" in capsys.readouterr().out


def test_a_table_under_its_old_name_is_replaced(fake_node, run, out, tmp_path, capsys):
    assert run() == 0
    old, others = out / "group_n4.tsv", tmp_path / "others.tsv"
    ours = "bids_name\tsuffix\tstatus\tfield_min\nsub-01_T1w\tT1w\tcorrected\t0.5\n"
    old.write_text(ours)
    capsys.readouterr()
    assert run("--dry-run", level="group") == 0
    assert old.is_file() and f"removed: {old}" in capsys.readouterr().out
    assert run(level="group") == 0
    assert not old.exists() and (out / "group_bias.tsv").read_text().startswith("bids_name\t")
    assert f"{old}: removed, group_bias.tsv replaces it" in capsys.readouterr().err
    # What is not our table stays: a file of the user, a folder, a link to another place.
    old.write_text("participant\tage\n")
    assert run(level="group") == 0 and old.read_text() == "participant\tage\n"
    old.unlink()
    others.write_text(ours)
    old.symlink_to(others)
    assert run(level="group") == 0 and old.is_symlink()
    old.unlink()
    old.mkdir()
    assert run(level="group") == 0 and old.is_dir()
    assert "removed" not in capsys.readouterr().err


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
    """They are not shown and do not end the run; the images must be corrected again."""
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


HUGE = 10**400
ODD_RECORDS = [
    *[("gain", value) for value in (None, "x", [], HUGE, 1e308)],
    *[("window", value) for value in (None, 5, "ab", [], [1], [1, "x"], [1, HUGE], [[1], 2])],
    *[("region", value) for value in (None, 5, [])],
    *[("outline", value) for value in (None, 5)],
    *[("field_median", value) for value in ("x", HUGE)],
    *[("files", value) for value in (None, [5], ["../x"], [".."], ["/etc/passwd"])],
    *[("tissues", value) for value in (5, True, {"a": 1}, [1], [["a"]])],
    *[("details", value) for value in ([1], ["ab"], [[]], [["a"]], [["a", "b"]], [["a", HUGE]])],
    *[("measures", value) for value in ({}, {"cv_before": 1})],
    *[("measures.field_max", value) for value in ("x", [], {}, HUGE, -1e308)],
    *[("measures.cjv_after", value) for value in ("x", HUGE, 1)],
    *[("method", value) for value in ([], {}, 5)],
    *[("image", value) for value in ("x", "sub-02_T1w", "a" * 100_000)],
    *[("status", value) for value in (None, 5, [], "all is well")],
]
ODD_SIDECARS = [
    *[("Options", value) for value in (None, 5, [])],
    *[("Versions", value) for value in (None, 5, [], "x")],
    ("Device", None),
]


def test_a_damaged_record_counts_as_none(fake_node, run, out, request_of):
    """Anyone who may write to the folder can have changed it; pages and table are still made."""
    assert run(names=NAMES[:1]) == 0
    (path,) = out.glob("sub-01/figures/*_desc-record_T1w.json")
    whole = path.read_text()
    for key, value in ODD_RECORDS:
        record = json.loads(whole)
        place, _, name = key.rpartition(".")
        (record[place] if place else record)[name] = value
        path.write_text(json.dumps(record))
        shown = _shown(run, out, request_of)
        assert shown == (["corrected"] if key == "status" else []), (key, value)


def test_a_damaged_sidecar_has_no_record(fake_node, run, out, request_of):
    assert run(names=NAMES[:1]) == 0
    sidecar = out / "sub-01/anat/sub-01_desc-biascorr_T1w.json"
    (path,) = out.glob("sub-01/figures/*_desc-record_T1w.json")
    whole, record = sidecar.read_text(), json.loads(path.read_text())
    for key, value in ODD_SIDECARS:
        content = json.loads(whole)
        content["BiasCorrection"][key] = value
        if value is None:
            del content["BiasCorrection"][key]
        sidecar.write_text(json.dumps(content))
        record["sidecar_sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
        path.write_text(json.dumps(record))
        assert _shown(run, out, request_of) == [], (key, value)


def _shown(run, out, request_of):
    """Make page and table of the one image, and return its status in the table, if it is there.

    Another participant's failure is there too, without which the level group has nothing to do.
    """
    (out / "logs" / "crash-sub-09_T1w.txt").write_text("an error\n")
    assert run(level="group") == 0
    rows = [line.split("\t") for line in (out / "group_bias.tsv").read_text().splitlines()]
    found = [row[2] for row in rows if row[0] == "sub-01_T1w"]
    reports.page("sub-01", request_of())
    assert ('id="sub-01_T1w"' in (out / "sub-01.html").read_text()) == bool(found)
    return found


def test_a_damaged_record_of_a_finished_image_ends_no_page(fake_node, run, out, request_of):
    """The methods text leaves out what it cannot describe."""
    assert run(names=NAMES[1:]) == 0
    path = out / "logs/images/sub-01/anat" / NAMES[1].rpartition("/")[2].replace("nii.gz", "json")
    whole = path.read_text()
    for key in ("mask", "weight", "preset", "output_dtype", "derivatives"):
        for value in (5, "x\n", [1], ["a"], {"a": 1}, None, 1e308):
            content = json.loads(whole)
            (content if key == "preset" else content["settings"])[key] = value
            path.write_text(json.dumps(content))
            reports.page("sub-01", request_of())
            boilerplate.write(out)
            assert "Tustison" in text_of(out / "logs/CITATION.md")


def test_a_text_of_the_logs_that_is_a_link_is_not_shown(fake_node, run, out, tmp_path):
    """Otherwise somebody else could make a page show a file of the user who runs the program."""
    assert run() == 0
    secret = tmp_path / "secret"
    secret.write_text("file\treason\nsecret\tsecret\n")
    (out / "logs/skipped").mkdir(exist_ok=True)
    for name in ("crash-sub-01_T9w.txt", "report-sub-01_T8w.txt", "skipped/sub-01.tsv"):
        (out / "logs" / name).unlink(missing_ok=True)
        (out / "logs" / name).symlink_to(secret)
    assert run("--reports-only") == 0 == run(level="group")
    for page in ("sub-01.html", "group.html", "group_bias.tsv"):
        assert "secret" not in text_of(out / page)


def test_figures_of_an_earlier_correction_are_not_shown(fake_node, run, out):
    """This happens if a run is killed between the new correction of an image and its figures."""
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
    """This happens if a run that finished images was killed or drew no figures."""
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
    """This holds although the outputs of an earlier run still exist."""
    assert run() == 0
    (tmp_path / "raw" / NAMES[0]).write_bytes(b"")
    assert run() == 1
    assert "sub-01_desc-before_T1w" not in (out / "sub-01.html").read_text()
    assert run(level="group") == 0
    with (out / "group_bias.tsv").open(newline="") as stream:
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
    """Log and page warn by the same rule: a less even image, and voxels without a logarithm."""
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
    with open(out / "group_bias.tsv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream, delimiter="\t"))) == len(NAMES)


def test_pages_of_separate_runs_are_linked_by_the_group(fake_node, run, out):
    """On a cluster, each run knows only its own participant."""
    for label in ("02", "01"):
        assert run("--participant-label", label) == 0
    page = out / "sub-02.html"
    assert 'rel="prev"' not in page.read_text()  # there was no other page when it was written
    assert 'href="./sub-02.html">sub-02 →' in (out / "sub-01.html").read_text()
    before = (out / "sub-01.html").stat().st_mtime_ns
    assert run(level="group") == 0
    assert 'href="./sub-01.html">← sub-01' in page.read_text()
    assert (out / "sub-01.html").stat().st_mtime_ns == before  # it was right
