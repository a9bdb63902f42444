"""Compiled programs found again by other processes; nothing half-written in the shared folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
