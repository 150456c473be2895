"""Part ``recorder``: whether the percentiles are right, and what it costs to keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import psutil
from rich.table import Table

from orchestration.load.recorder import LatencyCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.bench.part import Bench

SHORTEST_NS, LONGEST_NS = 50_000, 5_000_000_000
LEVELS = (1.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
LARGEST_ERROR = 0.001
CHUNK = 100_000
FEW, SOME, MANY = 100_000, 1_000_000, 10_000_000
# There is a counter for each bucket in use, not one for each request.
LARGEST_GROWTH_MIB = 4.0
SEED = 4
MIB = 1 << 20


def measure_recorder(bench: Bench) -> None:
    """Holds percentiles against all values, sorted, and looks at the memory of a long run."""
    _compare(bench)
    _watch_memory(bench)


def _latencies_ns(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Latencies of all orders of magnitude alike."""
    exponents = random.uniform(np.log(SHORTEST_NS), np.log(LONGEST_NS), count)
    return np.exp(exponents).astype(np.int64)


def _compare(bench: Bench) -> None:
    values_ns = _latencies_ns(SOME, np.random.default_rng(SEED))
    counts = LatencyCounts()
    for value_ns in values_ns.tolist():
        counts.add(value_ns)
    exact = np.percentile(values_ns, LEVELS, method="inverted_cdf").tolist()
    table = Table(title=f"{SOME:,} latencies from 50 us to 5 s, in ms")
    for column in ("percentile", "of all values", "of the recorder", "error"):
        table.add_column(column, justify="right")
    errors = []
    for level, true_ns, found_ns in zip(LEVELS, exact, counts.percentiles_ns(LEVELS), strict=True):
        errors.append(abs(found_ns - true_ns) / true_ns)
        milliseconds = (f"{value_ns / 1e6:,.3f}" for value_ns in (true_ns, found_ns))
        table.add_row(f"{level:g}", *milliseconds, f"{errors[-1]:.3%}")
    bench.console.print(table)
    bench.console.print(_verdict("Largest error", max(errors), LARGEST_ERROR, ".3%"))


def _watch_memory(bench: Bench) -> None:
    counts, random = LatencyCounts(), np.random.default_rng(SEED)
    resident_mib: dict[int, float] = {}
    for done in range(CHUNK, MANY + 1, CHUNK):
        for value_ns in _latencies_ns(CHUNK, random).tolist():
            counts.add(value_ns)
        if done in {FEW, MANY}:
            resident_mib[done] = psutil.Process().memory_info().rss / MIB
    grown = resident_mib[MANY] - resident_mib[FEW]
    what = f"MiB more after {MANY:,} latencies than after {FEW:,}"
    bench.console.print(_verdict(what, grown, LARGEST_GROWTH_MIB, ".2f"))


def _verdict(what: str, figure: float, most: float, form: str) -> str:
    verdict = "[green]reached[/]" if figure <= most else "[red]missed[/]"
    return f"{what}: {figure:{form}}, at most {most:{form}} wanted: {verdict}."
