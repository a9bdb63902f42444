"""Compiled programs found again by other processes; nothing half-written in the shared folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n4ax_bids import compilation

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
import jax, numpy as np
from n4ax_bids import compilation

counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rsplit("/", 1)[-1]
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(count)

with compilation.kept():
    for n in range(3, 9):
        jax.block_until_ready(jax.jit(lambda x: (x @ x.T + n).sum())(np.ones((n, n), np.float32)))
print(json.dumps(counts))
"""


def start(folder, program=PROGRAM, **environment):
    chosen = {} if folder is None else {"N4AX_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **chosen, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def programs(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.name.endswith("-cache"))


def test_second_process_compiles_nothing(tmp_path):
    first, second = (finish(start(tmp_path)) for _ in range(2))
    assert first["cache_misses"] >= 6 and first["cache_hits"] == 0
    assert second["cache_misses"] == 0 and second["cache_hits"] == first["cache_misses"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core, one number of threads")
def test_programs_for_one_thread_are_not_those_for_several(tmp_path):
    """XLA cuts a program for its threads, and JAX's key for it does not tell how many."""
    single = "from n4ax_bids import device; device.start(1)\n" + PROGRAM
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
from n4ax_bids import compilation

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
            "PYTHONPATH": str(Path(compilation.__file__).parents[1]),
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
from n4ax_bids import compilation

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


def test_killed_process_leaves_nothing_half_written(tmp_path):
    writing = (
        "import os\n"
        "from n4ax_bids import compilation\n"
        "with compilation.kept():\n"
        "    private = compilation._store().private\n"
        "    (private / 'half-cache').write_bytes(b'x' * 10)\n"
        "    print('ready', flush=True)\n"
        "    import time; time.sleep(60)\n"
    )
    process = start(tmp_path, writing)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    shared = [path for path in programs(tmp_path) if path.parent.parent == tmp_path]
    assert shared == []
    finish(start(tmp_path))


def test_folders_of_killed_processes_are_removed_in_time(tmp_path):
    finish(start(tmp_path))
    (running,) = tmp_path.glob("*/running")
    old, young = running / "1-old", running / "2-young"
    for folder in (old, young):
        folder.mkdir()
    past = time.time() - 3 * 24 * 3600
    os.utime(old, (past, past))
    finish(start(tmp_path))
    assert not old.exists() and young.exists()


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


def test_a_program_that_never_reached_the_disk_goes(tmp_path):
    """A machine that fails leaves an empty file under the final name; JAX would keep it."""
    (tmp_path / "whole").write_bytes(b"program")
    (tmp_path / "empty").touch()
    assert compilation._newest(tmp_path) == [tmp_path / "whole"]
    assert not (tmp_path / "empty").exists()
