"""The summary of simulated runs, whose truth is known beforehand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.report.records import Figures, Manifest, Parity, ReplicaParity, Run, TrialRow
from orchestration.report.summary import STATISTICS, summarise, to_json
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable


def row(k: int, block: int, value: float, **changes: Any) -> TrialRow:
    """Return a trial whose four latencies are value, value + 1, + 2, + 3."""
    figures = Figures(value, value + 1, value + 2, value + 3, value + 4)
    return TrialRow(
        **{
            "scenario": "writes",
            "k": k,
            "block": block,
            "followers": 5,
            "samples": 400,
            "delay_ms": (0.0, 60.0),
            "response_ms": figures,
            "parity": Parity("match"),
        }
        | changes
    )


def summary_of(*rows: TrialRow, **manifest: Any) -> Any:
    """Return the summary of these trials."""
    return summarise(Run(Manifest(run="writes/now", followers=5, **manifest), list(rows)))


def test_simulated_sweep_finds_the_theory_and_the_cost(make_run: Callable[..., Run]) -> None:
    """With delays plus 0.6 ms simulated, every mean is near theory and the residual near 0.6."""
    summary = summarise(make_run(simulated.sweep(writes=2_000)))
    for cell in summary.cells:
        chance = 4 * cell.theory_mean_error_ms
        assert cell.theory_ms.mean == pytest.approx(100 * cell.k / 6)
        assert cell.residual_ms.mean == pytest.approx(0.68, abs=0.05 + chance)
        assert cell.residual_ms.mean == pytest.approx(cell.response_ms.mean - cell.theory_ms.mean)
        assert cell.samples == 6_000
    assert summary.verdict == "valid"
    assert summary.missing is None


values = st.floats(0, 1e4)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=8))
def test_difference_is_paired_within_blocks(pairs: list[tuple[float, float]]) -> None:
    """The difference is the mean of per-block differences, and drift of blocks cancels."""
    rows = [row(0, block, base) for block, (base, _) in enumerate(pairs)]
    rows += [row(3, block, base + cost) for block, (base, cost) in enumerate(pairs)]
    found = summary_of(*rows).cells[1].difference_ms
    costs = [cost for _, cost in pairs]
    assert found.against == 0
    assert found.blocks == len(pairs)
    assert found.mean == pytest.approx(np.mean(costs), abs=1e-6)
    if len(pairs) > 1:
        low, high = found.ci95["mean"]
        assert high - low <= 30 * np.std(costs) + 1e-6
    else:
        assert found.ci95["mean"] is None


def test_difference_uses_only_blocks_that_have_both() -> None:
    """A block without the base is left out of the pairs, not matched with another's."""
    rows = [row(0, 0, 10), row(3, 0, 15), row(3, 1, 500), row(0, 2, 20), row(3, 2, 27)]
    assert summary_of(*rows).cells[1].difference_ms.mean == pytest.approx(6)
    assert summary_of(row(0, 0, 1), row(3, 1, 2)).cells[1].difference_ms is None


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.permutations(["ok", "saturated", "generator-bound", "invalid"]),
    st.permutations(["match", "error", "mismatch"]),
)
def test_cell_has_the_worst_stamp_and_parity(stamps: list[Any], parities: list[Any]) -> None:
    """Whatever the order of trials, one bad trial decides the cell."""
    rows = [
        row(1, block, 9, stamp=stamp, reason=f"why {stamp}", parity=Parity(parity))
        for block, (stamp, parity) in enumerate(zip(stamps, [*parities, "match"], strict=True))
    ]
    cell = summary_of(*rows).cells[0]
    assert (cell.stamp, cell.reason, cell.parity) == ("invalid", "why invalid", "mismatch")


@pytest.mark.parametrize("stamp", ["saturated", "generator-bound", "invalid"])
def test_cell_that_is_not_ok_quotes_no_latency(stamp: Any) -> None:
    """Every latency of such a cell is null, the differences of others to it too."""
    rows = [row(0, 0, 10, stamp=stamp, reason="too slow"), row(0, 1, 10), row(3, 0, 40)]
    base, other = summary_of(*rows).cells
    for block in (base.response_ms, base.service_ms, base.send_delay_ms, base.residual_ms):
        assert {getattr(block, name) for name in (*STATISTICS, "max")} == {None}
        assert set(block.ci95.values()) == {None}
    assert other.response_ms.mean == 40
    assert other.difference_ms is None
    assert any("too slow" in note for note in base.notes)


