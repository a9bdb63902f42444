"""Masks and tissue probabilities of other pipelines, found and used."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest
import SimpleITK as sitk

from n4ax_bids.app import cli
from n4ax_bids.app.command import asked
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.dataset import select
from n4ax_bids.app.select.masks import Masks

FAST = ["--device", "cpu", "--n-iterations", "4", "3"]
T1W = "sub-01/anat/sub-01_T1w.nii.gz"
BRAIN = "sub-01/anat/sub-01_desc-brain_mask.nii.gz"
WHITE = "sub-01/anat/sub-01_label-WM_probseg.nii.gz"


def found(derivatives, *, mask="derivatives", weight=None, **entities):
    if not isinstance(derivatives, dict):
        derivatives = {"fmriprep": derivatives}
    anywhere = next(iter(derivatives.values()))
    request = Request(
        anywhere, anywhere / "out", mask=mask, weight=weight, derivatives=derivatives
    )
    entities = {"sub": "01", "suffix": "T1w"} | entities
    suffix = entities.pop("suffix")
    return Masks(request).of("_".join(f"{k}-{v}" for k, v in entities.items()) + f"_{suffix}.nii")


def test_the_brain_mask_comes_before_the_probability(derived):
    root = derived(BRAIN, WHITE)
    assert found(root)[:3] == (root / BRAIN, None, None)
    (root / BRAIN).unlink()
    assert found(root)[:3] == (None, root / WHITE, None)
    (root / WHITE).unlink()
    assert found(root).problem == "no desc-brain_mask and no label-WM_probseg of it in fmriprep"


def test_a_weight_that_is_asked_for_stands_beside_any_mask(derived):
    root = derived(BRAIN, WHITE, WHITE.replace("WM", "GM"))
    assert found(root, mask="otsu", weight="WM")[:3] == (None, root / WHITE, None)
    assert found(root, weight="GM")[:3] == (root / BRAIN, root / WHITE.replace("WM", "GM"), None)
    assert "no label-CSF_probseg of it in fmriprep" in found(root, weight="CSF").problem


def test_only_its_own_mask_in_its_own_space(derived):
    root = derived(
        "sub-02/anat/sub-02_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_space-MNI_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_space-MNI_res-2_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_res-2_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_desc-aseg_mask.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "sub-01/func/sub-01_task-x_desc-brain_mask.nii.gz",
    )
    assert found(root, ses="1").problem
    assert found(root, ses="2").mask.name == "sub-01_ses-2_desc-brain_mask.nii.gz"


def test_the_mask_that_shares_most_is_taken(derived):
    root = derived(
        BRAIN,
        "sub-01/anat/sub-01_acq-a_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_acq-a_run-1_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_space-T2w_desc-brain_mask.nii.gz",
    )
    assert found(root).mask.name == "sub-01_desc-brain_mask.nii.gz"
    assert found(root, acq="b").mask.name == "sub-01_desc-brain_mask.nii.gz"
    assert found(root, acq="a", run=2).mask.name == "sub-01_acq-a_desc-brain_mask.nii.gz"
    best = found(root, acq="a", run=1).mask.name
    assert best == "sub-01_acq-a_run-1_desc-brain_mask.nii.gz"
    assert found(root, suffix="T2w").mask.name == "sub-01_space-T2w_desc-brain_mask.nii.gz"


def test_two_masks_of_one_image_are_both_named(derived):
    root = derived(BRAIN, BRAIN.removesuffix(".gz"))
    problem = found(root).problem
    assert f"{root / BRAIN}" in problem and problem.endswith("are both of it; expected one")


def test_the_first_folder_that_has_one_counts(derived):
    first, second = derived(WHITE, folder="a"), derived(BRAIN, WHITE, folder="b")
    assert found({"a": first, "b": second}).mask == second / BRAIN
    assert found({"a": first, "b": second}, mask="none", weight="WM").weight == first / WHITE


def test_a_job_has_its_mask(make_dataset, derived, tmp_path):
    root = make_dataset(T1W, "sub-02/anat/sub-02_T1w.nii.gz", empty=True)
    folder = derived(BRAIN)
    request = Request(root, tmp_path / "out", mask="derivatives", derivatives={"x": folder})
    first, second = select(request).jobs
    assert (first.mask, first.problem) == (folder / BRAIN, None)
    assert second.mask is None and "no desc-brain_mask" in second.problem


class TestRun:
    """The whole way, with the real node."""

    @pytest.fixture
    def places(self, make_dataset, tmp_path):
        root = make_dataset(T1W)
        image = nb.load(root / T1W)
        voxels = image.get_fdata()
        for name, data in ((BRAIN, voxels > 300), (WHITE, np.clip(voxels / 600, 0, 1))):
            path = tmp_path / "fmriprep" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            nb.Nifti1Image(data.astype(np.float32), image.affine).to_filename(path)
        return root, tmp_path / "out", tmp_path / "fmriprep"

    def run(self, places, *flags, reports=False):
        root, out, folder = places
        words = [str(root), str(out), "participant", "-d", str(folder), *flags, *FAST]
        status = cli.main(words if reports else [*words, "--no-reports"])
        made = out / "sub-01/anat/sub-01_desc-biascorr_T1w"
        if status:
            return status
        corrected = nb.load(f"{made}.nii.gz").get_fdata()
        field = nb.load(f"{made}.nii.gz".replace("biascorr", "biasfield")).get_fdata()
        sidecar = json.loads(made.with_suffix(".json").read_text())
        return corrected, field, sidecar

    def test_a_mask_of_derivatives(self, places, bids_errors):
        root, out, folder = places
        corrected, field, sidecar = self.run(places, "--mask", "derivatives")
        inside = nb.load(folder / BRAIN).get_fdata() > 0
        assert sidecar["BiasCorrection"]["NVoxelsMask"] == np.count_nonzero(inside)
        assert sidecar["BiasCorrection"]["Mask"] == f"bids:fmriprep:{BRAIN}"
        assert sidecar["Sources"] == [f"bids:raw:{T1W}", f"bids:fmriprep:{BRAIN}"]
        assert str(folder) not in json.dumps(sidecar)
        # The whole image is corrected: three float32 roundings.
        np.testing.assert_allclose(
            corrected * field, nb.load(root / T1W).get_fdata(), rtol=1e-6, atol=1e-12
        )
        links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
        assert links == {"raw": "../raw", "fmriprep": "../fmriprep"}
        assert bids_errors(out) == []

    def test_rescaled_as_the_ants_program_does(self, places):
        root, _, folder = places
        corrected, field, sidecar = self.run(places, "--mask", "derivatives", "--rescale")
        image = nb.load(root / T1W).get_fdata()
        inside = nb.load(folder / BRAIN).get_fdata() > 0
        np.testing.assert_array_equal(corrected[~inside], image[~inside].astype(np.float32))
        n4 = sidecar["BiasCorrection"]
        assert n4["Rescaled"] and n4["RescaleSlope"] != 1
        expected = n4["RescaleSlope"] * image / field + n4["RescaleIntercept"]
        # float32, and the intercept is a difference of numbers 10 times its size
        np.testing.assert_allclose(corrected[inside], expected[inside], rtol=1e-5)
        assert corrected[inside].max() == pytest.approx(image[inside].max(), rel=1e-6)

    def test_a_tissue_as_the_weight(self, places):
        _, plain, _ = self.run(places, "--mask", "none", "--weight", "WM")
        _, field, sidecar = self.run(places, "--weight", "WM")
        assert sidecar["Sources"][1] == f"bids:fmriprep:{WHITE}"
        assert (sidecar["BiasCorrection"]["Mask"], sidecar["BiasCorrection"]["Weight"]) == (
            "auto",
            f"bids:fmriprep:{WHITE}",
        )
        assert np.abs(plain / field - 1).max() > 1e-3

    @pytest.mark.parametrize("axes", ["RAS", "PSR"])
    def test_images_that_are_not_stored_ras(self, places, axes):
        """fMRIPrep conforms to RAS; mask, weight and tissues are turned back, exactly."""
        root, out, folder = places
        flags = ["--mask", "derivatives", "--weight", "WM", "--shrink-factor", "1"]
        image = nb.load(root / T1W)
        for label, data in (("WM", image.get_fdata() > 400), ("GM", image.get_fdata() <= 400)):
            path = folder / WHITE.replace("WM", label)
            nb.Nifti1Image(data.astype(np.float32), image.affine).to_filename(path)
        _, expected, before = self.run(places, *flags, "--overwrite")
        orientation = nb.orientations.ornt_transform(
            nb.io_orientation(image.affine), nb.orientations.axcodes2ornt(axes)
        )
        for name in (BRAIN, WHITE, WHITE.replace("WM", "GM")):
            nb.load(folder / name).as_reoriented(orientation).to_filename(folder / name)
        assert not np.allclose(nb.load(folder / WHITE).affine, image.affine)
        _, field, sidecar = self.run(places, *flags, "--overwrite", reports=True)
        np.testing.assert_array_equal(field, expected)
        assert sidecar["BiasCorrection"]["NVoxelsMask"] == before["BiasCorrection"]["NVoxelsMask"]
        assert sidecar["BiasCorrection"]["Notes"] == []
        record = json.loads(next((out / "sub-01/figures").glob("*.json")).read_text())
        assert record["tissues"] == [
            f"fmriprep:{WHITE}",
            f"fmriprep:{WHITE.replace('WM', 'GM')}",
        ]
        assert record["notes"] == []

    def test_an_image_that_was_averaged(self, places):
        """A mask of the average, 4 mm away, by fMRIPrep's transform; redone when that changes."""
        root, out, folder = places
        flags = ["--mask", "derivatives", "--shrink-factor", "1"]
        _, expected, _ = self.run(places, *flags, "--overwrite")
        mask = nb.load(folder / BRAIN)
        wide = np.pad(mask.get_fdata(), 4)  # another grid, too
        affine = mask.affine @ nb.affines.from_matvec(np.eye(3), [-4, -4, -4])
        affine[0, 3] += 4
        nb.Nifti1Image(wide.astype(np.uint8), affine).to_filename(folder / BRAIN)
        path = folder / "sub-01/anat/sub-01_from-orig_to-T1w_mode-image_xfm.txt"
        assert self.run(places, *flags, "--overwrite") == 1
        for shift in (4.0, 8.0):
            # ITK takes points of the average to the image: 4 mm to the left, LPS+.
            transform = sitk.TranslationTransform(3, (shift, 0, 0))
            sitk.WriteTransform(transform, str(path))
            _, field, sidecar = self.run(places, *flags)
            assert np.array_equal(field, expected) == (shift == 4)
            (note,) = sidecar["BiasCorrection"]["Notes"]
            assert f"through {path.name}" in note
            name = path.relative_to(folder).as_posix()
            assert sidecar["Sources"][1:] == [f"bids:fmriprep:{BRAIN}", f"bids:fmriprep:{name}"]
            assert str(folder) not in json.dumps(sidecar)

    @pytest.mark.parametrize("fault", ["grid", "missing"])
    def test_a_mask_that_does_not_fit_fails_that_image_alone(self, places, capsys, fault):
        root, out, folder = places
        other = root / T1W.replace("01", "02")
        other.parent.mkdir(parents=True)
        other.write_bytes((root / T1W).read_bytes())
        if fault == "grid":
            path = folder / BRAIN.replace("01", "02")
            path.parent.mkdir(parents=True)
            nb.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)).to_filename(path)
        assert self.run(places, "--mask", "derivatives") == 1
        text = capsys.readouterr().err
        (line,) = [line for line in text.splitlines() if "failed: " in line]
        assert "sub-02_T1w" in line
        assert {"grid": "shape (5, 5, 5); expected", "missing": "no desc-brain_mask"}[
            fault
        ] in line
        assert (out / "sub-01/anat/sub-01_desc-biascorr_T1w.nii.gz").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mask", "derivatives"], "--mask derivatives needs -d"),
        (["--weight", "WM"], "--weight needs -d"),
        (["--rescale"], "--rescale needs --mask derivatives"),
    ],
)
def test_flags_that_need_another_one(capsys, flags, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["/raw", "/out", "participant", *flags])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_names_of_folders(tmp_path, derived, capsys):
    folder = derived(BRAIN, folder="my-prep 1")
    assert asked.named_folders([str(folder)]) == {"myprep1": folder}
    assert asked.named_folders([f"x={folder}"]) == {"x": folder}
    words = ["/raw", "/out", "participant", "--weight", "WM", "-d"]
    for more, text in (
        ([f"{tmp_path}/no"], "no such folder"),
        ([f"raw={folder}"], "a name that no other folder has and that is not raw"),
        ([f"x={folder}", f"x={folder}"], "a name that no other folder has"),
    ):
        assert cli.main([*words, *more]) == 2
        assert text in capsys.readouterr().err
