"""Folders and compiled programs that others may write, or that belong to others, are not used."""

import json
import os

import pytest

from tests.runtime.compiling import PROGRAM, finish, programs, start


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
