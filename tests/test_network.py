"""Nothing of ours asks a host on the network; nipype does once, unless NIPYPE_NO_ET is set."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nb
import numpy as np
import pytest

PROGRAM = """
import json, sys, traceback

asked = []

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        if event == "socket.connect" and isinstance(args[1], (str, bytes)):
            return  # of this machine: a path, not an address
        asked.append([frame.name for frame in traceback.extract_stack()])
        raise OSError("no network in this test")

sys.addaudithook(hook)
import n4ax_bids
from n4ax_bids.interfaces import N4BiasFieldCorrection
node = N4BiasFieldCorrection(n_iterations=[2], device="cpu")
built = len(asked)
node.inputs.input_image = sys.argv[1]
node.run(cwd=sys.argv[2])
print(json.dumps([built, asked]))
"""


@pytest.fixture
def network(tmp_path, rng):
    """Build and run the node; return how often it asks when it is built, and who asks."""
    nb.Nifti1Image(rng.uniform(1, 9, (9, 9, 9)).astype(np.float32), np.eye(4)).to_filename(
        tmp_path / "a.nii"
    )

    def ask(**variables):
        environment = {k: v for k, v in os.environ.items() if k != "NIPYPE_NO_ET"}
        environment |= {"HOME": str(tmp_path), **variables}
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "a.nii"), str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


def test_importing_building_and_running_the_node_asks_nobody(network):
    assert network(NIPYPE_NO_ET="1") == [0, []]


def test_without_the_variable_nipype_asks_and_nothing_of_ours(network):
    """It does so when an interface is built for the first time."""
    built, asked = network()
    assert built >= 1  # or this test sees nothing
    assert all("check_latest_version" in names for names in asked)
