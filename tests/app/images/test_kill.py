"""Killed at any moment, and several at once: the outputs are those of one undisturbed run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

N_IMAGES = 5

# Children of a process that has imported everything but not started JAX: a run takes a second.
PROGRAM = """
import json, os, random, signal, sys, time

import bids, jax, nipype.interfaces.ants, numpy
from n4ax_bids import correct, interfaces
from n4ax_bids.app import cli, run
from n4ax_bids.app.reports import image_report
from n4ax_bids.report import page

root, folder, command, n_kills, n_images = *sys.argv[1:4], *map(int, sys.argv[4:])

main, WORDS = cli.main, ["participant", "--device", "cpu", "--skip-bids-validation"]
if command == "n4ax-files":
    main, WORDS = cli.files_main, ["--device", "cpu"]
assert main([root, f"{folder}/nothing", *WORDS, "--dry-run"]) == 0  # imports the rest
WATCH = os.WEXITED | os.WNOHANG | os.WNOWAIT

def start(out, *flags):
    child = os.fork()
    if child == 0:
        # Finding a brain takes longer than the rest.
        words = [root, out, *WORDS, "--n-iterations", "4", "3", "--mask", "otsu", *flags]
        sys.stderr = open(f"{out}-{os.getpid()}.log", "w")
        status = 99
        try:
            status = main(words)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def undisturbed(out, *flags):
    # The seconds to the first record, and to the end.
    begun = time.perf_counter()
    child = start(out, *flags)
    while not records(out):
        time.sleep(0.002)
    first = time.perf_counter() - begun
    assert wait(child) == 0
    return first, time.perf_counter() - begun

def snapshot(out):
    found = {}
    for where, _, names in os.walk(out):
        for name in names:
            path = os.path.join(where, name)
            if "/logs/" not in path:
                facts = os.stat(path)
                found[os.path.relpath(path, out)] = facts.st_ino, facts.st_mtime_ns
    return found

def records(out):
    return [name for _, _, names in os.walk(f"{out}/logs/images") for name in names]

def kill(number, n_done, share):
    # Within about one image's time after so many are finished. Where this run is faster than the
    # undisturbed one was, because the machine is less busy now, its own pace counts.
    out, flags = f"{folder}/killed-{number}", []
    if number % 4 == 3:
        flags = ["-w", f"{folder}/work"]
    with_reports = number % 4 == 0  # which take longer than the rest
    if not with_reports:
        flags += ["--no-reports"]
    child = start(out, *flags)
    begun = None
    while (n := len(records(out))) < n_done and not os.waitid(os.P_PID, child, WATCH):
        begun = begun or (n and time.monotonic())
        time.sleep(0.002)
    pause = each[with_reports] if n_done else first
    if begun:
        pause = min(pause, (time.monotonic() - begun) / (n_done - 1))
    time.sleep(share * pause)
    os.kill(child, signal.SIGKILL)
    ended = wait(child)
    seen = {"out": out, "ended": ended, "before": snapshot(out), "records": records(out)}
    return seen | {"again": wait(start(out, *flags)), "after": snapshot(out)}

plain_first, plain = undisturbed(f"{folder}/compiled", "--no-reports")
first, whole = undisturbed(f"{folder}/whole")
if n_kills:
    chance = random.Random(270)  # before the first record, and after one to three images
    each = {True: (whole - first) / n_images, False: (plain - plain_first) / n_images}
    said = [
        kill(number, n_done, chance.uniform(0.1, 1))
        for number, n_done in enumerate(chance.randrange(n_images) for _ in range(n_kills))
    ]
else:
    children = [start(f"{folder}/together") for _ in range(4)]
    said = [wait(child) for child in children]
print(json.dumps(said))
"""


def contents(out: Path) -> dict[str, str]:
    """Digest of each file by its name, but for the logs."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.relative_to(out).parts[0] != "logs"
    }


def is_report(name: str) -> bool:
    return name.endswith((".html", "group_bias.tsv")) or "/figures/" in name


def corrected(out: Path) -> list[str]:
    """The images that runs on this folder say to have corrected, in all."""
    rows = [row.split("\t") for t in out.glob("logs/*/images.tsv") for row in t.open()]
    return sorted(row[0] for row in rows if row[1] == "corrected")


