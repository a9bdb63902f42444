"""When an image counts as finished, which words give the reason, and what is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from n4ax_bids.app.outputs import finished
from n4ax_bids.app.request import Request, deciding
from n4ax_bids.app.select import dataset
from tests.app.outputs.two_images import FAST, NAME, OPTIONS, OTHER, main, touch, written


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
