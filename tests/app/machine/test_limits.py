"""How much memory is left, tested with replacements for /proc and /sys."""

from __future__ import annotations

import os
import resource

import pytest

from n4ax_bids.app.machine.limits import all_memory, free_memory

GB, MB = 10**9, 2**20
FREE = resource.RLIM_INFINITY
PAGE = os.sysconf("SC_PAGE_SIZE")

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
FIRST = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
CPU = "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"


@pytest.fixture
def machine(tmp_path):
    """Make /proc and /sys of a machine with 100 GB; groups are folder → file → content."""

    def make(groups=None, *, cgroup="", mounts="", available=100 * GB, statm="0 0 0 0 0 0 0"):
        total, left = 200 * GB // 1024, available // 1024
        files = {
            "proc/meminfo": f"MemTotal: {total} kB\nMemAvailable: {left} kB",
            "proc/self/cgroup": cgroup,
            "proc/self/mountinfo": mounts,
            "proc/self/statm": statm,
        }
        for folder, facts in (groups or {}).items():
            files |= {f"{folder}/{name}": text for name, text in facts.items()}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


def free(root, environ=None, rlimits=None):
    limits = {resource.RLIMIT_AS: FREE, resource.RLIMIT_DATA: FREE} | (rlimits or {})
    return free_memory(root, environ or {}, lambda which: (limits[which], FREE))


def second(limit, used=0, files=0, high="max"):
    """A group of version 2."""
    return {
        "memory.max": limit,
        "memory.high": high,
        "memory.current": used,
        "memory.stat": f"anon 5\ninactive_file {files}",
    }


def first(limit, used=0, files=0, above=2**63 - 4096):
    """A group of version 1."""
    stat = f"total_inactive_file {files}\nhierarchical_memory_limit {above}"
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": used,
        "memory.stat": stat,
    }


TOP = "sys/fs/cgroup"
JOB = "slurm/job_7/step_0"
NO_LIMIT = 2**63 - 4096


def test_a_machine_without_groups(machine):
    assert free(machine()) == pytest.approx(100 * GB, abs=1024)


def test_a_machine_that_tells_nothing(tmp_path):
    assert free(tmp_path) == PAGE * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("groups", "cgroup", "mounts", "expected"),
    [
        pytest.param(
            {TOP: second(8 * GB, 3 * GB)}, "0::/", UNIFIED, 5 * GB, id="v2 with a namespace"
        ),
        pytest.param(
            {f"{TOP}/{JOB}": second(8 * GB, 3 * GB)},
            f"0::/{JOB}",
            UNIFIED,
            5 * GB,
            id="v2 without",
        ),
        pytest.param(
            {
                f"{TOP}/slurm": second("max", 90 * GB),
                f"{TOP}/slurm/job_7": second(8 * GB, 2 * GB),
                f"{TOP}/{JOB}": second("max", 1 * GB),
            },
            f"0::/{JOB}",
            UNIFIED,
            6 * GB,
            id="v2, a limit above",
        ),
        pytest.param(
            {f"{TOP}/{JOB}": second(8 * GB, 7 * GB, files=4 * GB)},
            f"0::/{JOB}",
            UNIFIED,
            5 * GB,
            id="v2, memory that keeps files is free",
        ),
        pytest.param(
            {f"{TOP}/{JOB}": second("max", 1 * GB, high=4 * GB)},
            f"0::/{JOB}",
            UNIFIED,
            3 * GB,
            id="v2, slowed down beyond",
        ),
        pytest.param(
            {f"{TOP}/a b": second(8 * GB, 3 * GB)},
            "0::/",
            UNIFIED.replace(" /sys/fs/cgroup ", " /sys/fs/cgroup/a\\040b "),
            5 * GB,
            id="v2, a blank in the place",
        ),
        pytest.param(
            {f"{TOP}/memory/{JOB}": first(8 * GB, 3 * GB)},
            f"4:memory:/{JOB}\n1:cpu:/",
            f"{CPU}\n{FIRST}",
            5 * GB,
            id="v1",
        ),
        pytest.param(
            {
                f"{TOP}/memory/slurm/job_7": first(8 * GB, 3 * GB),
                f"{TOP}/memory/{JOB}": first(NO_LIMIT, 1 * GB),
            },
            f"4:cpu,memory:/{JOB}",
            FIRST,
            5 * GB,
            id="v1, a limit above",
        ),
        pytest.param(
            {f"{TOP}/memory": first(8 * GB, 3 * GB, files=1 * GB)},
            "4:memory:/docker/0123",
            FIRST.replace(" / ", " /docker/0123 ", 1),
            6 * GB,
            id="v1 in a container that sees its own group",
        ),
        pytest.param(
            {f"{TOP}/memory": first(8 * GB, 3 * GB)},
            "4:memory:/docker/0123",
            FIRST,
            5 * GB,
            id="v1 in a container that is told its name on the host",
        ),
        pytest.param(
            {f"{TOP}/memory/{JOB}": first(NO_LIMIT, 1 * GB, above=4 * GB)},
            f"4:memory:/{JOB}",
            FIRST,
            3 * GB,
            id="v1, a limit above that is not seen",
        ),
        pytest.param(
            {f"{TOP}/memory/{JOB}": first(8 * GB, 9 * GB)},
            f"4:memory:/{JOB}",
            FIRST,
            0,
            id="more used than there is",
        ),
        pytest.param(
            {f"{TOP}/memory/{JOB}": first(8 * GB, 3 * GB), f"{TOP}/unified": {"x": ""}},
            f"4:memory:/{JOB}\n0::/{JOB}",
            f"{FIRST}\n{UNIFIED.replace('cgroup ', 'cgroup/unified ', 1)}",
            5 * GB,
            id="both",
        ),
        pytest.param(
            {f"{TOP}/{JOB}": {"memory.max": "?", "memory.current": "?"}},
            f"0::/{JOB}\nnonsense\n4:memory",
            f"{UNIFIED}\nnonsense - cgroup2\n",
            100 * GB,
            id="nonsense",
        ),
        pytest.param(
            {f"{TOP}/x": second(8 * GB)},
            "0::/../../x",
            UNIFIED,
            8 * GB,
            id="outside the namespace",
        ),
    ],
)
def test_groups(machine, groups, cgroup, mounts, expected):
    root = machine(groups, cgroup=cgroup, mounts=mounts)
    assert free(root) == pytest.approx(expected, abs=1024)


