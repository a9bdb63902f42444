"""After which changes an image is corrected again, and after which it stays."""

from __future__ import annotations

import json
import os

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app.outputs import finished, source
from tests.app.outputs.two_images import NAME, OTHER, done_again, main, touch, written


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
