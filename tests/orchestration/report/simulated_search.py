"""Saturation runs that never happened, on stores whose capacity is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from orchestration.goal import Goal, make_goal
from orchestration.report.records import TrialRow
from orchestration.request import SweepRequest, to_scenario
from orchestration.saturation import Attempt, Next, judge, next_step
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    # What replaces the fields of the n-th trial of a k at this rate.
    Store = Callable[[float, int], dict[str, Any]]

LATE = {"stamp": "generator-bound", "reason": "requests left late"}


def queue(capacity_per_s: float) -> Store:
    """A store whose p99 is 5 ms without load and 50 ms at 90% of its capacity."""

    def trial(rate_per_s: float, _: int) -> dict[str, Any]:
        busy = rate_per_s / capacity_per_s
        p99_ms = 5 / (1 - busy) if busy < 0.99 else 2_000.0 * busy
        names = ("mean", "p50", "p95", "p99", "max")
        shares = (0.3, 0.25, 0.7, 1.0, 1.5)
        return {
            "response_ms": {n: s * p99_ms for n, s in zip(names, shares, strict=True)},
            "achieved_rate": min(rate_per_s, capacity_per_s),
        }

    return trial


def limited(capacity_per_s: float, generator_per_s: float) -> Store:
    """Such a store behind a generator that falls behind from a rate on."""
    store = queue(capacity_per_s)
    return lambda rate, n: store(rate, n) | (LATE if rate > generator_per_s else {})


def goal(ks: Iterable[int] = (0, 3), objective: str = "p99<50ms", **changes: Any) -> Goal:
    """A goal for trials of 4 s, measured in this order."""
    scenario = to_scenario(SweepRequest(), followers=5, fresh_seed=1)
    made = make_goal(replace(scenario, **changes), objective, precision=0.05, confirm=3)
    return msgspec.structs.replace(made, quorums=tuple(ks))


def rows(found: Goal, stores: Mapping[int, Store]) -> list[dict[str, Any]]:
    """The rows that a run writes; a k without a store was not begun."""
    written: list[dict[str, Any]] = []
    for k in found.quorums:
        attempts: list[Attempt] = []
        while k in stores and isinstance(step := next_step(found.search, attempts), Next):
            rate = found.search.rate_per_s(step.rung)
            changes = stores[k](rate, len(attempts))
            row = simulated.trial(0, writes=100, n=20, **changes)
            row |= {"k": k, "block": len(attempts), "rate": rate, "offered_rate": rate}
            row |= {"scenario": "saturate", "ack": "memory"}
            answer = judge(msgspec.convert(row, TrialRow), found.threshold)
            attempts.append(Attempt(step.rung, step.purpose, answer))
            written.append(row)
    return written


def write_run(folder: Path, found: Goal, written: Iterable[dict[str, Any]], **changes: Any) -> Path:
    """Write a run's two files and return its folder."""
    settings = {
        "run": "saturate/2025-06-01T12-00-00Z",
        "scenario": {"name": "saturate", "workload": "writes"},
        "planned_trials": None,
        "saturation": msgspec.to_builtins(found),
    }
    return simulated.write_run(folder, written, **settings | changes)
