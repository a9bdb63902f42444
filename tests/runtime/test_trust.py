"""Whose programs may be run."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from n4ax_bids.runtime import trust

ME = os.geteuid()


@pytest.fixture
def owned(monkeypatch):
    """Let folders have other owners and modes than they have: name → (uid, mode)."""
    from pathlib import Path

    facts, lstat = {}, Path.lstat

    def told(path):
        found = lstat(path)
        uid, mode = facts.get(path.name, (found.st_uid, found.st_mode))
        return SimpleNamespace(st_uid=uid, st_mode=found.st_mode & ~0o7777 | mode & 0o7777)

    monkeypatch.setattr(Path, "lstat", told)
    return facts


@pytest.mark.parametrize(
    ("which", "uid", "mode", "words"),
    [
        ("leaf", ME, 0o755, None),
        ("leaf", 0, 0o755, None),
        ("leaf", ME + 1, 0o700, "belongs to user"),
        ("leaf", ME, 0o720, "may be written by other users (mode 0720)"),
        ("leaf", ME, 0o702, "may be written by other users (mode 0702)"),
        ("leaf", ME, 0o1777, "may be written by other users"),
        ("above", ME, 0o755, None),
        ("above", ME + 1, 0o755, "belongs to user"),
        ("above", 0, 0o775, "may be written by other users"),
        ("above", 0, 0o1777, None),
        ("above", ME + 1, 0o1777, "belongs to user"),
    ],
)
def test_owner_and_mode_of_a_folder_and_of_those_above_it(
    tmp_path, owned, which, uid, mode, words
):
    folder = tmp_path / "above" / "leaf"
    folder.mkdir(parents=True)
    owned[which] = uid, mode
    why = trust.why_not(folder)
    assert why is None if words is None else words in why and which in why and "\n" not in why


def test_a_link_counts_as_what_it_leads_to(tmp_path, owned):
    (tmp_path / "theirs" / "leaf").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    owned["theirs"] = ME + 1, 0o755
    assert "theirs belongs to" in trust.why_not(tmp_path / "link" / "leaf")


def test_a_folder_that_is_not_there_yet(tmp_path):
    assert trust.why_not(tmp_path / "new" / "newer") is None
    trust.make_private(tmp_path / "new" / "newer")
    for name in ("new", "new/newer"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    trust.make_private(tmp_path / "new" / "newer")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        trust.make_private(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("namespace", "which", "trusted"),
    [(True, "above", True), (False, "above", False), (True, "leaf", False)],
)
def test_nobody_above_is_root_in_a_user_namespace(
    tmp_path, owned, monkeypatch, namespace, which, trusted
):
    folder = tmp_path / "above" / "leaf"
    folder.mkdir(parents=True)
    owned[which] = trust._nobody(), 0o755
    monkeypatch.setattr(trust, "_in_user_namespace", lambda: namespace)
    assert (trust.why_not(folder) is None) == trusted


def test_another_user_that_is_named(tmp_path, owned, monkeypatch):
    (tmp_path / "leaf").mkdir()
    owned["leaf"] = 54321, 0o755
    for value, trusted in (("", False), ("54321", True), ("nobody", False), ("no such", False)):
        monkeypatch.setenv(trust.OWNER, value)
        assert (trust.why_not(tmp_path / "leaf") is None) == trusted
    owned["leaf"] = 54321, 0o775
    monkeypatch.setenv(trust.OWNER, "54321")
    assert "may be written" in trust.why_not(tmp_path / "leaf")
