"""Boxes, and numbers in words."""

from __future__ import annotations

import pytest

from n4ax_bids.report import measures


def test_box_of_known_values():
    found = measures.box([*range(1, 10), 30])
    assert (found.first, found.median, found.third) == (3.25, 5.5, 7.75)
    assert (found.low, found.high) == (1, 9)  # 7.75 + 1.5 * 4.5 = 14.5 leaves 30 out
    assert found.holds(9) and not found.holds(30) and not found.holds(0)


def test_few_values_have_no_box():
    assert measures.box([1, 2, 3, 900]) is None


def test_among_equal_values_another_one_stands_out():
    found = measures.box([200] * 9 + [150])
    assert found.holds(200) and not found.holds(150)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (3, "3"),
        (0.123456, "0.123"),
        (1864.3, "1864"),
        (93315.4, "93315"),
        (1e-7, "1e-07"),
        (0, "0"),
    ],
)
def test_numbers_in_words(value, text):
    assert measures.text(value) == text


@pytest.mark.parametrize(("ratio", "text"), [(1, "+0 %"), (0.742, "−25.8 %"), (4.5, "+350 %")])
def test_ratios_in_percent(ratio, text):
    assert measures.percent(ratio) == text


@pytest.mark.parametrize("value", [None, "x", True, float("nan"), float("inf")])
def test_what_is_no_number(value):
    assert measures.number({"a": value}, "a") is None
    assert measures.number({}, "a") is None


def test_each_measure_has_its_own_name_and_label():
    for key in ("name", "label"):
        assert len({getattr(m, key) for m in measures.COMMON}) == len(measures.COMMON)
