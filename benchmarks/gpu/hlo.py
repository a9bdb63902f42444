"""What a compiled program does on a GPU, counted from the compiler's own texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

BITS = re.compile(r"\b(pred|[a-z]+?(\d+))\[([\d,]*)\]")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
"""operations that start nothing"""
CONTROL = {"kWhile", "kConditional", "kCommandBuffer", "kSequential", "kDynamicSliceFusion"}
"""thunks that only hold others"""
WORKSPACE = "s8["
"""an output of a matrix product that is not part of its result"""


# --- thunks: what is started ---------------------------------------------------------------------


@dataclass
class Thunk:
    """A thunk with those inside it, under the names of its parts."""

    kind: str
    text: str
    inside: list[tuple[str, Thunk]] = field(default_factory=list)
    """the part (condition, body, a branch, or nothing) and the thunk"""

    def walk(self, in_graph: bool = False) -> Iterator[tuple[Thunk, bool]]:
        """Go through a thunk and those inside it, saying whether it is part of a CUDA graph."""
        yield self, in_graph
        for _, thunk in self.inside:
            yield from thunk.walk(in_graph or self.kind == "kCommandBuffer")


def thunks(text: str) -> Thunk:
    """Return the tree of a list of thunks.

    The text writes the word `condition:` without its indent, and the first thunk after `body:`
    may follow on the same line.
    """
    root = Thunk("program", "")
    open_: list[tuple[int, Thunk]] = [(-1, root)]
    part: dict[int, str] = {}
    for line in text.replace("No thunks.", "\n").splitlines():
        named = re.match(r"\s*(condition|body|\w+_branch|branch \d+):", line)
        if named:
            part[id(open_[-1][1])] = named[1]
            if named[1] != "condition":
                indent = len(line) - len(line.lstrip())
                while open_[-1][0] >= indent:
                    open_.pop()
                part[id(open_[-1][1])] = named[1]
            continue
        found = re.match(r"(\s*)\d+: (k\w+)\s*(.*)", line)
        if not found:
            continue
        indent = len(found[1])
        while open_[-1][0] >= indent:
            open_.pop()
        thunk = Thunk(found[2], found[3])
        holder = open_[-1][1]
        holder.inside.append((part.get(id(holder), ""), thunk))
        open_.append((indent, thunk))
    return root


class Started(NamedTuple):
    """What one iteration starts, and where the host has to wait."""

    kernels: int
    ffts: int
    products: int
    graphs: int
    """that the host starts in an iteration; 0 if the loop is part of one"""
    waits: int
    """of the host in an iteration, for a byte that says how to go on"""
    loops_in_graph: bool


def innermost(root: Thunk) -> tuple[Thunk, bool]:
    """Return the loop that starts most and has no loop inside, and whether it is in a graph."""
    loops = []
    for thunk, in_graph in root.walk():
        if thunk.kind == "kWhile":
            deeper = [one for one, _ in thunk.walk() if one.kind == "kWhile" and one is not thunk]
            if not deeper:
                loops.append((len([*thunk.walk()]), thunk, in_graph))
    _, loop, in_graph = max(loops, key=lambda each: each[0])
    return loop, in_graph


def trips_known(text: str) -> bool:
    """Say whether the compiler knows how often each loop goes round: the host then never asks."""
    loops = [line for line in text.splitlines() if re.search(r" while\(", line)]
    return all("known_trip_count" in line for line in loops)


def iteration(root: Thunk, *, trips_known: bool) -> Started:
    """Count what an iteration of the innermost loop starts; of a condition, the longest branch."""
    loop, in_graph = innermost(root)
    leaves = [thunk for thunk in _taken(loop) if thunk.kind not in CONTROL]
    holders = [one for one, inside in loop.walk(in_graph) if not inside]
    asked = ("kConditional",) if trips_known else ("kWhile", "kConditional")
    return Started(
        kernels=len(leaves),
        ffts=sum(thunk.kind == "kFft" for thunk in leaves),
        products=sum("ublas" in thunk.kind or "Gemm" in thunk.kind for thunk in leaves),
        graphs=sum(thunk.kind == "kCommandBuffer" for thunk in holders),
        waits=0 if in_graph else sum(one.kind in asked for one in holders),
        loops_in_graph=in_graph,
    )


def _taken(thunk: Thunk) -> Iterator[Thunk]:
    """Go through what runs: all parts of a loop, but of a condition only the longest branch."""
    if thunk.kind == "kConditional":
        branches: dict[str, list[Thunk]] = {}
        for part, inside in thunk.inside:
            branches.setdefault(part, []).extend(_taken(inside))
        yield from max(branches.values(), key=len, default=[])
        return
    yield thunk
    for _, inside in thunk.inside:
        yield from _taken(inside)


# --- HLO: what is read and written ---------------------------------------------------------------


class Operation(NamedTuple):
    """An instruction of HLO."""

    name: str
    shape: str
    kind: str
    operands: list[str]
    line: str


def computations(text: str) -> dict[str, list[Operation]]:
    """Return the instructions of each computation of a module."""
    found: dict[str, list[Operation]] = {}
    now: list[Operation] = []
    for line in text.splitlines():
        if begins := re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$", line):
            now = found.setdefault(begins[1], [])
        elif each := re.match(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line):
            shape, rest = _split(each[2])
            kind = re.match(r"[\w\-]+", rest)
            inside = _until_closed(rest[rest.index("(") :])
            operands = re.findall(r"%([\w.\-]+)", inside)
            now.append(Operation(each[1], shape, kind[0] if kind else "", operands, line))
    return found


def _split(text: str) -> tuple[str, str]:
    """Split a shape, which may be a tuple, from the operation that follows."""
    if text.startswith("("):
        shape = _until_closed(text)
        return shape, text[len(shape) :].strip()
    shape, _, rest = text.partition(" ")
    return shape, rest


def _until_closed(text: str) -> str:
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1]
    return text


def n_bytes(shape: str) -> int:
    """Return the bytes of all arrays of a shape, without a product's workspace."""
    total = 0
    for kind, bits, sizes in BITS.findall(shape):
        if f"{kind}[" == WORKSPACE:
            continue
        width = max(1, int(bits or 8) // 8)
        n = 1
        for size in filter(None, sizes.split(",")):
            n *= int(size)
        total += n * width
    return total


def moved(text: str) -> tuple[int, int]:
    """Return the bytes that an iteration reads and writes, and its scatters.

    If each level has a loop of its own, the mean of all iterations; other loops have no scatter,
    which counts the histogram. Of an operand of which a kernel takes only a part (a slice, a
    gather), the part counts; what is updated in place is not read. Conditions count with their
    longest branch.
    """
    every = computations(text)
    loops = {
        _named(each.line, "body"): _trips(each.line)
        for operations in every.values()
        for each in operations
        if each.kind == "while"
    }
    innermost = {
        body: n for body, n in loops.items() if not any(one.kind == "while" for one in every[body])
    }
    if not innermost:
        return 0, 0
    counted = [(*_sum(every, body), n) for body, n in innermost.items()]
    most = max(scatters for _, scatters, _ in counted)
    levels = [(size, n) for size, scatters, n in counted if scatters == most]
    return round(sum(size * n for size, n in levels) / sum(n for _, n in levels)), most


def _trips(line: str) -> int:
    """Return how often a loop goes round, if the compiler knows it; else 1."""
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    return int(found[1]) if found else 1


def _sum(every: dict[str, list[Operation]], name: str) -> tuple[int, int]:
    """Return bytes and scatters of a computation."""
    shapes = {each.name: each.shape for each in every[name]}
    total = scatters = 0
    for each in every[name]:
        if each.kind in FREE:
            continue
        if each.kind == "conditional":
            parts = [_sum(every, branch) for branch in _branches(each.line)]
            more = max(parts, key=lambda part: part[0])
            total, scatters = total + more[0], scatters + more[1]
            continue
        inside = every.get(_named(each.line, "calls"), [])
        scatters += any(one.kind == "scatter" for one in inside) or each.kind == "scatter"
        total += n_bytes(each.shape) - _updated_in_place(inside)
        for place, operand in enumerate(each.operands):
            total += _read(inside, place, n_bytes(shapes.get(operand, "")))
    return total, scatters


def _named(line: str, key: str) -> str:
    found = re.search(rf"\b{key}=%?([\w.\-]+)", line)
    return found[1] if found else ""


def _branches(line: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", line)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return [_named(line, key) for key in ("true_computation", "false_computation")]


def _updated_in_place(inside: list[Operation]) -> int:
    """Return the bytes of a fusion's result that it leaves as they were."""
    shapes = {one.name: one.shape for one in inside}
    total = 0
    for one in inside:
        if one.kind == "dynamic-update-slice":
            total += max(0, n_bytes(one.shape) - n_bytes(shapes.get(one.operands[1], "")))
        elif one.kind == "scatter" and len(one.operands) > 2:
            kept = n_bytes(one.shape) - n_bytes(shapes.get(one.operands[-1], ""))
            total += max(0, kept)
    return total


def _read(inside: list[Operation], place: int, whole: int) -> int:
    """Return how many bytes a kernel reads of an operand."""
    names = [one.name for one in inside if f" parameter({place})" in one.line]
    return min(whole, _touched(inside, names[0], whole)) if names else whole


def _touched(inside: list[Operation], name: str, whole: int) -> int:
    total = 0
    for one in inside:
        if name not in one.operands:
            continue
        if one.kind in ("dynamic-slice", "slice") or (
            one.kind == "gather" and one.operands[0] == name
        ):
            total += n_bytes(one.shape)
        elif one.kind in ("bitcast", "convert", "reshape"):
            total += _touched(inside, one.name, whole)
        elif one.kind in ("dynamic-update-slice", "scatter") and one.operands[0] == name:
            continue
        else:
            return whole
    return total
