"""The exit status of runs that cannot begin, or that an internal error ends."""

from __future__ import annotations

import pytest

from n4ax_bids.app import cli, run


@pytest.mark.usefixtures("fake_node")
class TestStatus:
    """The exit status and the last line on the screen if a run cannot begin."""

    def run(self, capsys, root, out, *flags):
        status = cli.main([str(root), str(out), "participant", *flags])
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return status, text.splitlines()[-1]

    def test_no_such_folder(self, capsys, tmp_path):
        status, line = self.run(capsys, tmp_path / "no", tmp_path / "out")
        assert status == 16
        assert str(tmp_path / "no") in line
        assert not (tmp_path / "out").exists()

    def test_no_description(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (root / "dataset_description.json").unlink()
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 16
        assert "dataset_description.json" in line

    def test_no_images(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/func/sub-01_task-x_bold.nii.gz", empty=True)
        assert self.run(capsys, root, tmp_path / "out")[0] == 66
        assert not (tmp_path / "out").exists()

    def test_filters_select_nothing(self, capsys, make_dataset, tmp_path):
        root = make_dataset(
            "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/func/sub-02_task-x_bold.nii.gz", empty=True
        )
        assert self.run(capsys, root, tmp_path / "out", "--participant-label", "02")[0] == 18

    def test_unknown_label(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        status, line = self.run(capsys, root, tmp_path / "out", "--participant_label", "07")
        assert status == 2
        assert "07" in line and "there are: 01" in line

    def test_shared_output(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii")
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 16
        assert "sub-01_T1w.nii and " in line and "sub-01_T1w.nii.gz" in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("place", ["", "out", "derivatives", "sub-01", ".."])
    def test_output_that_would_spoil_the_input(self, capsys, make_dataset, place):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        before = sorted(root.rglob("*"))
        assert self.run(capsys, root, root / place)[0] == 2
        assert sorted(root.rglob("*")) == before

    def test_output_through_a_link_is_still_the_input(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (tmp_path / "link").symlink_to(root)
        status, line = self.run(capsys, root, tmp_path / "link")
        assert status == 2
        assert "is the input dataset itself" in line

    def test_output_beneath_derivatives_is_fine(self, capsys, make_dataset):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
        out = root / "derivatives" / "n4ax_bids"
        assert self.run(capsys, root, out)[0] == 0
        # and the second run does not take the first one's outputs for inputs
        assert self.run(capsys, root, out)[0] == 0
        assert len(list(out.rglob("*_T1w.nii.gz"))) == 3

    def test_input_as_sourcedata_of_the_output_is_fine(self, capsys, make_dataset, tmp_path):
        raw = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
        root = tmp_path / "out" / "sourcedata" / "raw"
        root.parent.mkdir(parents=True)
        raw.rename(root)
        assert self.run(capsys, root, tmp_path / "out")[0] == 0

    def test_output_of_another_program_is_left_alone(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        other = tmp_path / "other"
        other.mkdir()
        text = '{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}'
        (other / "dataset_description.json").write_text(text)
        status, line = self.run(capsys, root, other)
        assert status == 2
        assert "fMRIPrep" in line
        assert (other / "dataset_description.json").read_text() == text

    def test_work_folder_inside_the_input(self, capsys, make_dataset, tmp_path):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        assert self.run(capsys, root, tmp_path / "out", "-w", str(root / "work"))[0] == 2
        assert not (root / "work").exists()

    @pytest.mark.parametrize("where", ["output", "work"])
    def test_a_place_that_cannot_be_written(self, capsys, make_dataset, tmp_path, where):
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        (tmp_path / "file").touch()
        blocked = str(tmp_path / "file" / "x")
        out, flags = (blocked, []) if where == "output" else (tmp_path / "out", ["-w", blocked])
        status, line = self.run(capsys, root, out, *flags)
        assert status == 73
        assert blocked in line

    def test_internal_error(self, capsys, make_dataset, tmp_path, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("surprise")

        monkeypatch.setattr(run.dataset, "select", broken)
        root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz", empty=True)
        status, line = self.run(capsys, root, tmp_path / "out")
        assert status == 70
        assert "RuntimeError: surprise" in line
