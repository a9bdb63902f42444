"""Texts of a dataset, read within limits: regular files of UTF-8, and strict JSON."""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

LIMIT = 16 * 2**20
"""bytes of the largest text that is read; a sidecar has a few thousand"""
DEEPEST = 64
"""levels of lists and objects in a JSON file; code that writes and compares them is recursive"""
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
POINTERS = (b"version https://git-lfs.", b"/annex/objects/", b"../.git/annex/objects/")
"""beginnings of small files that stand for content that has not been fetched"""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
GET_IT = "in a DataLad, git-annex or git-lfs dataset, get the file's content first"


@contextmanager
def opened(path: Path, *, what: str = "text") -> Iterator[BufferedReader]:
    """Open a regular file for reading within the block; the errors are those of `read_bytes`.

    Parameters
    ----------
    path : the file; links are followed
    what : kind of content that is expected, for messages
    """
    try:
        _require_regular(path, os.stat(path), what)
        # The file may have been replaced in the meantime; opening a pipe must not block.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(number, "rb") as file:
            _require_regular(path, os.fstat(number), what)
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            why = f"a link to {os.readlink(path)}, which is not there ({GET_IT})"
            raise _unreadable(path, what, why) from error
        raise FileNotFoundError(f"{path}: not readable as {what}: no such file") from error
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from error


def read_bytes(path: Path, *, what: str = "text", limit: int = LIMIT) -> bytes:
    """Return the bytes of a regular file.

    Pipes and devices are not opened: reading one may never end, or may act on the machine.

    Parameters
    ----------
    path : the file; links are followed
    what : kind of content that is expected, for messages
    limit : most bytes that are read

    Raises
    ------
    FileNotFoundError
        If nothing has this name; one line that names the file.
    ValueError
        If it cannot be read, is not a regular file, or is too large; one line that names the file.
    """
    with opened(path, what=what) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _unreadable(path, what, f"more than {limit:,} bytes; expected a small file")
    return content


def read_text(
    path: Path,
    *,
    what: str = "text",
    skip_mark: bool = False,
    replace: bool = False,
    limit: int = LIMIT,
) -> str:
    """Return the text of a UTF-8 file, with unchanged line ends.

    Parameters
    ----------
    path : the file
    what : kind of text that is expected, for messages
    skip_mark : remove a byte order mark of UTF-8, which spreadsheets write, instead of refusing it
    replace : use replacement characters for bytes that are not UTF-8, for texts that are only
        shown
    limit : most bytes that are read

    Raises
    ------
    FileNotFoundError
        If nothing has this name; one line that names the file.
    ValueError
        If it cannot be read or is not UTF-8; one line that names the file and the remedy.
    """
    content = read_bytes(path, what=what, limit=limit)
    if replace:
        return content.decode("utf-8-sig", errors="replace")
    return _decoded(path, content, what=what, skip_mark=skip_mark)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    FileNotFoundError
        If nothing has this name; one line that names the file.
    ValueError
        If it cannot be read, or is not JSON; one line that names the file and the place in it.
    """
    return parse_json(path, read_bytes(path, what="JSON"))


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; other content raises a ValueError too."""
    content = read_json(path)
    if not isinstance(content, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(content), "a number")
        raise ValueError(f"{path}: holds {kind}; expected a JSON object, {{…}}")
    return content


def parse_json(path: Path, content: bytes) -> Any:
    """Return the content of a JSON file from its bytes; errors are those of `read_json`."""
    text = _decoded(path, content, what="JSON")
    if not text.strip():
        raise _unreadable(path, "JSON", f"it is empty ({len(content)} bytes)")
    try:
        found = json.loads(text)
        if text.count("[") + text.count("{") > DEEPEST and _is_deeper(found, DEEPEST):
            raise RecursionError
        if "\\ud" in text.lower():  # half a surrogate pair cannot be written as UTF-8
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        why = f"it is nested too deeply; expected at most {DEEPEST} levels"
        raise _unreadable(path, "JSON", why) from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        why = f"{half} is half of a surrogate pair; expected both halves or the character itself"
        raise _unreadable(path, "JSON", why) from error
    except ValueError as error:
        raise _unreadable(path, "JSON", str(error)) from error
    return found


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects are nested in more than `most` levels."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for part in inner for each in part if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _require_regular(path: Path, facts: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = KINDS.get(stat.S_IFMT(facts.st_mode), "no regular file")
        raise _unreadable(path, what, f"it is {kind}; expected a file")


def _decoded(path: Path, content: bytes, *, what: str, skip_mark: bool = False) -> str:
    """Decode UTF-8; name the other encoding in the error if it can be recognised."""
    if content.startswith(POINTERS):
        raise _unreadable(path, what, f"a pointer to content that is not there ({GET_IT})")
    for mark, name in MARKS:
        if content.startswith(mark):
            raise _unreadable(path, what, f"it is {name}; save it as UTF-8")
    if content.startswith(codecs.BOM_UTF8):
        if not skip_mark:
            why = "it begins with a byte order mark; save as UTF-8 without it"
            raise _unreadable(path, what, why)
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        why = f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save it as UTF-8"
        raise _unreadable(path, what, why) from error
    if "\0" in text:  # UTF-16 without a mark can be decoded, but has zero bytes
        raise _unreadable(path, what, "it holds zero bytes, as UTF-16 does; save it as UTF-8")
    return text


def _unreadable(path: Path, what: str, why: str) -> ValueError:
    return ValueError(f"{path}: not readable as {what}: {why}")
