"""Hostile files by the thousand: NIfTI headers, JSON texts and file names, made by hypothesis.

Whatever a file holds, the program answers with an error that names it, in one line, or reads it.
It prints nothing else: neither a warning of Python's nor a line that a library writes to the
terminal past Python. `tests/test_fuzz.py` runs each target on some dozens or hundreds of inputs
that are the same each time. For longer, with other inputs each time:

    python -m tests.fuzz --minutes 60 headers texts names
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz_checks import check_header, check_names, check_text
from tests.fuzz_inputs import TEXTS, names, nifti_files, texts

TARGETS: dict[str, tuple[st.SearchStrategy, Callable[[Any], str]]] = {
    "headers": (nifti_files(), check_header),
    "texts": (st.tuples(st.sampled_from(TEXTS), texts()), check_text),
    "names": (names(), check_names),
}
"""What is fuzzed: inputs, and the check that each has to pass."""


@contextlib.contextmanager
def nothing_printed() -> Iterator[None]:
    """Require that a block writes nothing to the terminal and warns of nothing.

    Libraries in C and C++ write to the file descriptors themselves. Warnings that Python does not
    show to users (of deprecation, of resources) are left out.
    """
    with tempfile.TemporaryFile() as written, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        kept = {number: os.dup(number) for number in (1, 2)}
        for number in kept:
            os.dup2(written.fileno(), number)
        try:
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
        written.seek(0)
        text = written.read()
    assert not text, f"printed: {text[:1000]!r}"
    assert not warned, f"warned: {'; '.join(map(str, warned))}"


def run(target: str, n_examples: int, start: int, until: float = float("inf")) -> Counter[str]:
    """Check a target on drawn inputs; return how many ended in which way.

    Parameters
    ----------
    target : a key of `TARGETS`
    n_examples : number of inputs
    start : seed of the random numbers
    until : time of the monotonic clock, s; inputs that come later are not checked

    Raises
    ------
    Exception
        What the smallest input raises that fails.
    """
    inputs, check = TARGETS[target]
    ended: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=n_examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(inputs)
    def each(value: Any) -> None:
        if time.monotonic() < until:
            with nothing_printed():
                how = check(value)
            ended[how] += 1

    each()
    return ended


def main() -> int:
    """Run targets in turn until the time is over; return 1 if an input has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    sums: dict[str, Counter[str]] = {target: Counter() for target in arguments.targets}
    while time.monotonic() < end:
        for target in arguments.targets:
            start = random.randrange(2**32)
            try:
                sums[target] += run(target, 100, start, end)
            except Exception:
                traceback.print_exc()
                print(f"{target}: failed with seed {start}")
                return 1
    for target, ended in sums.items():
        print(f"{target}: {ended.total()} inputs, {dict(ended.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
