"""If a process of an engine is killed, the other images succeed and the run ends normally."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.app.images.records import done, marks

THREE = [f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz" for n in range(1, 4)]
BAD = "sub-02"

# Every Python process of a run imports this before anything else, so the workers of MultiProc have
# the patched node although they are not forked from the run: a fork of a process with the threads
# of JAX may hang. One image kills its worker, or the whole run as when a machine is out of memory.
PATCH = """
import os, signal, time
from pathlib import Path
from n4ax_bids.interfaces import BiasFieldCorrection as Node

bad, whom, gate = (os.environ[name] for name in ("KILL_BAD", "KILL_WHOM", "KILL_GATE"))
run = Node._run_interface

def killing(self, runtime):
    name = Path(self.inputs.input_image).name[:6]
    Path(gate, name).touch()
    if bad == name:
        # The other worker has begun an image too, except in a run that has only this image.
        while not any(Path(gate).glob("sub-0[13]")):
            time.sleep(0.05)
        if whom == "run":
            os.kill(int(Path(gate, "pid").read_text()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    elif bad and not Path(gate, "again").exists():
        time.sleep(600)  # killed meanwhile
    return run(self, runtime)

Node._run_interface = killing
"""
FAST = ["--device", "cpu", "--n-iterations", "2", "--skip-bids-validation"]
FAST += ["--no-reports", "--mask", "otsu"]  # finding a brain takes longer than the rest


@pytest.fixture
def program(make_dataset, tmp_path):
    """Run in a process of its own; return status and log."""
    root, out, gate = make_dataset(*THREE), tmp_path / "out", tmp_path / "gate"
    gate.mkdir()
    engine = tmp_path / "plugin.yml"
    engine.write_text("plugin: MultiProc\nplugin_args: {n_procs: 2}\n")
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(PATCH)
    path = os.pathsep.join(filter(None, (str(patch), os.environ.get("PYTHONPATH"))))

    def run(*flags, bad=BAD, whom="worker"):
        words = [str(root), str(out), "participant", *FAST, "--use-plugin", str(engine), *flags]
        mine = {"KILL_BAD": bad, "KILL_WHOM": whom, "KILL_GATE": str(gate), "PYTHONPATH": path}
        log = tmp_path / "log"
        with open(log, "w") as file:  # no pipe: workers outlive a run that is killed
            process = subprocess.Popen(
                [sys.executable, "-m", "n4ax_bids", *words],
                stdout=file,
                stderr=file,
                env={**os.environ, "JAX_PLATFORMS": "cpu", **mine},
                start_new_session=True,
            )
        (gate / "pid").write_text(str(process.pid))
        try:
            process.wait(300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode, log.read_text()

    run.out, run.gate = out, gate
    return run


def test_an_image_that_kills_its_worker_fails_alone(program):
    """nipype itself waits for the result of a killed worker for ever."""
    (program.gate / "again").touch()
    status, log = program()
    assert status == 1
    (error,) = (line for line in log.splitlines() if " ERROR " in line)
    assert "sub-02_T1w: failed: its process was killed twice" in error
    assert "2 of 3 images corrected, 1 failed" in log and "Traceback" not in log
    assert done(program.out) == ["sub-01", "sub-03"] and marks(program.out) == {}
    assert not list((program.out / "logs" / "claims").iterdir())


def test_an_image_that_kills_the_run_is_set_aside(program):
    assert program(whom="run")[0] == -9
    found = marks(program.out)
    assert found[BAD] == (1, False) and len(found) == 2  # two workers
    (program.gate / "again").touch()
    assert program(whom="run")[0] == -9
    assert marks(program.out)[BAD] == (2, True)
    status, log = program(whom="run")
    assert status == 1 and done(program.out) == ["sub-01", "sub-03"]
    (error,) = (line for line in log.splitlines() if " ERROR " in line)
    assert THREE[1] in error and "set aside, because 2 runs were killed" in error
    assert program("--overwrite", bad="")[0] == 0
    assert marks(program.out) == {} and len(done(program.out)) == 3
