"""Compiled programs found again by other processes; nothing half-written in the shared folder."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n4ax_bids.runtime import compilation

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
import jax, numpy as np
from n4ax_bids.runtime import compilation

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


def test_killed_process_leaves_nothing_half_written(tmp_path):
    writing = (
        "import os\n"
        "from n4ax_bids.runtime import compilation\n"
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


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "other bytes": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "a sparse file": lambda path: os.truncate(path, 2**38),  # reading it took all memory
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + b"?" + path.read_bytes()[-8:]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_program_is_compiled_once_more_and_then_kept(tmp_path, damage):
    """As a machine that fails may leave it. JAX itself would keep it, and compile each time."""
    first = finish(start(tmp_path))
    DAMAGES[damage](programs(tmp_path)[0])
    second = finish(start(tmp_path))
    assert (second["cache_misses"], second["cache_hits"]) == (1, first["cache_misses"] - 1)
    assert finish(start(tmp_path))["cache_misses"] == 0
    assert len(programs(tmp_path)) == first["cache_misses"]


def test_what_a_full_disk_has_left_of_a_program_is_not_handed_on(tmp_path):
    writing = (
        "from n4ax_bids.runtime import compilation\n"
        "with compilation.kept():\n"
        "    (compilation._store().private / 'half-cache').write_bytes(b'x' * 10)\n"
        "print('{}')\n"
    )
    finish(start(tmp_path, writing))
    assert not programs(tmp_path)


def test_programs_of_a_version_that_kept_no_digests_go(tmp_path):
    finish(start(tmp_path))
    program = programs(tmp_path)[0]
    program.rename(program.with_name(program.name.partition(".")[2]))
    assert finish(start(tmp_path))["cache_misses"] == 1
    assert all(path.name[16] == "." for path in programs(tmp_path))


def said(process):
    """What a process says besides its counts; it has to end well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out), err


def test_folders_and_programs_are_for_their_user_alone(tmp_path):
    cache = tmp_path / "a" / "cache"
    finish(start(cache))
    for path in (tmp_path / "a", *(tmp_path / "a").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("mode", [0o775, 0o707, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(tmp_path, mode):
    finish(start(tmp_path))
    (kind,) = tmp_path.glob("jax-*")
    kind.chmod(mode)
    counts, err = said(start(tmp_path))
    assert counts["cache_hits"] == 0
    assert err.count("compiled programs are not kept: ") == 1
    assert f"{kind} may be written by other users" in err and f"chmod go-w {kind}" in err
    kind.chmod(0o700)
    assert finish(start(tmp_path))["cache_misses"] == 0


def test_a_folder_below_one_that_others_may_write_is_not_used(tmp_path):
    """They could put another one in its place."""
    above = tmp_path / "project"
    finish(start(above / "mine"))
    above.chmod(0o770)
    counts, err = said(start(above / "mine"))
    assert counts["cache_hits"] == 0 and f"{above} may be written by other users" in err
    above.chmod(0o1777)  # as /tmp: nobody can replace what is another's
    assert finish(start(above / "mine"))["cache_misses"] == 0


def test_one_program_that_others_may_write_is_not_used(tmp_path):
    finish(start(tmp_path))
    program = programs(tmp_path)[0]
    program.chmod(0o664)
    counts, err = said(start(tmp_path))
    assert counts["cache_misses"] == 1
    assert err.count("1 compiled programs are not used") == 1 and str(program) in err


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_program_that_is_no_file_is_not_used(tmp_path, kind):
    finish(start(tmp_path))
    program = programs(tmp_path)[0]
    target = program.rename(tmp_path / "elsewhere")
    program.symlink_to(target) if kind == "link" else os.mkfifo(program)
    assert said(start(tmp_path))[0]["cache_misses"] == 1


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
STRANGER = 54321


@as_root
def test_a_program_of_another_user_is_not_run(tmp_path):
    finish(start(tmp_path))
    program = programs(tmp_path)[0]
    os.chown(program, STRANGER, STRANGER)
    counts, err = said(start(tmp_path))
    assert counts["cache_misses"] == 1 and str(program) in err


@as_root
def test_a_folder_of_another_user_is_used_only_if_that_user_is_named(tmp_path):
    finish(start(tmp_path))
    (kind,) = tmp_path.glob("jax-*")
    for path in (kind, *kind.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    counts, err = said(start(tmp_path))
    assert counts["cache_hits"] == 0
    assert f"{kind} belongs to user {STRANGER}" in err and "N4AX_CACHE_OWNER" in err
    counts, err = said(start(tmp_path, N4AX_CACHE_OWNER=str(STRANGER)))
    assert counts["cache_misses"] == 0 and err == ""
    assert said(start(tmp_path, N4AX_CACHE_OWNER="999"))[0]["cache_hits"] == 0


@as_root
def test_a_folder_of_root_that_others_may_read_serves_them(tmp_path):
    """The way to share programs: of somebody whom its users trust, who alone may write it."""
    finish(start(tmp_path))
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    other = f"import os\nos.geteuid = lambda: {STRANGER}\n"
    counts, err = said(start(tmp_path, other + PROGRAM))
    assert counts["cache_misses"] == 0 and err == ""


def test_jax_s_own_folder_is_not_used_if_others_may_write_it(tmp_path):
    own = tmp_path / "own"
    finish(start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own)))
    own.chmod(0o777)
    counts, err = said(start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own)))
    assert counts["cache_hits"] == 0 and "JAX's folder of compiled programs is not used" in err


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


def test_one_program_that_two_processes_kept_is_whole(tmp_path):
    """Side by side, both compile it; their files may differ, and neither is damaged."""
    made = finish(start(tmp_path))
    for program in programs(tmp_path):
        other = program.read_bytes() + b"\0"
        digest = hashlib.sha256(other).hexdigest()[: program.name.index(".")]
        twin = program.with_name(f"{digest}.{program.name.partition('.')[2]}")
        twin.write_bytes(other)
        twin.chmod(0o600)
        os.utime(twin, (1, 1))  # the newer one is taken
    seen = finish(start(tmp_path))
    assert (seen["cache_misses"], seen["cache_hits"]) == (0, made["cache_misses"])
