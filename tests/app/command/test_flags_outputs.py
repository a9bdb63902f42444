"""Each flag of `n4ax-bids` by what it does to the outputs, with the real node."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.status import Status

FAST = ["--device", "cpu", "--n-iterations", "4", "3"]


@pytest.fixture
def run(make_dataset, tmp_path):
    """Correct one image with the real node; return corrected, field (or None) and sidecar."""
    name = "sub-01/anat/sub-01_T1w.nii.gz"

    def correct(*flags, desc="biascorr", status=0, reports=False):
        root, out = make_dataset(name), tmp_path / "out"
        words = [str(root), str(out), "participant", *FAST, *flags]
        assert cli.main(words if reports else [*words, "--no-reports"]) == status
        stem = out / f"sub-01/anat/sub-01_desc-{desc}_T1w"
        field = out / "sub-01/anat/sub-01_desc-biasfield_T1w.nii.gz"
        corrected = nb.load(f"{stem}.nii.gz")
        corrected.get_fdata()  # before another run writes another one
        return (
            corrected,
            nb.load(field) if field.exists() else None,
            json.loads(stem.with_suffix(".json").read_text()),
        )

    return correct


def test_desc(run, bids_errors, tmp_path):
    _, field, _ = run("--desc", "preproc", desc="preproc", reports=True)
    assert field is not None
    assert not list((tmp_path / "out").rglob("*biascorr*.nii.gz"))
    assert "desc-preproc\t" in (tmp_path / "out" / "descriptions.tsv").read_text()
    assert bids_errors(tmp_path / "out") == []


def test_no_bias_field(run, tmp_path):
    assert run()[1] is not None
    _, field, _ = run("--no-bias-field")
    assert field is None  # nor that of the first run, which had other options
    assert not list((tmp_path / "out").rglob("*biasfield*"))
    assert list((tmp_path / "out").rglob("*biaslattice_T1w.nii.gz"))


def test_output_dtype(run):
    floats, _, sidecar = run()
    assert floats.get_data_dtype() == np.float32
    facts = sidecar["BiasCorrection"]
    assert (facts["StoredSlope"], facts["StoredIntercept"]) == (1, 0)
    whole, _, sidecar = run("--output-dtype", "source")
    assert whole.get_data_dtype() == np.int16
    facts = sidecar["BiasCorrection"]
    slope, intercept = facts["StoredSlope"], facts["StoredIntercept"]
    stored = np.asarray(whole.dataobj.get_unscaled(), np.float64)
    np.testing.assert_array_equal(slope * stored + intercept, whole.get_fdata())
    # half a step of the slope, and the float32 of both files
    atol = slope / 2 + 1e-4
    np.testing.assert_allclose(whole.get_fdata(), floats.get_fdata(), atol=atol, rtol=0)


def test_sloppy(run):
    """Flags win over it, as over a preset."""
    n4 = run("--sloppy", "--preset", "robust")[2]["BiasCorrection"]
    assert n4["Options"]["n_iterations"] == [4, 3]  # the flag's
    assert n4["Options"]["shrink_factor"] == 4
    assert run("--preset", "robust")[2]["BiasCorrection"]["Options"]["shrink_factor"] == 1


def test_method_is_recorded_and_an_unknown_one_is_refused(run, capsys):
    assert run("--method", "n4")[2]["BiasCorrection"]["Method"] == "n4"
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "--method", "n5"])
    assert "'n5' (choose from " in capsys.readouterr().err


def test_the_device_is_recorded_and_its_lack_is_loud(run, capsys, monkeypatch):
    from n4ax_bids.runtime import device

    # At shrink 4 so small an image is warned of, and so is one without a brain.
    assert run("--mask", "otsu", "--shrink-factor", "2")[2]["BiasCorrection"]["Device"] == "cpu"
    assert "WARNING" not in capsys.readouterr().err.replace("WARNING dataset not validated", "")
    monkeypatch.setattr(device, "_gpus", lambda: [])
    for nvidia, level in ((False, "INFO"), (True, "WARNING")):
        monkeypatch.setattr(device, "has_nvidia", lambda nvidia=nvidia: nvidia)
        run("--device", "auto", "--overwrite")
        said = capsys.readouterr().err
        assert f"{level} JAX sees no GPU: computing on the CPU" in said


def test_shrink_mm(run):
    n4 = run("--shrink-mm", "3.3")[2]["BiasCorrection"]
    assert n4["Details"]["shrink_factors"] == [2, 2, 2]  # of 1.5, 1.6 and 1.7 mm
    assert n4["Options"]["shrink_mm"] == 3.3


def test_the_work_folder_is_cleaned_of_what_other_machines_have_left(run, tmp_path):
    work = tmp_path / "work"
    left = work / ".n4ax_bids-0123abcd-1-1-89abcdef"  # of a machine that was heard of just now
    left.mkdir(parents=True)
    run("-w", str(work))
    assert left.is_dir()
    run("-w", str(work), "--clean-workdir")
    assert list(work.iterdir()) == []


def test_one_output_folder_takes_one_label(run, make_dataset, tmp_path, capsys):
    run("--desc", "preproc", desc="preproc")
    (out,) = (path.parent for path in tmp_path.rglob("descriptions.tsv"))
    raw = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
    words = [str(raw), str(out), "participant", "--skip-bids-validation"]
    assert cli.main(words) == Status.USAGE
    assert "holds images with --desc preproc; expected the same label" in capsys.readouterr().err
