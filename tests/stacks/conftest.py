"""A stack with a known field, and its correction."""

from __future__ import annotations

import pytest

from tests.core.stack.stacks import ellipsoid, solved


@pytest.fixture(scope="module")
def known():
    """The ellipsoid that `solved` corrects."""
    return ellipsoid()


@pytest.fixture(scope="module")
def whole():
    """The ellipsoid's correction in memory, which files have to give too."""
    return solved()
