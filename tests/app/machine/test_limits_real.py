"""How much memory is left to real processes, under `ulimit` and in a control group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MB = 2**20


def test_ulimit_of_a_real_process():
    code = "from n4ax_bids.app.machine.limits import all_memory, free_memory; print(free_memory())"
    words = ["sh", "-c", 'ulimit -v 2000000 && exec "$0" -c "$1"', sys.executable, code]
    found = int(subprocess.check_output(words, text=True))
    assert 0 < found < 2_000_000 * 1024


def own_group() -> Path | None:
    """A folder of version 1 or 2 in which this process may make groups, if there is one."""
    for place in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        for name in ("memory.limit_in_bytes", "memory.max"):
            folder = Path(place, "n4ax_bids-test")
            try:
                folder.mkdir(exist_ok=True)
                if (folder / name).exists():
                    return folder
                folder.rmdir()
            except OSError:
                continue
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make control groups")
def test_a_real_group():
    folder = own_group()
    if folder is None:
        pytest.skip("no control groups here that limit memory")
    name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
    try:
        (folder / name).write_text(str(300 * MB))
        code = "from n4ax_bids.app.machine.limits import free_memory; print(free_memory())"
        script = 'echo $$ > "$2/cgroup.procs" && exec "$0" -c "$1"'
        words = ["sh", "-c", script, sys.executable, code, str(folder)]
        assert 100 * MB < int(subprocess.check_output(words, text=True)) <= 300 * MB
    finally:
        folder.rmdir()
