"""Candidates take turns under one load; what counts is the median of each one's rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load generator saw in one turn.

    Attributes:
        succeeded: Requests that did what they were meant to.
        failed: All others: refusals, errors of sockets, no answer in time.
        rate_per_s: Successes per second.
        p50_ms: Median latency of a request.
        p99_ms: Its 99th percentile.
        cpu_share: Of one core, used by the load generator: near 1 it measured itself.
    """

    succeeded: int
    failed: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_share: float

    def times(self, operations: int) -> LoadResult:
        """The same turn counted in operations, so many in each request."""
        return replace(
            self,
            succeeded=self.succeeded * operations,
            failed=self.failed * operations,
            rate_per_s=self.rate_per_s * operations,
        )


Results = dict[str, list[LoadResult]]


def take_turns(candidates: Mapping[str, Callable[[], LoadResult]], rounds: int) -> Results:
    """Runs each candidate in turn, some rounds long.

    What disturbs the machine for a while then meets all of them.
    """
    results: Results = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            results[name].append(run())
    return results


def median_rate_per_s(runs: list[LoadResult]) -> float:
    """Of the runs of one candidate."""
    return statistics.median(run.rate_per_s for run in runs)


def median_p50_ms(runs: list[LoadResult]) -> float:
    """Of the runs of one candidate."""
    return statistics.median(run.p50_ms for run in runs)


def count_successes(*results: Results, name: str) -> int:
    """Of all turns of one candidate."""
    return sum(run.succeeded for each in results for run in each[name])


def turns_table(title: str, unit: str, results: Results) -> Table:
    """One line per candidate: medians over its rounds, the spread of its rates, all failures."""
    table = Table(title=title)
    columns = ("", f"{unit}/s", "min to max", "p50 ms", "p99 ms", "failed", "load CPU")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name, runs in results.items():
        rates = [run.rate_per_s for run in runs]
        failed = sum(run.failed for run in runs)
        table.add_row(
            name,
            f"{median_rate_per_s(runs):,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            f"{median_p50_ms(runs):.3f}",
            f"{statistics.median(run.p99_ms for run in runs):.3f}",
            f"[red]{failed:,}[/]" if failed else "0",
            f"{statistics.median(run.cpu_share for run in runs):.0%}",
        )
    return table
