"""Mutants: small faults put into a source text, one at a time.

A mutant replaces the text of one node of the syntax tree, so all other lines stay as they are.
Docstrings, annotations, f-strings, the texts of messages and `if TYPE_CHECKING` are left alone:
no test has to notice a change there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

SWAPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
LOGGING = {"debug", "info", "warning", "error", "exception"}


@dataclass(frozen=True)
class Mutant:
    """One fault: the span of the source that it replaces, and what stands there instead."""

    kind: str
    line: int
    start: int
    """in bytes of the source, like `end`"""
    end: int
    replacement: str

    def apply(self, source: str) -> str:
        """Return the source with this fault."""
        raw = source.encode()
        return (raw[: self.start] + self.replacement.encode() + raw[self.end :]).decode()

    def shown(self, source: str) -> str:
        """Return what is replaced by what, on one line."""
        old = source.encode()[self.start : self.end].decode()
        return f"{_one_line(old)} -> {_one_line(self.replacement)}"


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a source, in the order of the lines.

    Parameters
    ----------
    source : text of a module

    Returns
    -------
    list of Mutant, each of which can be compiled
    """
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, kind, changed in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(changed)
        if isinstance(node, ast.expr):
            text = f"({text})"
        found.append(Mutant(kind, node.lineno, start, end, text))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.kind, mutant.replacement))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, ast.AST]]:
    for node in _visited(tree):
        if isinstance(node, ast.expr):
            for kind, changed in _expression(node):
                yield node, kind, changed
        elif isinstance(node, ast.Raise):
            yield node, "no error", ast.Pass()
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if not _logs(node.value):
                yield node, "no call", ast.Pass()
        elif isinstance(node, ast.If | ast.While):
            yield node.test, "negation", ast.UnaryOp(ast.Not(), node.test)


def _expression(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield "comparison", ast.Compare(left, [SWAPPED[type(op)]()], [right])
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and/or", ast.BoolOp(other, values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "negation", operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            if not _is_text(left) and not _is_text(right):
                yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.Constant(value=bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield "off by one", ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield "constant", ast.Constant(value * 1.1 if value else 0.1)
        case ast.Call(func=func, args=[first, second, *rest], keywords=keywords):
            if not any(isinstance(each, ast.Starred) for each in (first, second)):
                yield "swapped arguments", ast.Call(func, [second, first, *rest], keywords)


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over the tree, but not into what no test has to notice."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _left_alone(child):
                yield from _visited(child)


def _left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Call):
        return _logs(node) or ast.unparse(node.func) == "option"
    return isinstance(node, ast.JoinedStr)


def _logs(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr in LOGGING


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
