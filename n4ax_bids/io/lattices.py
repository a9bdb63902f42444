"""Lattices of several pieces of an image, with the planes they hold, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.io.atomic import replacing

KIND = "n4ax_bids lattices"


def save_lattices(
    path: str | Path, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write numbers and named arrays; the file appears complete or not at all.

    Parameters
    ----------
    path : final name, .npz
    numbers : what JSON can hold
    arrays : arrays by name, each the control points of a piece or a profile of planes
    """
    text = json.dumps({"kind": KIND, **numbers})
    with replacing(path) as part, open(part, "xb") as file:
        named: Any = dict(arrays)
        np.savez_compressed(file, json=np.array(text), **named)


def load_lattices(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save_lattices` wrote.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or was not written by it; one line that names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        numbers = json.loads(str(arrays.pop("json")))
        if numbers.pop("kind") != KIND:
            raise ValueError("it has another kind")
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: is no file of lattices of n4ax_bids ({reason})") from error
    return numbers, arrays
