"""Inputs that are replaced or gone, outputs that are links, sidecars of others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from n4ax_bids import interfaces
from n4ax_bids.app import cli
from n4ax_bids.app.status import Status

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
OTHER = "sub-02/anat/sub-02_T1w.nii.gz"
CORRECTED = "sub-01/anat/sub-01_desc-biascorr_T1w.nii.gz"


@pytest.fixture
def raw(make_dataset):
    return make_dataset(T1W, OTHER)


@pytest.fixture
def run(raw, tmp_path, finishing_node, capsys):
    def once(*flags, level="participant", reports=False):
        if not (reports or level == "group" or "--reports-only" in flags):
            flags = (*flags, "--no-reports")  # they take longer than the rest
        status = cli.main([str(raw), str(tmp_path / "out"), level, *flags])
        return status, capsys.readouterr().err

    return once


@pytest.fixture
def meanwhile(raw, finishing_node, monkeypatch):
    """Let something happen while the first image is corrected."""

    def do(what, *, after=True):
        fake = interfaces.BiasFieldCorrection

        class Node(fake):
            def run(self, cwd):
                mine = self.inputs.input_image == str(raw / T1W)
                made = super().run(cwd) if after else None
                if mine:
                    what()
                return made or super().run(cwd)

        monkeypatch.setattr(interfaces, "BiasFieldCorrection", Node)

    return do


def _table(out: Path) -> list[list[str]]:
    (table,) = (out / "logs").glob("*/images.tsv")
    return [line.split("\t") for line in table.read_text().splitlines()]


def test_an_image_that_is_replaced_during_its_solve_fails(
    run, raw, tmp_path, meanwhile, write_image
):
    meanwhile(lambda: write_image(raw / T1W, seed=9))
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {raw / T1W}: was replaced while it was corrected; expected" in text
    assert not (tmp_path / "out" / CORRECTED).exists()
    assert "sub-02_T1w: corrected" in text


def test_an_image_that_is_only_touched_is_corrected(run, raw, meanwhile):
    meanwhile(lambda: os.utime(raw / T1W, (0, 0)))
    assert run()[0] == Status.OK
    assert "finished already" in run()[1]


def test_a_sidecar_that_is_replaced_during_a_solve(run, raw, meanwhile):
    (raw / "T1w.json").write_text('{"EchoTime": 0.01}')
    meanwhile(lambda: (raw / "T1w.json").write_text('{"EchoTime": 0.02}'))
    status, text = run("--nprocs", "1")
    assert status == Status.SOME_FAILED
    assert f"failed: {raw / 'T1w.json'}: was replaced while it was corrected" in text


def test_figures_are_not_of_two_images(run, raw, tmp_path, write_image):
    assert run()[0] == Status.OK
    write_image(raw / T1W, seed=9)
    status, text = run("--reports-only")
    assert status == Status.SOME_FAILED
    assert f"{raw / T1W}: was replaced since it was corrected; correct it again" in text


def test_an_image_that_fails_after_it_was_corrected_says_what_is_kept(run, raw, tmp_path):
    out = tmp_path / "out"
    assert run(reports=True)[0] == Status.OK
    before = (out / CORRECTED).read_bytes()
    (out / "logs" / "images" / "sub-01" / "anat" / "sub-01_T1w.json").unlink()
    next((out / "logs").glob("*/images.tsv")).unlink()
    (raw / T1W).write_bytes(b"broken")
    (raw / OTHER).with_name("sub-02_T2w.nii.gz").write_bytes(b"broken")
    assert run(reports=True)[0] == Status.SOME_FAILED
    assert (out / CORRECTED).read_bytes() == before
    states = {row[0]: row[1] for row in _table(out)}
    assert states[T1W] == "failed, earlier outputs kept"
    assert states["sub-02/anat/sub-02_T2w.nii.gz"] == "failed"
    assert "outputs of an earlier run are kept; " in (out / "sub-01.html").read_text()
    assert "outputs of an earlier run are kept" not in (out / "sub-02.html").read_text()
    assert run(level="group")[0] == Status.OK
    rows = [line.split("\t")[:3] for line in (out / "group_bias.tsv").read_text().splitlines()]
    assert ["sub-01_T1w", "T1w", "failed, earlier outputs kept"] in rows
    assert ["sub-02_T2w", "T2w", "failed"] in rows


def test_outputs_of_an_input_that_is_gone(run, raw, tmp_path):
    assert run(reports=True)[0] == Status.OK
    (raw / T1W).unlink()
    status, text = run(level="group")
    assert status == Status.OK
    assert f"{raw}: no longer has the input of 1 image, {T1W} among them" in text
    rows = [
        line.split("\t") for line in (tmp_path / "out/group_bias.tsv").read_text().splitlines()
    ]
    assert {row[0]: row[2] for row in rows[1:]} == {
        "sub-01_T1w": "corrected, input is gone",
        "sub-02_T1w": "corrected",
    }


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-02_T1w.json",
        "sub-01/sub-02_T1w.json",
        "sub-01/anat/sub-01_mine-1_T1w.json",
        "mine-1_T1w.json",
        "sub-01/anat/sub-01_acq-a_T1w.json",
        "sub-01/anat/sub-01_odd_T1w.json",
        "sub-01/ses-1_T1w.json",
    ],
)
def test_sidecars_of_others_are_not_merged(run, raw, tmp_path, name):
    (raw / name).write_text('{"Stranger": true}')
    (raw / "sub-01_T1w.json").write_text('{"Own": 1}')
    (raw / "T1w.json").write_text('{"All": 1}')
    assert run()[0] == Status.OK
    sidecar = tmp_path / "out" / CORRECTED.replace(".nii.gz", ".json")
    found = json.loads(sidecar.read_text())
    assert "Stranger" not in found and found["Own"] == found["All"] == 1


@pytest.mark.parametrize("place", ["sub-01", "sub-01/anat"])
@pytest.mark.parametrize("where", ["raw", "elsewhere"])
def test_an_output_folder_that_is_a_link_to_another_place(run, raw, tmp_path, place, where):
    target = raw / place if where == "raw" else tmp_path / where
    target.mkdir(exist_ok=True)
    before = sorted(target.rglob("*"))
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {link}: a link that leads out of the output folder, to {target}" in text
    assert sorted(target.rglob("*")) == before
    assert "sub-02_T1w: corrected" in text


def test_a_link_that_is_made_while_the_run_goes_on(run, raw, tmp_path, meanwhile):
    def link():
        (tmp_path / "out" / "sub-01").symlink_to(raw / "sub-01")

    meanwhile(link)
    before = sorted(raw.rglob("*"))
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {tmp_path / 'out' / 'sub-01'}: a link that leads out" in text
    assert sorted(raw.rglob("*")) == before


def test_the_output_folder_as_a_whole_may_be_a_link(run, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert run()[0] == Status.OK
    assert (tmp_path / "disk" / CORRECTED).is_file()


@pytest.mark.parametrize("name", ["logs", "logs/images", "logs/claims", "logs/skipped"])
def test_a_folder_of_logs_that_is_a_link_to_another_place(run, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    status, text = run()
    assert status == Status.USAGE
    assert f"{link}: a link that leads out of the output folder" in text
    assert not list((tmp_path / "elsewhere").iterdir())


def test_figures_do_not_go_through_a_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / "sub-01" / "figures"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    assert run(reports=True)[0] == Status.SOME_FAILED
    assert not list((tmp_path / "elsewhere").iterdir())


def _sidecar_of_outputs(out: Path) -> dict:
    return json.loads((out / CORRECTED.replace(".nii.gz", ".json")).read_text())


@pytest.mark.parametrize("name", ["T1w.json", "sub-01/anat/sub-01_T1w.json"])
def test_a_sidecar_that_is_a_link_out_of_the_dataset(run, raw, tmp_path, name):
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    (raw / name).symlink_to(secret)
    status, text = run()
    assert status == Status.SOME_FAILED
    assert f"failed: {raw / name}: a link to {secret}, which is outside the dataset" in text
    assert not any("password" in p.read_text() for p in (tmp_path / "out").rglob("*.json"))


def test_links_of_git_annex_and_inside_the_dataset(run, raw, tmp_path):
    store = raw / ".git" / "annex" / "objects" / "aa" / "bb"
    shared = tmp_path / "shared" / "annex" / "objects"
    for folder, name, key in ((store, "T1w.json", "One"), (shared, "sub-01_T1w.json", "Two")):
        folder.mkdir(parents=True)
        (folder / "key").write_text(json.dumps({key: 1}))
        (raw / name).symlink_to(folder / "key")
    (raw / "code").mkdir()
    (raw / "code" / "x.json").write_text('{"Three": 1}')
    (raw / "sub-01" / "anat" / "sub-01_T1w.json").symlink_to("../../code/x.json")
    assert run()[0] == Status.OK
    assert (
        _sidecar_of_outputs(tmp_path / "out").items() >= {"One": 1, "Two": 1, "Three": 1}.items()
    )


def test_a_view_made_of_links_to_another_disk(run, raw, tmp_path):
    disk = tmp_path / "disk" / "study"
    for name in ("sub-01/anat", "sub-02/anat"):
        (disk / name).mkdir(parents=True)
    for name in (T1W, OTHER):
        (raw / name).rename(disk / name)
        (raw / name).symlink_to(disk / name)
    (disk / "T1w.json").write_text('{"One": 1}')
    (raw / "T1w.json").symlink_to(disk / "T1w.json")
    assert run()[0] == Status.OK
    assert _sidecar_of_outputs(tmp_path / "out")["One"] == 1
    (tmp_path / "secret.json").write_text("{}")
    (raw / "sub-01_T1w.json").symlink_to(tmp_path / "secret.json")
    status, text = run("--overwrite")
    assert status == Status.SOME_FAILED and "which is outside the dataset" in text
