"""Compiled programs found again by other processes, in the folder that is asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from n4ax_bids.runtime import compilation
from tests.runtime.compiling import PROGRAM, finish, programs, start


def test_second_process_compiles_nothing(tmp_path):
    first, second = (finish(start(tmp_path)) for _ in range(2))
    assert first["cache_misses"] >= 6 and first["cache_hits"] == 0
    assert second["cache_misses"] == 0 and second["cache_hits"] == first["cache_misses"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core, one number of threads")
def test_programs_for_one_thread_are_not_those_for_several(tmp_path):
    """XLA cuts a program for its threads, and JAX's key for it does not tell how many."""
    single = "from n4ax_bids.runtime import device; device.start(1)\n" + PROGRAM
    assert finish(start(tmp_path, single))["cache_misses"] >= 6
    assert finish(start(tmp_path))["cache_hits"] == 0
    assert finish(start(tmp_path, single))["cache_misses"] == 0


def test_ten_processes_at_once_leave_whole_programs(tmp_path):
    for process in [start(tmp_path) for _ in range(10)]:
        finish(process)
    # A damaged entry would be a warning, which is an error here, and a miss.
    assert finish(start(tmp_path))["cache_misses"] == 0
    assert not list(tmp_path.glob("*/running/*"))


WORKERS = """
import json, multiprocessing, sys
from n4ax_bids.runtime import compilation

def work(n):
    import jax, numpy as np
    with compilation.kept():
        jax.block_until_ready(jax.jit(lambda x: (x @ x.T + n).sum())(np.ones((n, n), np.float32)))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, args=(n,)) for n in (3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print([worker.exitcode for worker in workers])
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_nipype_leave_programs_and_no_folder(tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(program), method],
        env=os.environ
        | {
            "N4AX_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": str(Path(compilation.__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "[0, 0]\n", done.stderr
    assert programs(tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*/running/*"))


THREADS = """
import json, threading, time
import jax, numpy as np
from n4ax_bids.runtime import compilation

n_stores = 0
class Slow(compilation._Store):
    def __init__(self, shared):
        global n_stores
        n_stores += 1
        time.sleep(0.5)
        super().__init__(shared)
compilation._Store = Slow

def work():
    with compilation.kept():
        pass

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(n_stores))
"""


def test_threads_that_start_together_share_one_folder(tmp_path):
    assert finish(start(tmp_path, THREADS)) == 1
    assert not list(tmp_path.glob("*/running/*"))


@pytest.mark.parametrize("word", ("off", "none", ""))
def test_can_be_switched_off(tmp_path, word):
    found = finish(start(word, XDG_CACHE_HOME=str(tmp_path)))
    assert found["cache_hits"] == 0
    assert not programs(tmp_path)


def test_default_is_the_users_cache_folder(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "N4AX_CACHE_DIR"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert json.loads(process.stdout)["cache_misses"] >= 6
    assert programs(tmp_path / "n4ax_bids")


def test_jax_s_own_setting_goes_first(tmp_path):
    own = tmp_path / "own"
    finish(start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own)))
    assert not programs(tmp_path / "ours")


def test_folder_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert finish(start(blocked))["cache_hits"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system that only root can make")
def test_a_folder_that_may_only_be_read_is_used(tmp_path):
    """A cache that others have filled, mounted read-only into a container."""
    assert finish(start(tmp_path))["cache_misses"] >= 6
    before = programs(tmp_path)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "-", tmp_path, sys.executable, PROGRAM],
        env={**os.environ, "N4AX_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cache_misses"] == 0
    assert programs(tmp_path) == before


@pytest.mark.parametrize("name", ["N4AX_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_relative_folder_is_not_used(tmp_path, name):
    """The current folder may be the work folder of a run, which goes with all that is in it."""
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + PROGRAM
    environment = {k: v for k, v in os.environ.items() if k != "N4AX_CACHE_DIR"}
    environment |= {name: "relative", "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert not (tmp_path / "relative").exists()
    if name == "N4AX_CACHE_DIR":
        assert "expected an absolute path" in done.stderr and not programs(tmp_path)
    else:  # as its specification says
        assert programs(tmp_path / "home" / ".cache" / "n4ax_bids")


def test_a_relative_folder_is_that_of_the_command_s_beginning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, expected in (("x/y", str(tmp_path / "x/y")), ("off", "off"), ("/z", "/z")):
        monkeypatch.setenv("N4AX_CACHE_DIR", value)
        compilation.keep_place()
        assert os.environ["N4AX_CACHE_DIR"] == expected
