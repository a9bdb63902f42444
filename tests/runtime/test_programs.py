"""Programs of others end when they are wanted to, and when whoever started them is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from n4ax_bids.runtime import programs

LONG = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
NESTED = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
    "time.sleep(600)\n"
)


def python(code, folder, **given):
    return programs.run([sys.executable, "-c", code], folder, **given)


@pytest.mark.parametrize(
    ("code", "status", "how"),
    [
        ("pass", 0, "exit status 0"),
        ("raise SystemExit(7)", 7, "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", 137, "signal 9; out of memory?"),
        ("import os; os.kill(os.getpid(), 15)", 143, "signal 15"),
    ],
)
def test_how_it_has_ended(tmp_path, code, status, how):
    ended = python(code, tmp_path)
    assert (ended.status, ended.how) == (status, how)


def test_both_streams_are_kept_and_of_many_lines_the_last(tmp_path):
    code = (
        "import sys\nfor n in range(5000): print(n, 'x' * 80)\n"
        "sys.stdout.flush()\nprint('10 %\\r20 %', file=sys.stderr)\nprint()\n"
        "sys.stderr.buffer.write(b'\\xff end\\n')"
    )
    said = python(code, tmp_path).said
    assert len(said) == programs.LINES
    assert said[-2:] == ("20 %", "\ufffd end") and said[-3].startswith("4999 ")


def test_it_runs_in_its_folder_with_its_variables_and_no_input(tmp_path):
    code = "import os, sys; print(os.getcwd(), os.environ['A'], repr(sys.stdin.read()))"
    said = python(code, tmp_path, environment=os.environ | {"A": "b"}).said
    assert said == (f"{os.path.realpath(tmp_path)} b ''",)


def test_what_cannot_be_started(tmp_path):
    path = tmp_path / "program"
    path.write_text("")
    ended = programs.run([path], tmp_path)
    assert ended.status == 1 and ended.said == (f"{path}: Permission denied",)


@pytest.mark.parametrize("code", [NESTED, LONG + NESTED], ids=["ends", "ignores SIGTERM"])
def test_a_run_that_is_to_end_ends_it_with_all_that_it_has_started(
    tmp_path, monkeypatch, code, gone, wait_for
):
    monkeypatch.setattr(programs, "KEEPER", programs.KEEPER.replace("wait(5.0)", "wait(0.3)"))
    assert "wait(0.3)" in programs.KEEPER
    with pytest.raises(KeyboardInterrupt):
        python(code, tmp_path, stopped=(tmp_path / "pids").is_file)
    pids = wait_for(tmp_path / "pids")
    assert len(pids) == 2 and all(map(gone, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_starter_is_killed(tmp_path, number, gone, wait_for):
    code = (
        "import sys; from pathlib import Path; from n4ax_bids.runtime import programs\n"
        "programs.run([sys.executable, '-c', sys.argv[2]], Path(sys.argv[1]))"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), NESTED])
    pids = wait_for(tmp_path / "pids")
    os.kill(starter.pid, number)
    assert starter.wait() == -number
    assert all(map(gone, pids))


def test_several_at_once_end_each_for_itself(tmp_path, gone, wait_for):
    """The pipe of one is not held open by another that was started later."""
    folders = [tmp_path / name for name in "ab"]
    stops, ended = [threading.Event() for _ in folders], []

    def work(folder, stop):
        with pytest.raises(KeyboardInterrupt):
            python(NESTED, folder, stopped=stop.is_set)
        ended.append(folder.name)

    threads = []
    for folder, stop in zip(folders, stops, strict=True):
        folder.mkdir()
        threads.append(threading.Thread(target=work, args=(folder, stop)))
        threads[-1].start()
        wait_for(folder / "pids")
    for thread, stop, folder in zip(threads, stops, folders, strict=True):
        stop.set()
        thread.join(20)
        assert ended[-1] == folder.name and all(map(gone, wait_for(folder / "pids")))
