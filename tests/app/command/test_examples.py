"""The files for Nipoppy and BABS: their flags exist, and what they look for is what is written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from n4ax_bids.app import cli
from n4ax_bids.app.command import descriptor
from n4ax_bids.app.command.parser import build_parser

ROOT = Path(__file__).parents[3]
NIPOPPY, BABS = ROOT / "examples" / "nipoppy", ROOT / "examples" / "babs" / "n4ax-bids.yaml"


def read(name: str) -> dict:
    return json.loads((NIPOPPY / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [n for n in descriptor.DESCRIPTORS if n != "nipoppy"])
def test_every_descriptor_names_the_image_and_resources(name):
    found = json.loads((ROOT / "boutiques" / f"{name}.json").read_text(encoding="utf-8"))
    version = found["tool-version"]
    assert found["container-image"] == {"type": "docker", "image": f"n4ax-bids:{version}-cuda12"}
    assert {"cpu-cores", "ram", "walltime-estimate"} == set(found["suggested-resources"])
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(ROOT / "boutiques" / f"{name}.json")])


def test_nipoppy_runs_one_session_with_its_descriptor(tmp_path):
    """Where the first line fails: make the file anew with

    python -m n4ax_bids.app.command.descriptor VERSION nipoppy > examples/nipoppy/descriptor.json
    """
    text = (NIPOPPY / "descriptor.json").read_text(encoding="utf-8")
    version = read("descriptor")["tool-version"]
    assert text == descriptor.encode(descriptor.nipoppy_descriptor(version))
    assert read("config")["VERSION"] == version
    bosh = pytest.importorskip("boutiques").bosh
    bosh(["validate", str(NIPOPPY / "descriptor.json")])
    invocation = tmp_path / "invocation.json"
    filled = json.dumps(read("invocation")).replace("[[NIPOPPY_PARTICIPANT_ID]]", "01")
    invocation.write_text(re.sub(r"\[\[NIPOPPY_(\w+)\]\]", r"\1", filled))
    made = bosh(["exec", "simulate", str(NIPOPPY / "descriptor.json"), "-i", str(invocation)])
    command = re.search(r"^n4ax-bids (.*)$", str(made), flags=re.MULTILINE)[1]
    asked = build_parser().parse_args(command.split())
    assert asked.participant_label == ["01"] and asked.session_label == ["SESSION_ID"]
    assert str(asked.output_dir) == "DPATH_PIPELINE_OUTPUT" and asked.nprocs == 4


def test_nipoppys_tracker_finds_what_a_run_writes(make_dataset, fake_node, tmp_path):
    root = make_dataset("sub-01/ses-1/anat/sub-01_ses-1_run-1_T1w.nii.gz")
    out = tmp_path / "out"
    assert cli.main([str(root), str(out), "participant"]) == 0
    places = {"PARTICIPANT": "sub-01", "SESSION": "ses-1"}
    for path in read("tracker")["PATHS"]:
        for what, label in places.items():
            path = path.replace(f"[[NIPOPPY_BIDS_{what}_ID]]", label)
        assert "[[" not in path and list(out.glob(path)), path


@pytest.mark.clients
def test_nipoppy_takes_the_files():
    beside = Path(sys.executable).with_name("nipoppy")
    program = str(beside) if beside.exists() else shutil.which("nipoppy")
    if program is None:
        pytest.skip("nipoppy is not installed")
    words = [program, "pipeline", "validate", str(NIPOPPY)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all valid" in " ".join(done.stdout.split())


def test_babs_passes_flags_that_exist():
    found = yaml.safe_load(BABS.read_text(encoding="utf-8"))
    words = ["/raw", "/out", "participant"]
    for flag, value in found["bids_app_args"].items():
        flag, value = (value, "01") if flag == "$SUBJECT_SELECTION_FLAG" else (flag, value)
        words += [flag, *value.replace("$BABS_TMPDIR", "/tmp").split()]
    asked = build_parser().parse_args(words)
    assert (asked.participant_label, asked.nprocs) == (["01"], 4)
    assert asked.apply_to == ["FLAIR", "bold", "dwi"]
    version = read("descriptor")["tool-version"].replace(".", "-")
    assert found["zip_foldernames"] == {"n4ax_bids": version}
