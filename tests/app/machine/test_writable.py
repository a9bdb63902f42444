"""A home and a folder for temporary files if the machine has none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from n4ax_bids.app.machine import writable


@pytest.fixture
def no_places(monkeypatch, tmp_path):
    """Take away home, temporary folders and memory; not even root can write below /proc."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, "/proc/nowhere")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("N4AX_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(writable, "MEMORY", Path("/proc/nowhere"))
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ["TMPDIR"]])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_right_stays():
    before = dict(os.environ)
    with writable.places():
        assert dict(os.environ) == before


def test_a_home_for_this_run_alone(monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("N4AX_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with caplog.at_level(logging.INFO, "n4ax_bids"), writable.places():
        home = Path(os.environ["HOME"])
        (home / ".cache").mkdir()
        code = "from n4ax_bids.runtime.compilation import shared_folder; print(shared_folder())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert home in Path(done.stdout.strip()).parents
    assert not home.exists()
    assert os.environ["HOME"] == "/proc/nowhere"
    assert "compiled programs are not kept" in caplog.text


def test_a_user_without_a_name_has_no_home(monkeypatch):
    """Python then leaves "~" as it is, a folder below the current one."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with writable.places():
        assert Path(os.environ["HOME"]).is_dir()
    assert "HOME" not in os.environ


@pytest.mark.parametrize("there", [True, False])
def test_temporary_files_near_the_output(no_places, there):
    output = no_places / "there" / "derivatives"
    output.parent.mkdir()
    if there:
        output.mkdir()
    nearest = output if there else output.parent
    with writable.places([output]):
        temporary = Path(tempfile.gettempdir())
        assert temporary.parent == nearest and temporary.name.startswith(".")
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == temporary
        assert Path(os.environ["HOME"]).parent == temporary
    assert output.exists() == there
    assert not list(nearest.glob(".*"))
    assert os.environ["TMPDIR"] == os.environ["HOME"] == "/proc/nowhere"


def test_memory_where_there_is_nothing_else(no_places, monkeypatch):
    memory = no_places / "memory"
    memory.mkdir()
    monkeypatch.setattr(writable, "MEMORY", memory)
    with writable.places([Path("/proc/nowhere/out")]):
        assert Path(os.environ["TMPDIR"]).parent == memory


def test_nowhere_at_all(no_places):
    """Nothing is changed; any code that needs a folder reports it itself."""
    before = dict(os.environ)
    with writable.places([Path("/proc/nowhere/out")]):
        assert dict(os.environ) == before
