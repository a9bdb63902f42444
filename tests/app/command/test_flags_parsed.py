"""Flags of `n4ax-bids` as they are parsed: spellings, values, and that each has test and words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.command import asked, parser


def test_every_flag_is_used_by_a_test():
    """Whether the test shows the effect of the flag must be reviewed by a person."""
    text = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    for action in parser.build_parser()._actions:
        if action.option_strings and action.dest != "help":
            used = [f for f in action.option_strings if re.search(rf"[\"' ]{f}[\"' =]", text)]
            assert used, action.option_strings


def test_random_seed_is_the_seed_of_the_method():
    def seed(*flags):
        arguments = asked.parse(["/raw", "/out", "participant", "--method", "zeroshot", *flags])
        return asked.options_of(arguments).seed

    assert (seed(), seed("--random-seed", "7")) == (0, 7)
    assert seed("--random-seed", "7", "--seed", "3") == 3


@pytest.mark.parametrize("value", ["-1", "0.5", "many"])
def test_random_seed_is_a_whole_number(value, capsys):
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "--random-seed", value])
    assert "argument --random-seed: " in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    "names",
    [
        ("--nprocs", "--nthreads", "--n_cpus", "--n-cpus"),
        ("--mem", "--mem_mb", "--mem-mb"),
        ("--random-seed", "--random_seed"),
    ],
)
def test_the_spellings_of_other_programs_mean_the_same(names):
    given = {
        name: vars(asked.parse(["/raw", "/out", "participant", name, "150"])) for name in names
    }
    assert all(each == given[names[0]] for each in given.values())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--output-spaces", "MNI152NLin2009cAsym"], "images stay on their own grid"),
        (["--output-layout", "legacy"], "outputs always have the layout bids"),
    ],
)
def test_flags_without_meaning_here_say_why(words, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["/raw", "/out", "participant", *words])
    line = capsys.readouterr().err.splitlines()[0]
    assert ended.value.code == 2 and words[0] in line and reason in line
    usage = (Path(__file__).parents[3] / "docs" / "usage.md").read_text(encoding="utf-8")
    assert f"`{words[0]}`" in usage


def test_every_flag_is_in_the_documentation():
    docs = Path(__file__).parents[3] / "docs"
    names = ("usage.md", "zero-shot.md", "serial-sections.md", "realign.md", "beyond-n4.md")
    text = "".join((docs / name).read_text("utf-8") for name in names)
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    for action in parser.build_parser()._actions:
        if action.option_strings and action.dest != "help":
            flags = [f"`{flag}" for flag in action.option_strings]
            named = [f"`{action.dest}`"]  # solver options have a table of their own
            assert any(each in row for row in rows for each in (*flags, *named)), flags


def test_the_readme_begins_with_a_dry_run():
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^n4ax-bids .*$", text, flags=re.MULTILINE)
    assert commands[0].endswith("--dry-run")
