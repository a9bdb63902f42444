"""Makes notebooks of docs: cells are run one after another, and their outputs are kept.

It needs no Jupyter; any Jupyter can open and run the result.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
Cell = tuple[str, str]
"""kind, "markdown" or "code", and source"""


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=70, metadata={"Software": None})
    return stream.getvalue()


def outputs_of(
    source: str, names: dict[str, Any], number: int, pictures: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Run a cell; return what it prints, and the value of its last expression."""
    tree, said = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(said):
        exec(compile(tree, "cell", "exec"), names)
        expression = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
        value = eval(compile(expression, "cell", "eval"), names) if expression else None
    found: list[dict[str, Any]] = []
    if said.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": said.getvalue()})
    if value is not None:
        data = {"text/plain": repr(value)}
        if isinstance(value, Figure):
            image = png(value)
            data = {"text/plain": "figure", "image/png": base64.b64encode(image).decode()}
            if number in pictures:
                Image.open(io.BytesIO(image)).save(DOCS / pictures[number], quality=80, method=6)
        found.append(
            {
                "output_type": "execute_result",
                "execution_count": number,
                "metadata": {},
                "data": data,
            }
        )
    return found


def notebook(cells_given: Sequence[Cell], pictures: Mapping[int, str]) -> dict[str, Any]:
    """Run all cells and return the notebook, in the format of Jupyter (nbformat 4.5)."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells: list[dict[str, Any]] = []
    number = 0
    for place, (kind, source) in enumerate(cells_given):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{place}",
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        if kind == "code":
            number += 1
            cell |= {
                "execution_count": number,
                "outputs": outputs_of(source, names, number, pictures),
            }
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write(name: str, cells: Sequence[Cell], pictures: Mapping[int, str]) -> None:
    """Write a notebook into docs.

    Parameters
    ----------
    name : file name of the notebook
    cells : its cells
    pictures : file names for the figures of cells with code, which are counted from 1
    """
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        made = notebook(cells, pictures)
    path = DOCS / name
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
