"""Where values stand on the scale of the strips."""

from __future__ import annotations

import re

import pytest

from n4ax_bids.report.distribution import LEFT, RIGHT, WIDTH, Point, strips


def places(values):
    """Where the dots of these values are, from 0 to 1 along the scale."""
    points = [Point(value, f"sub-{n}", "sub.html", False) for n, value in enumerate(values)]
    found = re.findall(r'<circle[^>]* cx="([^"]+)"', strips({("T1w", ""): (points, None)}))
    assert len(found) == len(values)
    return [(float(x) - LEFT) / (WIDTH - LEFT - RIGHT) for x in found]


@pytest.mark.parametrize("low", (-1.0, 0.0, 0.7, 1e3))
def test_the_extremes_are_as_far_from_the_ends_whatever_their_level(low):
    margin = 0.04 / 1.08  # 4 % of the range on each side of it
    expected = [margin, 0.5, 1 - margin]
    assert places([low, low + 1, low + 2]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("value", (-3.0, 0.0, 1e-9, 5.0))
def test_equal_values_are_in_the_middle(value):
    assert places([value] * 3) == pytest.approx([0.5] * 3, abs=1e-3)
