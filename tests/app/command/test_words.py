"""Single words of the command line."""

from __future__ import annotations

import argparse

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.command import words


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 2 TB."""
    monkeypatch.setattr(words, "all_memory", lambda: 2 * 10**12)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("16000", 16 * 10**9),
        ("1.5", 1_500_000),
        ("8G", 8 * 10**9),
        ("8GB", 8 * 10**9),
        ("8 gb", 8 * 10**9),
        ("800M", 800 * 10**6),
        ("800mb", 800 * 10**6),
        ("5K", 5000),
        ("1T", 10**12),
        ("8GiB", 8 * 2**30),
        ("512mib", 512 * 2**20),
        ("123456789B", 123456789),
    ],
)
def test_memory_is_mb_unless_it_has_a_unit(text, n_bytes):
    assert words.memory(text) == n_bytes


@pytest.mark.parametrize(
    ("text", "words_of_it"),
    [
        ("16000000", "16000000, read as MB (16,000.0 GB); the machine has 2,000.0 GB"),
        ("3T", "3T; the machine has 2,000.0 GB (2000000 MB); expected no more than that"),
    ],
)
def test_memory_that_the_machine_does_not_have(text, words_of_it):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        words.memory(text)
    assert words_of_it in str(caught.value)


@pytest.mark.parametrize("text", ["", "G", "8X", "8iB", "8BB", "-1", "0", "nan", "inf", "8 G G"])
def test_memory_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        words.memory(text)


@pytest.mark.parametrize("text", ["", "a_b", "a-b", "a.b", "biasfield", "biaslattice", "é"])
def test_a_desc_that_bids_or_another_output_does_not_allow(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected letters and digits"):
        words.desc(text)


def test_labels_lose_their_prefix_once():
    assert [words.label("sub-")(text) for text in ("01", "sub-01", "sub-sub-1")] == [
        "01",
        "01",
        "sub-1",
    ]


@pytest.mark.parametrize("text", ["auto", "cpu", "gpu", "gpu:0", "gpu:12"])
def test_devices(text):
    assert words.device(text) == text


@pytest.mark.parametrize("text", ["", "tpu", "gpu:", "gpu:a", "cpu:0"])
def test_no_devices(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected auto, cpu, gpu or gpu:N"):
        words.device(text)


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("1", ["001", "011", "1a"], "001"),
        ("0001", ["001", "01"], "001"),
        ("T1W", ["T2w", "T1w"], "T1w"),
        ("FLAIRR", ["T1w", "FLAIR"], "FLAIR"),
    ],
)
def test_what_was_meant(word, known, near):
    assert words.did_you_mean(word, known) == f" (did you mean {near}?)"


@pytest.mark.parametrize(("word", "known"), [("3", ["1", "2", "13"]), ("x", ["abc"]), ("3", [])])
def test_nothing_is_near(word, known):
    assert words.did_you_mean(word, known) == ""


def test_words_that_were_typed_by_a_word_processor(capsys):
    with pytest.raises(SystemExit):
        cli.main(["/raw", "/out", "participant", "\u2013\u2013dry-run"])
    line = capsys.readouterr().err.splitlines()[0]
    assert "begins with EN DASH (U+2013); expected two hyphens: --dry-run" in line


@pytest.mark.parametrize("text", ["50X40", "50,40", "[50x40]", "50x40"])
def test_iterations_in_other_spellings(text):
    assert words.series(int)(text) == [50, 40]


@pytest.mark.parametrize(("word", "near"), [("sub01", "01"), ("ses2", "2"), ("SUB01", "01")])
def test_a_label_with_its_kind_in_front(word, near):
    assert words.did_you_mean(word, ["01", "2"]) == f" (did you mean {near}?)"
