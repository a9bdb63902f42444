"""Options from a TOML file, and the options of a run written as such a file."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from n4ax_bids.app import cli, run
from n4ax_bids.app.command import config
from n4ax_bids.app.status import Status


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Parse a command line with a configuration file and return the request."""

    def parse(text, *flags):
        path = tmp_path / "config.toml"
        path.write_text(text)
        caught = []
        monkeypatch.setattr(run, "run", lambda request: caught.append(request) or Status.OK)
        words = ["/raw", "/out", "participant", "--config-file", str(path), *flags]
        assert cli.main(words) == 0
        return caught[0]

    return parse


def test_every_kind_of_value(asked):
    request = asked(
        """
        participant-label = ["sub-01", "02"]
        run-id = 1
        modalities = ["T1w", "FLAIR"]
        mem = "800M"
        nprocs = 2
        desc = "preproc"
        no-bias-field = true
        skip-bids-validation = false
        refine = false
        verbose = 1
        n_iterations = [7, 5]
        histogram-sharpening = [0.2, 0.02, 100]
        convergence-threshold = 1e-5
        """
    )
    assert request.participants == ("01", "02")
    assert request.runs == ("1",)
    assert request.modalities == ("T1w", "FLAIR")
    assert (request.mem, request.nprocs, request.desc) == (800_000_000, 2, "preproc")
    assert (request.bias_field, request.validate) == (False, True)
    assert (request.options.refine, request.options.n_iterations) == (False, (7, 5))
    assert request.options.histogram_sharpening == (0.2, 0.02, 100)
    assert request.options.convergence_threshold == 1e-5


def test_the_command_line_wins(asked):
    text = 'desc = "a"\npreset = "robust"\nparticipant-label = ["01"]\nrefine = false\n'
    request = asked(text, "--desc", "b", "--participant-label", "02", "03", "--refine")
    assert (request.desc, request.participants) == ("b", ("02", "03"))
    assert request.options.refine is True
    assert request.preset == "robust"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a =", "not readable as TOML"),
        ("colour = 1", "no option colour; there are: accept-new-source, adapt, apply-to, "),
        ('config-file = "x"', "no option config-file"),
        ('nprocs = "two"', "--nprocs: invalid int value: 'two'"),
        ("nprocs = [1, 2]", "nprocs is [1, 2]; expected one value"),
        ("sloppy = 1", "sloppy is 1; expected true or false"),
        ("desc = true", "desc is True; expected a word, a number or a list"),
        ("participant-label = []", "participant-label is []; expected one value"),
        ('mask = "skull"', "--mask: invalid choice: 'skull'"),
        ("[desc]\nx = 1", "expected a word, a number or a list"),
        ("shrink-factor = 0", "shrink_factor is 0; expected at least 1"),
    ],
)
def test_what_is_no_option(tmp_path, capsys, text, words):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        cli.main(["/raw", "/out", "participant", "--config-file", str(path)])
    assert caught.value.code == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert words in line
    assert str(path) in line or "shrink" in words


@pytest.mark.parametrize(
    "text",
    [
        'work-dir = "a\\u0000b"',
        'bids-database-dir = "a\\u0000b"',
        'participant-label = ["a\\u0000b"]',
        'use-plugin = "\\u0000"',
    ],
)
def test_a_word_with_a_zero_byte(tmp_path, capsys, text):
    """Neither a command line nor a file name can contain one."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "--config-file", str(path)])
    key = text.partition(" ")[0]
    assert f"{path}: {key} holds a zero byte; expected text without it" in capsys.readouterr().err


@pytest.mark.parametrize("number", [-1, 4, 10**9])
def test_a_count_is_small(tmp_path, capsys, number):
    """Repeating the flag a hundred thousand times took minutes."""
    path = tmp_path / "config.toml"
    path.write_text(f"verbose = {number}")
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "--config-file", str(path)])
    assert f"verbose is {number}; expected a number from 0 to 3" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "--config-file", str(tmp_path / "no.toml")])
    assert "no.toml: not readable as TOML" in capsys.readouterr().err


def test_a_snapshot_is_a_configuration_file_of_the_same_run(asked, tmp_path):
    (tmp_path / "prep").mkdir()
    (tmp_path / "filters.json").write_text('{"t1w": {"run": 1}}')
    flags = ["--preset", "robust", "--sloppy", "--shrink-start", "0", "1", "0", "--no-refine"]
    flags += ["-m", "T1w", "PDw", "--session-label", "a", "-d", f"x={tmp_path / 'prep'}"]
    flags += ["--weight", "WM", "--mem", "2", "-w", "work", "--output-dtype", "source"]
    flags += ["--bids-filter-file", str(tmp_path / "filters.json"), "--device", "gpu:1", "-v"]
    first = asked("", *flags)
    again = asked(first.snapshot)
    assert again == first
    assert replace(again, snapshot="", run_id="") == replace(first, snapshot="", run_id="")
    about = tomllib.loads(first.snapshot)["run"]
    assert about["id"] == first.run_id
    assert about["bids_dir"] == "/raw"
    assert {"jax", "nipype", "pybids"} <= set(about["versions"])


@pytest.mark.parametrize(
    ("text", "flags", "factor", "distance"),
    [
        ("", [], 4, 4.0),
        ("shrink-factor = 2", [], 2, None),
        ("shrink-mm = 3", [], 4, 3.0),
        ("shrink-factor = 2\nshrink-mm = 3", [], 2, 3.0),
        ("shrink-factor = 4\nshrink-mm = 4", ["--shrink-factor", "2"], 2, None),
        ("shrink-factor = 2", ["--shrink-mm", "3"], 2, 3.0),
        ("shrink-mm = 3", ["--shrink-factor", "2", "--shrink-mm", "5"], 2, 5.0),
        ('preset = "ants"', [], 4, None),
        ('preset = "ants"', ["--preset", "standard"], 4, 4.0),
        ('preset = "ants"\nmask = "otsu"', ["--mask", "auto"], 4, None),
    ],
)
def test_a_shrink_factor_replaces_a_distance_that_counts_less(
    asked, text, flags, factor, distance
):
    options = asked(text, *flags).options
    assert (options.shrink_factor, options.shrink_mm) == (factor, distance)


@pytest.mark.parametrize("flags", ([], ["--shrink-factor", "2"], ["--preset", "ants"]))
def test_a_snapshot_keeps_distance_and_shrink_factor(asked, flags):
    first = asked("", *flags)
    assert asked(first.snapshot).options == first.options


def test_a_run_leaves_its_snapshot(fake_node, make_dataset, tmp_path):
    out = tmp_path / "out"
    words = [str(make_dataset("sub-01/anat/sub-01_T1w.nii.gz")), str(out), "participant"]
    assert cli.main([*words, "--over-relaxation", "1.3"]) == 0
    (path,) = (out / "logs").glob("*/options.toml")
    found = tomllib.loads(path.read_text())
    assert found["run"]["id"] == path.parent.name
    assert found["over-relaxation"] == 1.3
    assert set(found) - {"run"} <= set(config.options())
