"""Files that appear whole or not at all, and what their names may be."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.io import atomic

LONGEST = 255


def named(n_bytes: int, character: str = "a", end: str = ".nii.gz") -> str:
    """A name of so many bytes, filled up by a character."""
    size = len(os.fsencode(character))
    n, rest = divmod(n_bytes - len(end), size)
    return "b" * rest + character * n + end


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u65e5", "\U0001f9e0", "\udcff"])
@pytest.mark.parametrize("n_bytes", [10, 105, 106, 119, 120, 121, 225, 236, 240, 241, 245, 255])
def test_a_hidden_name_fits_where_the_final_one_does(tmp_path, n_bytes, character):
    path = tmp_path / named(n_bytes, character)
    assert len(os.fsencode(path.name)) == n_bytes
    with atomic.replacing(path) as part:
        assert len(os.fsencode(part.name)) <= max(n_bytes, atomic.SHORT)
        assert part.parent == tmp_path and part.name.endswith(".nii.gz")
        assert part.name.startswith(".part-") and part.name != path.name
        if n_bytes <= 105:
            assert part.name.endswith(f"-{path.name}")  # in full, as there is room
        part.write_text("whole")
    assert path.read_text() == "whole" and os.listdir(tmp_path) == [path.name]


def test_two_long_names_that_end_alike_are_written_side_by_side(tmp_path):
    one, other = (tmp_path / (first + named(254)) for first in "xy")
    with atomic.replacing(one) as part, atomic.replacing(other) as other_part:
        part.write_text("x")
        other_part.write_text("y")
    assert (one.read_text(), other.read_text()) == ("x", "y")


def test_a_name_that_is_too_long_is_told_with_its_length(tmp_path):
    atomic.require_writable(tmp_path / named(LONGEST))
    path = tmp_path / named(LONGEST + 1)
    with pytest.raises(OSError, match=r"its name has 256 bytes .* takes 255") as raised:
        atomic.require_writable(path)
    assert str(raised.value).startswith(f"{path}: cannot be written") and "\n" not in str(raised)
    with pytest.raises(OSError, match="256 bytes"):
        atomic.require_writable(tmp_path / named(LONGEST + 1, "\u00e9"))


def test_how_long_a_name_may_be_is_asked_of_the_file_system(tmp_path, monkeypatch):
    assert atomic.longest_name(tmp_path / "not" / "yet") == os.pathconf(tmp_path, "PC_NAME_MAX")
    monkeypatch.setattr(os, "pathconf", lambda folder, _: 143)
    assert atomic.longest_name(tmp_path) == 143
    with pytest.raises(OSError, match="takes 143"):
        atomic.require_writable(tmp_path / named(144))