@pytest.mark.parametrize(
    ("environ", "megabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8192),
        ({"SLURM_MEM_PER_NODE": "8192M"}, 8192),
        ({"SLURM_MEM_PER_NODE": "8G"}, 8192),  # as srun takes it, where it is set by hand
        ({"SLURM_MEM_PER_NODE": "8g"}, 8192),
        ({"SLURM_MEM_PER_NODE": " 8GB"}, 8192),
        ({"SLURM_MEM_PER_NODE": "0.01T"}, 0.01 * 2**20),
        ({"SLURM_MEM_PER_NODE": "8388608K"}, 8192),
        ({"SLURM_MEM_PER_CPU": "2G", "SLURM_CPUS_ON_NODE": "4"}, 8192),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}, 4000),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}, 4000),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_PER_TASK": "3"}, 3000),
        ({"SLURM_MEM_PER_CPU": "1000"}, 1000),
        ({"SLURM_MEM_PER_GPU": "6000", "SLURM_GPUS_ON_NODE": "2"}, 12000),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 2048),
    ],
)
def test_slurm(machine, environ, megabytes):
    assert free(machine(), environ) == int(megabytes * MB)
    used = machine(statm="900 100 0 0 0 0 0")
    assert free(used, environ) == int(megabytes * MB) - 100 * PAGE


ODD = ["0", "", "all", "-1", "max", "unlimited", "1e9", "0x1000", "8X", "9" * 5000, "٩"]


@pytest.mark.parametrize("value", ODD)
def test_slurm_that_gives_the_whole_node(machine, value):
    assert free(machine(), {"SLURM_MEM_PER_NODE": value}) == pytest.approx(100 * GB, abs=1024)


@pytest.mark.parametrize("value", ["0", "-3", "x", "9" * 5000])
@pytest.mark.parametrize("name", ["SLURM_STEP_TASKS_PER_NODE", "SLURM_CPUS_ON_NODE"])
def test_odd_counts_of_slurm_are_one(machine, name, value):
    environ = {"SLURM_MEM_PER_NODE": "1000", "SLURM_MEM_PER_CPU": "1000", name: value}
    assert free(machine(), environ) == 1000 * MB


@pytest.mark.parametrize("value", ["max", "-1", "-4096", "unlimited", "", "9" * 5000])
def test_a_group_whose_limit_is_none(machine, value):
    """Writing -1 removes the limit of a version 1 group, and some emulations return this value."""
    second_kind = {f"{TOP}/a": second(value, 1000)}
    root = machine(second_kind, cgroup="0::/a", mounts=UNIFIED)
    assert free(root) == pytest.approx(100 * GB, abs=1024)
    assert all_memory(root) == PAGE * os.sysconf("SC_PHYS_PAGES")
    first_kind = {f"{TOP}/memory/a": first(value, 1000)}
    root = machine(first_kind, cgroup="5:memory:/a", mounts=FIRST)
    assert free(root) == pytest.approx(100 * GB, abs=1024)


def test_a_table_of_memory_that_is_no_text(machine):
    root = machine()
    (root / "proc/meminfo").write_bytes(b"\xff\xfe")
    assert free(root) == PAGE * os.sysconf("SC_PHYS_PAGES")


def test_ulimit(machine):
    root = machine(statm="1000 100 0 0 0 300 0")
    assert free(root, rlimits={resource.RLIMIT_AS: 4 * GB}) == 4 * GB - 1000 * PAGE
    assert free(root, rlimits={resource.RLIMIT_DATA: 4 * GB}) == 4 * GB - 300 * PAGE


def test_the_least_counts(machine):
    groups = {TOP: second(8 * GB, 3 * GB)}
    root = machine(groups, cgroup="0::/", mounts=UNIFIED)
    assert free(root, {"SLURM_MEM_PER_NODE": "3000"}) == 3000 * MB
    assert free(root, {"SLURM_MEM_PER_NODE": "30000"}) == 5 * GB


def test_all_memory_is_that_of_the_machine_or_of_its_group(machine):
    groups = {"sys/fs/cgroup": second("max"), "sys/fs/cgroup/job": second("max", used=7)}
    there = all_memory(machine(groups, cgroup="0::/job", mounts=UNIFIED))
    assert there == PAGE * os.sysconf("SC_PHYS_PAGES")
    groups["sys/fs/cgroup/job"] = second(MB, used=MB)
    assert all_memory(machine(groups, cgroup="0::/job", mounts=UNIFIED)) == MB
