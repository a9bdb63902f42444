"""How long a restart takes over a dataset whose images are all finished.

`python -m benchmarks.restart` makes N participants with a small image each, and has a run finish
them all with a node that only pretends to correct. Then it starts the program anew, as a person
does after a run was killed, and prints the time until it has found that nothing is left to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from benchmarks.machine import processor

RUN = "import sys; from n4ax_bids.app.cli import program; sys.exit(program())"
FINISH = "import sys; from benchmarks.restart import finish; sys.exit(finish(sys.argv[1:]))"
FLAGS = ("--skip-bids-validation", "--no-reports", "--device", "cpu")


class Pretending:
    """Stands for the node: its outputs are copies of the input, made in no time."""

    def __init__(self, **inputs: object) -> None:
        self.inputs = SimpleNamespace(**inputs)

    def run(self, cwd: str) -> SimpleNamespace:
        """Write the outputs that a correction has."""
        content = Path(self.inputs.input_image).read_bytes()
        names = ("output_image", "bias_image", "lattice_image")
        made = {name: str(getattr(self.inputs, name)) for name in names}
        for path in made.values():
            Path(path).write_bytes(content)
        correction = {
            "lattice": {},
            "mask": "otsu",
            "n_voxels_mask": 7,
            "non_positive": 0,
            "device": "none",
            "method": "n4",
            "details": {"n_voxels_used": 7},
            "field_min": 1.9,
            "field_max": 2.1,
            "field_cv": 0.1,
            "sha256": {"input_image": hashlib.sha256(content).hexdigest()},
        }
        return SimpleNamespace(outputs=SimpleNamespace(**made, correction=correction))


def finish(words: Sequence[str]) -> int:
    """Run the program with the pretending node."""
    from n4ax_bids import interfaces
    from n4ax_bids.app import cli
    from n4ax_bids.app.machine import pool

    interfaces.BiasFieldCorrection = Pretending
    pool.start = lambda share: "none"
    return cli.main(list(words))


def make_dataset(root: Path, n: int) -> None:
    """Write a BIDS dataset of n participants with an image of 16³ voxels each."""
    import nibabel as nb
    import numpy as np

    description = {"Name": "restart", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps(description))
    rng = np.random.default_rng(0)
    for number in range(n):
        name = f"sub-{number:05}"
        (root / name / "anat").mkdir(parents=True)
        voxels = rng.integers(1, 1000, (16, 16, 16)).astype(np.int16)
        nb.Nifti1Image(voxels, np.eye(4)).to_filename(root / name / "anat" / f"{name}_T1w.nii.gz")


def run(code: str, words: Sequence[str]) -> tuple[float, float, str]:
    """Run Python in a process of its own; return wall and processor time, s, and the log."""
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    return wall, sum(after[2:4]) - sum(before[2:4]), done.stderr


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__)
    parser.add_argument("-n", type=int, default=2000, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="restarts (default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(processor())
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, "raw"), Path(folder, "out")
        make_dataset(raw, arguments.n)
        words = [str(raw), str(out), "participant", *FLAGS]
        wall, _, _ = run(FINISH, words)
        print(f"finished {arguments.n} images, pretending: {wall:.1f} s")
        for _ in range(arguments.repeats):
            wall, cpu, log = run(RUN, words)
            found = f"0 of {arguments.n} images corrected"
            if found not in log:
                raise SystemExit(f"expected {found!r} in the log:\n{log}")
            print(f"restart: {wall:.1f} s, {cpu:.1f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
