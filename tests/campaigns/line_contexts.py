"""A pytest plugin: has coverage note which test executes which line, in its processes too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Coverage's settings give its value to every process that a test starts.
TEST_VARIABLE = "TEST_THAT_STARTED_THIS"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Names what runs from here on by the test."""
    current = coverage.Coverage.current()
    if current is None:
        return (yield)
    current.switch_context(item.nodeid)
    os.environ[TEST_VARIABLE] = item.nodeid
    try:
        return (yield)
    finally:
        current.switch_context("")
        del os.environ[TEST_VARIABLE]
