"""Who is at work on a folder, and what is left of those who were killed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from n4ax_bids.app import presence


@pytest.fixture
def here(tmp_path):
    with presence.at_work(tmp_path / "out") as (found, _):
        yield found


def ended_process() -> str:
    """The token of a process of this machine that has ended."""
    code = "from n4ax_bids.app import presence; print(presence._token())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def elsewhere(token: str) -> str:
    """The same token on another machine."""
    return "0" * 8 + token[8:]


def age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_run_is_there_while_it_goes_on(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    with presence.at_work(out, work) as (here, folder):
        assert here.folder.parent == out and folder.parent == work
        assert here.folder.is_dir() and folder.is_dir()
        with presence.at_work(out) as (other, _):
            assert here.lives(other.token) and other.lives(here.token)
        assert not here.lives(other.token)
    assert list(out.iterdir()) == list(work.iterdir()) == []


def test_a_process_of_this_machine_has_ended_at_once(here):
    token = ended_process()
    assert not here.lives(token)
    folder = here.folder.with_name(presence.PREFIX + token)
    folder.mkdir()
    assert not here.lives(token)


def test_the_number_of_a_process_that_another_one_has_now(here):
    machine, pid, start, rest = here.token.split("-")
    token = f"{machine}-{pid}-{int(start) - 1}-{rest}"
    here.folder.with_name(presence.PREFIX + token).mkdir()
    assert not here.lives(token)


def test_a_process_that_has_been_killed_and_nobody_has_noticed():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert presence._start_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, still
    assert Path(f"/proc/{process.pid}").exists()
    assert presence._start_of(process.pid) is None
    process.wait()


def test_another_machine_counts_by_its_silence(here):
    token = elsewhere(here.token)
    folder = here.folder.with_name(presence.PREFIX + token)
    folder.mkdir()
    assert here.lives(token)
    age(folder, presence.STALE - 60)
    assert here.lives(token)
    age(folder, presence.STALE)
    assert not here.lives(token)


def test_signs_of_life(tmp_path, monkeypatch):
    """The folder is touched, and made again where another machine has removed it."""
    monkeypatch.setattr(presence, "HEARTBEAT", 0.01)
    with presence.at_work(tmp_path) as (here, _):
        age(here.folder, 1000)
        before = here.folder.stat().st_mtime
        while here.folder.stat().st_mtime == before:
            pass
        here.folder.rmdir()
        while not here.folder.is_dir():
            pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_have_left_goes_and_nothing_else(here):
    out = here.folder.parent
    dead, machine = ended_process(), elsewhere(here.token)
    kept, gone = [], []
    for token, ends in ((dead, True), (here.token, False), (machine, False)):
        folder = out / f"{presence.PREFIX}{token}"
        folder.mkdir(exist_ok=True)
        (folder / "unfinished.nii").touch()
        hidden = out / "sub-01" / "anat" / f".sub-01_T1w.nii.gz.{token}"
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.touch()
        (gone if ends else kept).extend([folder, hidden])
    kept += [out / ".bidsignore", out / "sub-01" / ".hidden", out / "sub-01" / f"x.{dead}"]
    for path in kept[-3:]:
        path.touch()
    presence.remove_leftovers(out, here.folder)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


def test_the_tree_is_not_walked_where_nobody_was_killed(here, monkeypatch):
    monkeypatch.setattr(os, "walk", lambda *_: pytest.fail("walked"))
    presence.remove_leftovers(here.folder.parent, here.folder)


def test_everything_means_other_machines_too(here):
    out = here.folder.parent
    other = out / f"{presence.PREFIX}{elsewhere(here.token)}"
    other.mkdir()
    presence.remove_leftovers(out, here.folder)
    assert other.exists()
    presence.remove_leftovers(out, here.folder, everything=True)
    assert not other.exists() and here.folder.exists()


def test_a_hidden_name_tells_its_process(tmp_path):
    name = presence.hidden(tmp_path / "a.nii.gz").name
    assert presence._HIDDEN.fullmatch(name)
    assert str(os.getpid()) in name
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        other = pool.apply(presence.hidden, (tmp_path / "a.nii.gz",)).name
    assert presence._HIDDEN.fullmatch(other)["pid"] != presence._HIDDEN.fullmatch(name)["pid"]
