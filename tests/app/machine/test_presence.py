"""Which runs are working in a folder, and what killed runs have left there."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from n4ax_bids.app.machine import expiry, presence


@pytest.fixture
def here(tmp_path):
    with presence.at_work(tmp_path / "out") as (found, _):
        yield found


def ended_process() -> str:
    """The token of a process of this machine that has ended."""
    code = "from n4ax_bids.app.machine import presence; print(presence._token())"
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
    assert expiry.start_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, still
    assert Path(f"/proc/{process.pid}").exists()
    assert expiry.start_of(process.pid) is None
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
    """The folder is touched, and made again if another machine has removed it."""
    monkeypatch.setattr(presence, "HEARTBEAT", 0.01)
    with presence.at_work(tmp_path, what="this") as (here, _):
        age(here.folder, 1000)
        before = here.folder.stat().st_mtime
        while here.folder.stat().st_mtime == before:
            pass
        shutil.rmtree(here.folder)
        while presence.marker(here.folder) is None:
            pass
        assert presence.marker(here.folder)["what"] == "this"
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_have_left_goes_and_nothing_else(here):
    out = here.folder.parent
    dead, machine = ended_process(), elsewhere(here.token)
    kept, gone = [], []
    for token, ends in ((dead, True), (here.token, False), (machine, False)):
        folder = out / f"{presence.PREFIX}{token}"
        folder.mkdir(exist_ok=True)
        presence._mark(folder, {})
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


NOT_OURS = [
    ".n4ax_bids-mine",
    ".n4ax_bids-",
    ".n4ax_bids-{token}.bak",
    ".n4ax_bids-{token}",  # without a marker
    ".n4ax_bids-0000000g-1-1-00000000",
]


@pytest.mark.parametrize("name", NOT_OURS)
@pytest.mark.parametrize("everything", [False, True])
def test_a_folder_of_the_users_own_is_never_removed(here, name, everything):
    """It stays at any age, even if everything that is left over is removed."""
    out = here.folder.parent
    own = out / name.format(token=ended_process())
    own.mkdir()
    (own / "thesis.tex").touch()
    linked = out / f"{presence.PREFIX}{ended_process()}"
    linked.symlink_to(own)
    os.utime(own, (0, 0))
    presence.remove_leftovers(out, here.folder, everything=everything)
    assert (own / "thesis.tex").exists() and linked.is_symlink()


def test_a_marker_of_another_folder_does_not_make_a_folder_ours(here):
    own = here.folder.with_name(f"{presence.PREFIX}{ended_process()}")
    shutil.copytree(here.folder, own)
    (own / "thesis.tex").touch()
    presence.remove_leftovers(here.folder.parent, here.folder)
    assert (own / "thesis.tex").exists()


@pytest.mark.parametrize("part", [(), (".run.json.01234567",)])
def test_a_run_that_was_killed_before_it_had_marked_its_folder(here, part):
    folder = here.folder.with_name(f"{presence.PREFIX}{ended_process()}")
    folder.mkdir()
    for name in part:
        (folder / name).touch()
    presence.remove_leftovers(here.folder.parent, here.folder)
    assert not folder.exists()


def test_a_marker_that_is_a_pipe_or_a_bomb_is_none(here, tmp_path):
    folder = here.folder.with_name(f"{presence.PREFIX}{elsewhere(here.token)}")
    folder.mkdir()
    os.mkfifo(folder / presence.MARKER)
    assert presence.marker(folder) is None
    (folder / presence.MARKER).unlink()
    (folder / presence.MARKER).write_text("[" * 100_000)
    assert presence.marker(folder) is None
    assert here.others() == {}


def test_a_dead_runs_folder_from_the_future(here, monkeypatch):
    """After a wrong clock or an archive, its silence is counted from the first look on."""
    token = elsewhere(here.token)
    folder = here.folder.with_name(presence.PREFIX + token)
    folder.mkdir()
    age(folder, -1e8)
    assert here.lives(token)
    assert folder.stat().st_mtime <= here.folder.stat().st_mtime + 1
    age(folder, presence.STALE + 60)
    assert not here.lives(token)


def test_a_dead_runs_folder_from_the_future_that_is_another_users(here, monkeypatch):
    """Its time cannot be set, so this process measures how long it does not change."""
    token = elsewhere(here.token)
    folder = here.folder.with_name(presence.PREFIX + token)
    folder.mkdir()
    age(folder, -1e8)
    utime, clock = os.utime, [1000.0]

    def forbidden(path, *args, **kwargs):
        if Path(path) == folder:
            raise PermissionError(1, "not yours")
        return utime(path, *args, **kwargs)

    monkeypatch.setattr(os, "utime", forbidden)
    monkeypatch.setattr(expiry.time, "monotonic", lambda: clock[0])
    assert here.lives(token)
    clock[0] += presence.STALE - 1
    assert here.lives(token)
    clock[0] += 2
    assert not here.lives(token)
    utime(folder, (2e9, 2e9))  # a sign of life, after all
    assert here.lives(token)


@pytest.fixture
def hidepid(tmp_path, monkeypatch):
    """A process table that hides the processes of others, as with hidepid."""
    empty = tmp_path / "proc"
    empty.mkdir()
    monkeypatch.setattr(expiry, "PROCESSES", empty)


@pytest.mark.usefixtures("hidepid")
def test_a_process_that_cannot_be_seen_is_not_dead(here, monkeypatch):
    """It belongs to another user and may be another process by now; so its silence decides."""

    def forbidden(*_):
        raise PermissionError(1, "not yours")

    monkeypatch.setattr(os, "kill", forbidden)
    machine, _, _, rest = here.token.split("-")
    token = f"{machine}-{os.getppid()}-1-{rest}"
    folder = here.folder.with_name(presence.PREFIX + token)
    folder.mkdir()
    assert here.lives(token)
    age(folder, presence.STALE + 60)
    assert not here.lives(token)


@pytest.mark.usefixtures("hidepid")
def test_a_process_that_has_ended_is_dead_also_where_none_can_be_seen(here):
    token = ended_process()
    here.folder.with_name(presence.PREFIX + token).mkdir()
    assert not here.lives(token)


def test_a_token_with_impossible_numbers_is_no_fault(here):
    token = f"{expiry.machine()}-{10**30}-5-00000000"
    here.folder.with_name(presence.PREFIX + token).mkdir()
    assert not here.lives(token)
    assert not here.lives("../../etc") and not here.lives("")


def test_an_unfinished_file_of_another_machine_stays_while_a_run_goes_on_there(here):
    """Writing one file may take longer than the time that is allowed for silence."""
    out, other = here.folder.parent, elsewhere(here.token)
    here.folder.with_name(f"{presence.PREFIX}{ended_process()}").mkdir()
    alive = here.folder.with_name(f"{presence.PREFIX}{other}")
    alive.mkdir()
    slow = out / f".a.nii.gz.{other}"
    slow.touch()
    age(slow, 10 * presence.STALE)
    presence.remove_leftovers(out, here.folder)
    assert slow.exists()
    age(alive, 10 * presence.STALE)
    presence.remove_leftovers(out, here.folder)
    assert not slow.exists()
