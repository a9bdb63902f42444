"""When an image counts as finished, and when it is corrected again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.outputs import finished, source
from n4ax_bids.app.request import Request, deciding
from n4ax_bids.app.select import dataset
from n4ax_bids.options import DEFAULT_PRESET, preset

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
OTHER = "sub-02/anat/sub-02_T1w.nii.gz"
FAST = ["--device", "cpu", "--n-iterations", "2", "1", "--skip-bids-validation", "--no-reports"]
OPTIONS = preset(DEFAULT_PRESET, n_iterations=(2, 1))
"""of a run with `FAST`"""


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", *FAST, *flags])


@pytest.fixture
def done(make_dataset, tmp_path):
    """A dataset of two images, corrected."""
    root = make_dataset(NAME, OTHER, json_files={"T1w.json": {"MagneticFieldStrength": 3}})
    assert main(root, tmp_path / "out") == 0
    return root, tmp_path / "out"


def written(out: Path) -> dict[str, tuple[int, int]]:
    """Which file stands under each name; a new one has another number or time."""
    return {
        path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.rglob("sub-*.*")
        if path.is_file() and "logs" not in path.relative_to(out).parts
    }


def done_again(out: Path, before: dict) -> set[str]:
    """The subjects of which any file is new."""
    return {name[:6] for name, facts in written(out).items() if before.get(name) != facts}


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_fields_of_a_request_decide_the_content_or_the_run():
    """A new field must be on one of the two sides, or old outputs would be taken for new ones."""
    names = {field.name for field in fields(Request)}
    assert deciding("content") | deciding("run") == names
    assert not deciding("content") & deciding("run")
    # What is computed of an image hangs on these, and on nothing else.
    assert deciding("content") == {
        "bias_field",
        "derivatives",
        "desc",
        "field_scale",
        "mask",
        "mask_program",
        "method",
        "options",
        "output_dtype",
        "rescale",
        "save_mask",
        "skip_normalized",
        "weight",
    }


def test_a_finished_image_stays(done, capsys):
    root, out = done
    before = written(out)
    assert main(root, out) == 0
    assert written(out) == before
    text = capsys.readouterr().err
    assert "2 of 2 images are finished already" in text
    assert text.endswith("0 of 2 images corrected, 0 failed, 2 finished before\n")


def test_finished_images_are_found_without_jax_and_without_reading_a_whole_image(done):
    """Only their fingerprints are read."""
    root, out = done
    code = """
import sys, traceback
opened, by_others = [], []
def hook(event, args):
    if event != "open":
        return
    opened.append(str(args[0]))
    if opened[-1].endswith((".nii", ".nii.gz")):
        if not any(frame.name == "fingerprint" for frame in traceback.extract_stack()):
            by_others.append(opened[-1])
