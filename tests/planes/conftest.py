"""The stack with a known field and its correction that the tests of streams have as well."""

from __future__ import annotations

from tests.stacks.conftest import known, whole  # noqa: F401  fixtures
