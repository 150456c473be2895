"""What the campaign of comparisons judges by, on simulated runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration.report.comparison import compare
from orchestration.report.records import Run, read_run
from tests.campaigns import comparisons
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from pathlib import Path


def run_of(folder: Path, rows: list[dict[str, Any]]) -> Run:
    """The run that these rows are."""
    return read_run(simulated.write_run(folder, rows))


def test_blocks_with_a_trial_that_is_not_ok_are_left_out(tmp_path: Path) -> None:
    """One bad trial takes all k of its block with it, and no other block."""
    rows = simulated.sweep([1, 3], trials=5)
    rows[4] |= {"stamp": "generator-bound"}
    run = run_of(tmp_path, rows)
    assert comparisons.sound_blocks(run) == [0, 1, 3, 4]
    half = comparisons.halved(run, {0, 4})
    assert [(row.block, row.k) for row in half.rows] == [(0, 1), (0, 3), (4, 1), (4, 3)]


def test_cell_with_any_figure_that_changed_is_one_alarm(tmp_path: Path) -> None:
    """However many of its figures did; a cell that did not change is none."""
    rows = simulated.sweep([1, 3], trials=5)
    slower = [row | ({"achieved_rate": 50.0} if row["k"] == 3 else {}) for row in rows]
    base, new = run_of(tmp_path / "base", rows), run_of(tmp_path / "new", slower)
    assert comparisons.alarms_of(compare(base, new)) == ["k=3: achieved_rate lower -49.9%"]
    assert comparisons.alarms_of(compare(base, base)) == []


def test_slower_delays_lengthen_the_median_by_the_share(tmp_path: Path) -> None:
    """The median of k=3 of 5 is half the longest delay: a tenth of 11 ms are 2.2 ms of it."""
    rows = simulated.sweep([3], trials=2, response_ms={"p50": 11.0})
    found = comparisons.slower_delay_ms(run_of(tmp_path, rows), 0.1)
    assert found == pytest.approx(20.0 + 2.2)
