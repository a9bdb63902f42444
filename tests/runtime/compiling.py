"""Processes that compile small programs, and what they leave in a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
import jax, numpy as np
from n4ax_bids.runtime import compilation

counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rsplit("/", 1)[-1]
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(count)

with compilation.kept():
    for n in range(3, 9):
        jax.block_until_ready(jax.jit(lambda x: (x @ x.T + n).sum())(np.ones((n, n), np.float32)))
print(json.dumps(counts))
"""


def start(folder, program=PROGRAM, **environment):
    chosen = {} if folder is None else {"N4AX_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **chosen, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def programs(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.name.endswith("-cache"))