sys.addaudithook(hook)
from n4ax_bids.app import cli
assert cli.main(sys.argv[1:]) == 0
assert "jax" not in sys.modules
assert any("logs/images" in name for name in opened)
assert not by_others, by_others
"""
    words = [str(root), str(out), "participant", *FAST]
    subprocess.run([sys.executable, "-c", code, *words], check=True)


def change_voxels(root, out):
    image = nb.load(root / NAME)
    nb.Nifti1Image(image.get_fdata()[::-1], image.affine).to_filename(root / NAME)


def change_one_byte(root, out):
    data = bytearray((root / NAME).read_bytes())
    data[4] ^= 1  # the time in the gzip header: same size, same voxels
    (root / NAME).write_bytes(data)


def change_sidecar(root, out):
    (root / "sub-01/anat/sub-01_T1w.json").write_text('{"EchoTime": 0.003}')


def remove_output(root, out):
    (out / "sub-01/anat/sub-01_desc-biasfield_T1w.nii.gz").unlink()


def cut_output(root, out):
    path = out / "sub-01/anat/sub-01_desc-biascorr_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:-1])


def remove_record(root, out):
    (out / "logs/images/sub-01/anat/sub-01_T1w.json").unlink()


def damage_record(root, out):
    (out / "logs/images/sub-01/anat/sub-01_T1w.json").write_text("[]")


def other_version(root, out):
    path = out / "logs/images/sub-01/anat/sub-01_T1w.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.0.1"}))


@pytest.mark.parametrize(
    "change",
    [
        change_voxels,
        change_one_byte,
        change_sidecar,
        remove_output,
        cut_output,
        remove_record,
        damage_record,
        other_version,
    ],
)
def test_only_the_image_that_has_changed_is_done_again(done, change):
    root, out = done
    before = written(out)
    change(root, out)
    assert main(root, out) == 0
    assert done_again(out, before) == {"sub-01"}
    before = written(out)
    assert main(root, out) == 0
    assert written(out) == before


def test_a_sidecar_of_all_images_reaches_them(done):
    root, out = done
    before = written(out)
    (root / "T1w.json").write_text('{"MagneticFieldStrength": 7}')
    assert main(root, out) == 0
    assert done_again(out, before) == {"sub-01", "sub-02"}
    text = (out / "sub-02/anat/sub-02_desc-biascorr_T1w.json").read_text()
    assert json.loads(text)["MagneticFieldStrength"] == 7


def test_other_options_are_another_correction(done):
    root, out = done
    before = written(out)
    assert main(root, out, "--shrink-factor", "2") == 0
    assert done_again(out, before) == {"sub-01", "sub-02"}
    before = written(out)
    assert main(root, out, "--shrink-factor", "2", "--nprocs", "1", "-v") == 0
    assert written(out) == before


def test_a_dry_run_tells_what_is_finished_and_writes_nothing(done, capsys):
    root, out = done
    touch(root / NAME)
    (out / "logs/images/sub-02/anat/sub-02_T1w.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(root, out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"keep     {NAME}\n" in text and f"correct  {OTHER}\n" in text
    assert "1 image to correct, 0 that cannot be, 1 finished already, 0 skipped" in text
    assert main(root, out, "--dry-run", "--overwrite") == 0
    assert "2 images to correct" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_fields_of_an_earlier_run_go_where_none_are_wanted(done):
    root, out = done
    assert main(root, out, "--no-bias-field") == 0
    assert not list(out.rglob("*biasfield*"))
    before = written(out)
    assert main(root, out, "--no-bias-field") == 0
    assert written(out) == before
    assert main(root, out) == 0
    assert len(list(out.rglob("*biasfield*"))) == 4


def test_a_mask_of_another_pipeline_that_changes(make_dataset, write_image, tmp_path):
    root, out = make_dataset(NAME, OTHER), tmp_path / "out"
    masks = tmp_path / "masks"
    for name in (NAME, OTHER):
        mask = masks / name.replace("_T1w", "_desc-brain_mask")
        source = nb.load(root / name)
        mask.parent.mkdir(parents=True)
        inside = (source.get_fdata() > 100).astype(np.uint8)
        nb.Nifti1Image(inside, source.affine).to_filename(mask)
    description = {"Name": "m", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    description["GeneratedBy"] = [{"Name": "m"}]
    (masks / "dataset_description.json").write_text(json.dumps(description))
    flags = ["-d", str(masks), "--mask", "derivatives"]
    assert main(root, out, *flags) == 0
    before = written(out)
    assert main(root, out, *flags) == 0
    assert written(out) == before
    mask = masks / NAME.replace("_T1w", "_desc-brain_mask")
    image = nb.load(mask)
    inside = image.get_fdata().astype(np.uint8)
    inside[10:12] = 0
    nb.Nifti1Image(inside, image.affine).to_filename(mask)
    assert main(root, out, *flags) == 0
    assert done_again(out, before) == {"sub-01"}


def test_overwrite_does_all_again(done):
    root, out = done
    before, content = written(out), {name: (out / name).read_bytes() for name in written(out)}
    assert main(root, out, "--overwrite") == 0
    assert done_again(out, before) == {"sub-01", "sub-02"}
    assert {name: (out / name).read_bytes() for name in written(out)} == content


def test_another_time_alone_is_no_change(done, monkeypatch):
    """The content decides; the new time is recorded, so the next run need not read it."""
    root, out = done
    before = written(out)
    touch(root / NAME)
    assert main(root, out) == 0
    assert written(out) == before
    monkeypatch.setattr(finished, "_digest", lambda path: pytest.fail(f"{path} read"))
    assert main(root, out) == 0
    assert written(out) == before


def change_behind_the_old_time(root, out):
    times = (root / NAME).stat()
    change_one_byte(root, out)
    os.utime(root / NAME, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_content_behind_an_old_time_is_seen_by_its_fingerprint(done):
    root, out = done
    before = written(out)
    change_behind_the_old_time(root, out)
    assert main(root, out) == 0
    assert done_again(out, before) == {"sub-01"}


def test_content_between_the_blocks_of_a_fingerprint_is_seen_with_verify_inputs(done, monkeypatch):
    root, out = done
    for module in (finished, source):
        monkeypatch.setattr(module, "fingerprint", lambda path: "of other blocks")
    assert main(root, out, "--overwrite", "--accept-new-source") == 0
    before = written(out)
    change_behind_the_old_time(root, out)
    assert main(root, out) == 0
    assert written(out) == before
    assert main(root, out, "--verify-inputs") == 0
    assert done_again(out, before) == {"sub-01"}


def test_a_record_without_fingerprints_is_as_good(done):
    """It comes from an earlier version, and the whole content is compared."""
    root, out = done
    path, before = out / "logs/images/sub-01/anat/sub-01_T1w.json", written(out)
    content = json.loads(path.read_text())
    for facts in content["inputs"].values():
        del facts["fingerprint"]
    path.write_text(json.dumps(content))
    assert main(root, out) == 0
    assert written(out) == before
    assert "fingerprint" in json.loads(path.read_text())["inputs"]["input_image"]


def test_the_record_says_what_no_output_says(done):
    root, out = done
    path = out / "logs/images/sub-01/anat/sub-01_T1w.json"
    content = json.loads(path.read_text())
    (run,) = [path.parent.name for path in (out / "logs").glob("*/images.tsv")]
    assert content["run"] == run
    assert content["seconds"]["total"] >= content["seconds"]["solve"] > 0
    assert content["started"].startswith("20") and content["started"].endswith("+00:00")
    assert content["inputs"]["input_image"] == finished._look(root / NAME) | finished._digest(
        root / NAME
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"options": replace(OPTIONS, shrink_factor=2)}, "shrink_factor was 4, is"),
        ({"options": replace(OPTIONS, shrink_mm=None)}, "shrink_mm was 4.0, is None"),
        ({"mask": "none"}, "mask was auto, is none"),
    ],
)
def test_the_reason_has_words(done, changes, why):
    root, out = done
    job = dataset.select(Request(root, out)).jobs[0]
    request = replace(Request(root, out, options=OPTIONS), **changes)
    found = finished.why_not_finished(job, request)
    assert found == why or why in found


def test_a_broken_link_is_not_finished(done):
    root, out = done
    job = dataset.select(Request(root, out)).jobs[0]
    (root / NAME).unlink()
    request = Request(root, out, options=OPTIONS)
    assert "No such file" in finished.why_not_finished(job, request)
    assert main(root, out) == 0  # it is not in the dataset any more
    (root / NAME).symlink_to("nowhere")
    assert main(root, out) == 1
