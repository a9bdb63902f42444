"""Runs that share an output folder at the same time must have the same settings."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.machine import presence
from n4ax_bids.app.outputs import agreement, source
from n4ax_bids.app.outputs.agreement import Differs, settle
from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
TERMS = {"version": "1", "settings": {"desc": "a", "options": {"shrink": 4}}}
TERMS["source"] = {"name": "x", "version": "y", "doi": "", "authors": [], "is_named": True}


def changed(**settings):
    return TERMS | {"settings": TERMS["settings"] | settings}


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (TERMS, None),
        (None, None),
        (TERMS | {"version": "2"}, "version 2, here 1"),
        (changed(desc="b"), "desc is b, here a"),
        (changed(options={"shrink": 2}), "shrink is 2, here 4"),
        (TERMS | {"source": TERMS["source"] | {"name": "z", "version": "w"}}, "dataset is 'z'"),
        (TERMS | {"source": TERMS["source"] | {"version": "edited"}}, None),
        ({"version": "1"}, "cannot be read (KeyError: 'settings')"),
        ([7], "cannot be read (TypeError"),
    ],
)
def test_in_what_two_runs_differ(theirs, why):
    found = agreement.difference(theirs, TERMS)
    assert found == why or why in found


def test_a_second_run_with_the_same_settings_joins_and_another_does_not(tmp_path):
    with presence.at_work(tmp_path) as (one, _), presence.at_work(tmp_path) as (two, _):
        settle(one, TERMS)
        settle(two, TERMS)
        with presence.at_work(tmp_path) as (three, _), pytest.raises(Differs, match="desc is a"):
            settle(three, changed(desc="b"))


def test_a_run_that_was_killed_is_in_nobodys_way(tmp_path):
    code = "from n4ax_bids.app.machine import presence; print(presence._token())"
    token = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    with presence.at_work(tmp_path) as (here, _):
        folder = here.folder.with_name(presence.PREFIX + token)
        folder.mkdir()
        presence._mark(folder, {"terms": changed(desc="b"), "state": agreement.AT_WORK})
        settle(here, TERMS)


@pytest.mark.parametrize("settings", [("a", "a"), ("a", "b")])
def test_of_two_that_start_together_one_goes_on(tmp_path, settings):
    """Both continue if their settings are the same. The first stays until both have decided."""
    for number in range(20):
        out, start, went_on = tmp_path / str(number), threading.Barrier(2), []
        decided = [threading.Event(), threading.Event()]

        def run(which, out=out, start=start, went_on=went_on, decided=decided):
            with presence.at_work(out) as (here, _):
                start.wait()
                try:
                    settle(here, changed(desc=settings[which]), pause=lambda _: None)
                    went_on.append(which)
                except Differs:
                    pass
                decided[which].set()
                if which in went_on:
                    decided[1 - which].wait(60)

        threads = [threading.Thread(target=run, args=(which,)) for which in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(went_on) == (2 if settings[0] == settings[1] else 1)


def test_one_that_waits_for_ever_gives_up(tmp_path):
    with presence.at_work(tmp_path) as (one, _), presence.at_work(tmp_path) as (two, _):
        first, second = sorted((one, two), key=lambda each: each.token)
        second.tell(terms=changed(desc="b"), state=agreement.LOOKING)
        waits = []
        with pytest.raises(Differs):
            settle(first, TERMS, pause=waits.append)
        assert sum(waits) > agreement.PATIENCE


def test_a_run_at_work_is_waited_for_by_nobody(tmp_path):
    """Of two that are looking, the lower token waits; if the other starts to work, it ends."""
    with presence.at_work(tmp_path) as (one, _), presence.at_work(tmp_path) as (two, _):
        first, second = sorted((one, two), key=lambda each: each.token)
        settle(second, changed(desc="b"))
        waits = []
        with pytest.raises(Differs, match="desc is b"):
            settle(first, TERMS, pause=waits.append)
        assert waits == []


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", "--no-reports", *flags])


@pytest.mark.usefixtures("fake_node")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--desc", "other"], "desc is biascorr, here other"),
        (["--shrink-factor", "2"], "shrink_factor is 4, here 2"),
        (["--mask", "none"], "mask is auto, here none"),
    ],
)
def test_a_run_with_other_options_is_refused_while_one_goes_on(
    make_dataset, tmp_path, capsys, flags, words
):
    root, out = make_dataset(NAME), tmp_path / "out"
    raw = {"Name": "tiny"}
    with presence.at_work(out) as (other, _):
        settle(other, agreement.terms(Request(root, out), raw))
        assert main(root, out, *flags) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert words in line and str(out) in line and f"process {other.facts['pid']}" in line
        assert not (out / "dataset_description.json").exists()
        assert main(root, out) == 0  # the same settings
    shutil.rmtree(out)
    assert main(root, out, *flags) == 0  # nobody is there any more


@pytest.fixture
def two_studies(write_image, tmp_path):
    """Two datasets with the same description and names, but scans of different people."""
    roots = []
    for seed in (1, 2):
        root = tmp_path / f"study-{seed}"
        write_image(root / NAME, seed=seed)
        (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
        roots.append(root)
    return roots


def test_another_study_with_the_same_description_is_refused_while_a_run_goes_on(
    fake_node, two_studies, tmp_path, capsys
):
    """Nothing has been written yet, so the outputs cannot show from which study they are."""
    out, (one, two) = tmp_path / "out", two_studies
    request = Request(one, out)
    with presence.at_work(out) as (other, _):
        jobs = dataset.select(request).jobs
        settle(other, agreement.terms(request, {"Name": "x"}, jobs), bids_dir=one)
        assert main(two, out) == 2
        assert f"its dataset has another {NAME}" in capsys.readouterr().err.splitlines()[-1]
        assert main(one, out) == 0


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({}, None),
        ({"sub-02/anat/sub-02_T1w.nii.gz": "0"}, None),  # a part that is not here
        ({NAME: "0"}, NAME),
        ({f"../study-1/{NAME}": "0", f"/study-1/{NAME}": "0"}, None),
    ],
)
def test_images_that_another_run_names(two_studies, images, expected):
    assert source.why_other(images, two_studies[0]) == expected


def test_a_sample_is_spread_over_the_images(two_studies):
    image = two_studies[0] / NAME
    found = source.sample([(f"{number:03}", image) for number in range(200)])
    assert len(found) <= source.MOST and min(found) == "000" and max(found) > "190"
    assert source.why_other(source.sample([(NAME, image)]), two_studies[0]) is None
    assert source.why_other(source.sample([(NAME, image)]), two_studies[1]) == NAME
    assert source.sample([]) == source.sample([("x", image.with_name("x"))]) == {}


def test_what_another_run_has_written_since_the_first_look_is_seen(
    fake_node, make_dataset, tmp_path, capsys, monkeypatch
):
    """It used another label while the folder was empty, and has ended already."""
    from n4ax_bids.app.outputs import places

    root, out = make_dataset(NAME), tmp_path / "out"
    at_work = places.at_work

    def late(request):
        with monkeypatch.context() as other:
            other.setattr(places, "at_work", at_work)
            assert main(root, out, "--desc", "first") == 0
        return at_work(request)

    monkeypatch.setattr(places, "at_work", late)
    assert main(root, out, "--desc", "second") == 2
    assert "--desc first" in capsys.readouterr().err.splitlines()[-1]
    assert not list(out.rglob("*second*"))


def test_reports_are_drawn_beside_any_run(fake_node, make_dataset, tmp_path):
    root, out = make_dataset(NAME), tmp_path / "out"
    assert main(root, out) == 0
    with ExitStack() as stack:
        other, _ = stack.enter_context(presence.at_work(out))
        settle(other, TERMS)
        words = [str(root), str(out), "participant", "--reports-only"]
        assert cli.main(words) in (0, 1)  # the fake node's image cannot be drawn
