"""Fixtures: a way to write a simulated run and read it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration.report.records import Run, read_run
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that writes rows as a run and reads them again."""

    def make(rows: list[dict[str, Any]], **manifest: Any) -> Run:
        return read_run(simulated.write_run(tmp_path / "writes" / "run", rows, **manifest))

    return make