@pytest.mark.parametrize(
    ("writes", "missing"),
    [(400, set()), (100, set()), (99, {"p99"}), (19, {"p95", "p99"}), (1, {"p50", "p95", "p99"})],
)
def test_percentile_needs_samples_beyond_it(writes: int, missing: set[str]) -> None:
    """p99 takes 100 writes in the smallest trial, p95 takes 20; a note says what is missing."""
    cell = summary_of(row(2, 0, 9), row(2, 1, 9, samples=writes)).cells[0]
    assert {name for name in STATISTICS if getattr(cell.response_ms, name) is None} == missing
    assert {note.split(":")[0] for note in cell.notes} == {f"no {name}" for name in missing}


def test_trial_without_acknowledged_writes_quotes_nothing() -> None:
    """A dead store leaves the stamp ok, its errors told, and no latency."""
    dead = row(5, 0, 0, samples=0, response_ms=Figures(), errors={"outcome_unknown": 7})
    summary = summary_of(dead, row(5, 1, 9, errors={"outcome_unknown": 2, "timeout": 1}))
    cell = summary.cells[0]
    assert cell.stamp == "ok"
    assert cell.response_ms.mean is None
    assert cell.errors == {"outcome_unknown": 9, "timeout": 1}
    assert summary.verdict == "unknown"


def test_verdict_is_violated_by_a_single_mismatch() -> None:
    """One replica that differs once outweighs everything, and its keys are named."""
    replica = ReplicaParity("http://f3", "mismatch", mismatch_keys=["alpha"])
    parity = Parity("mismatch", [replica])
    summary = summary_of(row(0, 0, 1), row(1, 0, 2, parity=parity))
    assert summary.verdict == "violated"
    assert any("alpha" in note and "http://f3" in note for note in summary.cells[1].notes)


def test_no_interval_of_a_latency_reaches_below_zero(make_run: Callable[..., Run]) -> None:
    """No request takes less than no time: an interval that would say so begins at 0."""
    rows = simulated.sweep([0], trials=3)
    for row, mean in zip(rows, (1.0, 2.0, 9.0), strict=True):
        row["response_ms"]["mean"] = mean
    (cell,) = summarise(make_run(rows)).cells
    low, high = cell.response_ms.ci95["mean"]
    assert low == 0.0
    assert high == pytest.approx(4.0 + 4.303 * 4.359 / 3**0.5, abs=0.01)  # Student's t, 2 degrees


def test_fifo_and_unknown_delays_have_no_theory() -> None:
    """Without a model theory and residual are null, and a note says why."""
    for changes in ({"delay_model": "fifo"}, {"delay_ms": None}):
        cell = summary_of(row(2, 0, 30, **changes)).cells[0]
        assert cell.theory_ms.mean is None
        assert cell.residual_ms.mean is None
        assert cell.response_ms.mean == 30
        assert any("theory" in note.lower() for note in cell.notes)


def test_interrupted_run_says_what_is_missing(make_run: Callable[..., Run]) -> None:
    """The number of trials and the k that are behind stand in one sentence."""
    rows = simulated.sweep(writes=5)[:8]
    summary = summarise(make_run(rows, status="interrupted"))
    assert summary.trials_done == 8
    assert "interrupted: 8 of 18 trials" in (summary.missing or "")
    assert "k=2, k=3, k=4, k=5" in (summary.missing or "")


def test_summary_json_has_the_documented_names(make_run: Callable[..., Run]) -> None:
    """The file holds at least the names that others read, with null where nothing is quoted."""
    rows = simulated.sweep(writes=30)
    summary = json.loads(to_json(summarise(make_run(rows))))
    top = {"schema", "run", "engine", "followers", "seed", "ack", "verdict", "cells", "sentence"}
    assert top <= summary.keys()
    assert summary["schema"] == 1
    cell = summary["cells"][3]
    assert {
        "scenario",
        "rate",
        "k",
        "stamp",
        "reason",
        "trials",
        "samples",
        "offered_rate",
        "achieved_rate",
        "errors",
        "parity",
    } <= cell.keys()
    for name in ("response_ms", "service_ms", "send_delay_ms", "theory_ms"):
        assert {"mean", "p50", "p95", "p99", "max", "ci95"} <= cell[name].keys()
    assert cell["errors"] == {}
    assert cell["response_ms"]["p99"] is None
    low, high = cell["response_ms"]["ci95"]["p50"]
    assert low < cell["response_ms"]["p50"] < high
