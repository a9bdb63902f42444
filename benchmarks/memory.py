"""How much memory the solve takes, each row in a process of its own.

Beside it stands what the program itself expects (`n4ax_bids.core.n4.take.Taken.n_bytes`), by
which it chooses slabs.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks import images
from benchmarks.machine import ROOT, arguments, figure, head, publish, row, size

SLABS = (0, 4, 16)
QUICK = (("full resolution", 1, (4,)),)


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("memory", __doc__, argv)
    publish(given, "Peak memory of the solve", page(given))


def page(given: argparse.Namespace) -> Iterator[str]:
    image = images.usual(given)
    volume = 4 * image.values.size
    on_gpu = given.device != "cpu"
    yield (
        f"Image: {image.name}, {size(image.values.shape)}; one float32 volume of it takes "
        f"{megabytes(volume)} MB. Otsu's mask, 2 + 2 iterations. Each row is a separate process, "
        "which first solves a tiny image, so that memory left over from compiling is not counted. "
        "*Solve*: the peak during the solve minus the memory in use before it, with image and "
        f"mask in memory{' of the device' if on_gpu else ''}. *Expected*: the memory that the "
        "program expects for its voxels; on the host, laying them out takes more. Slabs are "
        "forced with the argument `memory` of `estimate`. *Process*: peak resident memory, "
        "including Python and JAX."
    )
    yield ""
    yield from head(
        "work",
        "arrays on",
        "slabs",
        "solve, MB",
        "in volumes",
        "expected, MB",
        "solve / expected",
        "process, MB",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.npy")
        np.save(path, image.values)
        works = (("full resolution", 1, SLABS), ("shrink 4", 4, SLABS[:1]))
        for name, shrink, slabs_of in QUICK if given.quick else works:
            cases = [("host", slabs) for slabs in slabs_of]
            for place, slabs in [*cases, *([("device", 0)] if on_gpu else [])]:
                found = measured(path, given.device, shrink, slabs, place)
                yield row(
                    name,
                    place,
                    slabs or "none",
                    megabytes(found["solve"]),
                    figure(found["solve"] / volume),
                    megabytes(found["expected"]),
                    figure(found["solve"] / found["expected"]),
                    megabytes(found["process"]),
                )


def megabytes(n: float) -> str:
    return figure(n / 1e6)


def measured(path: Path, device: str, shrink: int, slabs: int, place: str) -> dict[str, int]:
    """Run one case in a fresh process and return its bytes."""
    words = [str(path), device, str(shrink), str(slabs), place]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.memory import child; child()", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    return ast.literal_eval(done.stdout.splitlines()[-1])


def child() -> None:
    """Solve one image and print the bytes that it took."""
    from benchmarks.machine import computing_on
    from n4ax_bids.core.n4.estimate import estimate
    from n4ax_bids.core.n4.plan import plan
    from n4ax_bids.core.n4.take import take
    from n4ax_bids.core.threshold import otsu_mask
    from n4ax_bids.options import N4Options

    path, name, shrink, slabs, place = sys.argv[1:]
    options = N4Options(shrink_factor=int(shrink), n_iterations=(2, 2))
    image = np.load(path)
    mask = otsu_mask(image)
    tiny = images.synthetic((16, 16, 16)).values

    def expect(image, mask) -> int:
        with jax.enable_x64(True):
            taken = take(image, mask, None, plan(options, image.shape))
        return taken.n_bytes(int(slabs))

    def solve(image, mask, expected: int) -> None:
        estimate(image, mask, plan=plan(options, image.shape), memory=expected)

    with computing_on(name) as device:
        solve(tiny, tiny > 0.2, expect(tiny, tiny > 0.2))
        if place == "device":
            image, mask = (jax.device_put(array, device) for array in (image, mask))
        expected = expect(image, mask)
        before, high = _bytes_held(device), _resident("VmHWM")
        solve(image, mask, expected)
        after = _bytes_at_peak(device)
    process = max(high, _resident("VmHWM"))
    print({"solve": after - before, "expected": expected, "process": process})


def _bytes_held(device: jax.Device) -> int:
    """Return the bytes in use; on the host, begin to look for a new peak."""
    if device.platform != "cpu":
        return device.memory_stats()["bytes_in_use"]
    with contextlib.suppress(OSError):  # else the peak since the start of the process is seen
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _bytes_at_peak(device: jax.Device) -> int:
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"]
    return _resident("VmHWM")


def _resident(kind: str) -> int:
    """Return this process's own memory, now or at its highest.

    The figure of `resource.getrusage` would include its parent's at the fork.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status does not tell {kind}")


if __name__ == "__main__":
    main()
