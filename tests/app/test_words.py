"""Single words of the command line."""

from __future__ import annotations

import argparse

import pytest

from n4ax_bids.app import words


@pytest.mark.parametrize(
    ("text", "gb"),
    [("2", 2), ("1.5", 1.5), ("8G", 8), ("8GB", 8), ("800M", 0.8), ("800mb", 0.8), ("1T", 1000)],
)
def test_memory_is_gb_unless_it_has_a_unit(text, gb):
    assert words.memory(text) == pytest.approx(gb, rel=1e-15)


@pytest.mark.parametrize("text", ["", "G", "8X", "-1", "0", "nan", "inf", "8 G G"])
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