@pytest.fixture
def ran(make_dataset, tmp_path):
    """Run a program over some images; return what it says."""

    def run(n_kills: int, command: str = "n4ax-bids", n_images: int = N_IMAGES) -> list:
        names = (f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, n_images + 1))
        root = make_dataset(*names)
        words = [sys.executable, "-c", PROGRAM, str(root), str(tmp_path), command]
        words += [str(n_kills), str(n_images)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "n_kills", "n_images"),
    [
        ("n4ax-bids", 6, N_IMAGES),
        ("n4ax-files", 4, 4),
        pytest.param("n4ax-bids", 20, 8, marks=pytest.mark.large),
        pytest.param("n4ax-files", 20, 8, marks=pytest.mark.large),
    ],
)
def test_killed_at_random_moments(ran, tmp_path, command, n_kills, n_images):
    kills, interrupted = ran(n_kills, command, n_images), 0
    whole = contents(tmp_path / "whole")
    # A page for each participant; the dataset's own files, or the table and the page of all.
    assert len(whole) == {"n4ax-bids": 3, "n4ax-files": 2}[command] + (6 + 5 + 1) * n_images
    images = {name: digest for name, digest in whole.items() if not is_report(name)}
    for number, kill in enumerate(kills):
        out = Path(kill["out"])
        assert kill["again"] == 0
        assert contents(out) == (images if number % 4 else whole)  # no stray file either
        # What was finished has stayed as it was.
        finished = [name[:6] for name in kill["records"] if not name.startswith(".")]
        for name, facts in kill["before"].items():
            if name.startswith("sub-") and name[:6] in finished:
                assert kill["after"][name] == facts, name
        interrupted += 0 < len(finished) < n_images
    assert interrupted >= n_kills // 2
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_four_at_once(ran, tmp_path):
    assert ran(0) == [0, 0, 0, 0]
    together = tmp_path / "together"
    assert contents(together) == contents(tmp_path / "whole")
    assert corrected(together) == corrected(tmp_path / "whole")  # each once
    assert len(corrected(together)) == N_IMAGES
    assert list((together / "logs" / "claims").iterdir()) == []


# A node that only pretends, in children of a process that has not started JAX.
EVERY_CHANGE = """
import importlib.util, itertools, json, os, shutil, signal, sys

import bids, pytest
from n4ax_bids import correct, interfaces
from n4ax_bids.app import cli, run as whole_run

root, folder, conftest = sys.argv[1:]
spec = importlib.util.spec_from_file_location("conftest", conftest)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.put_fake_node(pytest.MonkeyPatch())
module.copy_empty_index(pytest.MonkeyPatch())
WORDS = ["participant", "--skip-bids-validation", "--no-reports"]
assert cli.main([root, f"{folder}/nothing", *WORDS, "--dry-run"]) == 0  # imports the rest

def counted(change, left):
    def one(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **kwargs)
    return one

def run(out, *flags, moment=0):
    child = os.fork()
    if child == 0:
        left = [moment]
        for name in ("replace", "unlink", "symlink"):
            setattr(os, name, counted(getattr(os, name), left))
        os._exit(cli.main([root, out, *WORDS, "--nprocs", "1", *flags]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert run(f"{folder}/whole", "--shrink-factor", "2") == 0
assert run(f"{folder}/other") == 0
for moment in itertools.count(1):
    out = shutil.copytree(f"{folder}/other", f"{folder}/killed-{moment}")
    ended = run(out, "--shrink-factor", "2", moment=moment)
    if ended == 0:
        break
    assert ended == -signal.SIGKILL, ended
    assert run(out, "--shrink-factor", "2") == 0
print(moment - 1)
"""


def test_killed_at_every_change_of_the_output_folder(make_dataset, tmp_path):
    """Before each rename or removal, on an image that had been done with other options."""
    root = make_dataset("sub-01/anat/sub-01_T1w.nii.gz")
    conftest = Path(__file__).parents[1] / "conftest.py"
    words = [sys.executable, "-c", EVERY_CHANGE, str(root), str(tmp_path), str(conftest)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    n_kills = int(done.stdout.splitlines()[-1])
    assert n_kills > 12
    for moment in range(1, n_kills + 1):
        assert contents(tmp_path / f"killed-{moment}") == contents(tmp_path / "whole"), moment
    assert contents(tmp_path / "other") != contents(tmp_path / "whole")


KILLED_GROUP = """
import os, signal, sys
from n4ax_bids.app import cli

replace = os.replace

def killing(source, target):
    if str(target).endswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = killing
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("level", "flags", "name"),
    [
        ("group", (), "group_bias.tsv"),
        ("group", (), "group.html"),
        ("participant", ("--boilerplate-only",), "CITATION.html"),
    ],
)
def test_what_a_killed_run_that_corrects_nothing_has_left_goes(
    make_dataset, tmp_path, level, flags, name
):
    from n4ax_bids.app import cli

    root, out = make_dataset("sub-01/anat/sub-01_T1w.nii.gz"), tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    (out / "logs" / "crash-sub-01_T1w.txt").write_text("n4ax_bids\nValueError: x\n")
    words = [str(root), str(out), level, *flags]
    killed = subprocess.run([sys.executable, "-c", KILLED_GROUP, name, *words], check=False)
    assert killed.returncode == -9
    assert [path for path in out.rglob(".*") if path.is_file()]
    assert cli.main(words) == 0
    assert not list(out.rglob(".*"))
