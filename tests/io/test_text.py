"""Texts of a dataset: what is read, and one line for each thing that is not."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from n4ax_bids.io import text


@pytest.fixture
def write(tmp_path):
    def put(content):
        path = tmp_path / "file.json"
        path.write_bytes(content)
        return path

    return put


def test_a_text_keeps_its_line_ends(write):
    path = write("é\r\nß\n".encode())
    assert text.read_text(path) == "é\r\nß\n"
    assert text.read_bytes(path) == "é\r\nß\n".encode()


def test_json(write):
    path = write(b'{"a": ["\\ud83d\\ude00", 1.5, null]}')
    assert text.read_json(path) == {"a": ["😀", 1.5, None]}
    assert text.read_object(write(b"{}")) == {}
    with pytest.raises(ValueError, match="file.json: holds .*; expected a JSON object"):
        text.read_object(write(b"[]"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty (0 bytes)"),
        (b" \n", "it is empty (2 bytes)"),
        (b"{", "Expecting property name"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark; save as UTF-8 without it"),
        ("{}".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("{}".encode("utf-32"), "it is UTF-32; save it as UTF-8"),
        ("{}".encode("utf-16-le"), "it holds zero bytes, as UTF-16 does; save it as UTF-8"),
        ('{\n"a": "é"}'.encode("latin-1"), "byte 0xe9 in line 2 is not UTF-8; save it as UTF-8"),
        (b'{"a": "\\uD800"}', "\\ud800 is half of a surrogate pair"),
        (b'{"\\udfff": 1}', "\\udfff is half of a surrogate pair"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"[" * 200_000 + b"]" * 200_000, "it is nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
        (b"/annex/objects/MD5E-s12--ab.json\n", "a pointer to content that is not there"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer to content that is not"),
    ],
)
def test_what_is_no_json(write, content, why):
    path = write(content)
    with pytest.raises(ValueError) as caught:
        text.read_json(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: not readable as JSON: ")
    assert why in line and "\n" not in line


def test_a_mark_is_left_out_where_tables_are_read(write):
    assert text.read_text(write(b"\xef\xbb\xbfa\tb"), skip_mark=True) == "a\tb"
    assert text.read_text(write(b"\xef\xbb\xbfa\xff"), replace=True) == "a\ufffd"


def test_a_file_that_is_too_large(write, monkeypatch):
    path = write(b"1" * 11)
    assert text.read_bytes(path, limit=11) == b"1" * 11
    with pytest.raises(ValueError) as caught:
        text.read_bytes(path, limit=10)
    why = "more than 10 bytes; expected a small file"
    assert str(caught.value) == f"{path}: not readable as text: {why}"


def test_a_sparse_file_of_many_gigabytes_is_refused(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(50 * 2**30)
    with pytest.raises(ValueError, match=r"large.json: .*more than 16,777,216 bytes"):
        text.read_json(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.json: not readable as JSON: no such file"):
        text.read_json(tmp_path / "no.json")
    (tmp_path / "link.json").symlink_to("gone.json")
    with pytest.raises(ValueError, match=r"link.json: .*a link to gone.json, which is not there"):
        text.read_json(tmp_path / "link.json")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=r"loop: .*[Ss]ymbolic links"):
        text.read_json(tmp_path / "loop")


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        cases = {"folder": "a folder", "pipe": "a named pipe", "socket": "a socket"}
        for name, kind in cases.items():
            with pytest.raises(ValueError, match=f"{name}: .*it is {kind}; expected a file"):
                text.read_json(tmp_path / name)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="link: .*it is a device; expected a file"):
        text.read_json(tmp_path / "link")


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path, monkeypatch, write):
    regular = os.stat(write(b"{}"))
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(text.os, "stat", lambda path: regular)
    with pytest.raises(ValueError, match="it is a named pipe; expected a file"):
        text.read_json(tmp_path / "pipe")


def test_what_may_not_be_read(write, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = write(b"{}")
    monkeypatch.setattr(text.os, "open", refused)  # the superuser may read everything
    with pytest.raises(ValueError, match="file.json: not readable as JSON: Permission denied"):
        text.read_json(path)
