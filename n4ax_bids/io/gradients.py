"""The text files of a DWI series: b-values and directions, of some of its volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from n4ax_bids.io.text import read_text


def of_volumes(path: str | Path, volumes: Sequence[int], n_rows: int) -> str:
    """Return the columns of some volumes, as written in the file.

    Parameters
    ----------
    path : .bval file (one row) or .bvec file (three rows); a column for each volume
    volumes : numbers of the volumes
    n_rows : rows that the file should have

    Raises
    ------
    OSError, ValueError
        If the file has other rows, or no column for a volume; one line that names it.
    """
    text = read_text(Path(path), what="values of a DWI series")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if n_rows == 1:
        rows = [text.split()]  # some programs write a value on each line
    n_columns = {len(row) for row in rows}
    if len(rows) != n_rows or len(n_columns) != 1 or max(volumes) >= max(n_columns):
        raise ValueError(
            f"{path}: {len(rows)} rows of {', '.join(map(str, sorted(n_columns)))} values; "
            f"expected {n_rows} of one length, with a value for volume {max(volumes)}"
        )
    return "".join(" ".join(row[volume] for volume in volumes) + "\n" for row in rows)
