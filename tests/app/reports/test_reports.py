"""Reports of whole runs: what is on the pages, what is remarked, and that failures are told."""

from __future__ import annotations

import csv
import json
import re

from tests.app.reports.pages import NAMES, drawn, text_of


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
