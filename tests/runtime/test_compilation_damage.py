"""Compiled programs after processes were killed, disks full and files damaged."""

import hashlib
import os
import signal
import time

import pytest

from tests.runtime.compiling import finish, programs, start


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
