"""Part ``reads``: one node's reads, and a follower's while it applies a stream of writes."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import httpx
from rich.table import Table

from orchestration.control import Control
from tests.bench.store import run_store
from tests.bench.turns import LoadResult, median_rate_per_s, take_turns, turns_table
from tests.bench.workload import get_one, puts, write_requests
from tests.bench.wrk import run_wrk

if TYPE_CHECKING:
    from pathlib import Path

    from orchestration.clusters.local import LocalCluster
    from tests.bench.part import Bench

CONNECTIONS = 64
# Of the readers beside the writers: all share the machine's cores, and the writes must go on.
READ_CONNECTIONS = 4
LEAST_READS_PER_S = 10_000
LEAST_APPLIED_PER_S = 5_000
LEAD_S = 1


@dataclass(frozen=True, slots=True)
class Applied:
    """A follower's work in one turn: entries that it took, and what its readers saw."""

    entries_per_s: float
    reads: LoadResult
    failed_writes: int


def measure_reads(bench: Bench) -> None:
    """Reads of a node alone, then of a follower under writes, in memory and with a disk."""
    _measure_alone(bench)
    title = f"A follower under writes over {CONNECTIONS} connections, k=1, one follower"
    table = Table(title=title)
    columns = ("", "applied/s", "reads/s", "read p50 ms", "read p99 ms", "failed reads, writes")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    applied_per_s = {}
    for name, is_durable in (("in memory", False), ("on disk", True)):
        turns = _measure_follower(bench, is_durable=is_durable)
        applied_per_s[name] = statistics.median(turn.entries_per_s for turn in turns)
        table.add_row(
            name,
            f"{applied_per_s[name]:,.0f}",
            f"{median_rate_per_s([turn.reads for turn in turns]):,.0f}",
            f"{statistics.median(turn.reads.p50_ms for turn in turns):.3f}",
            f"{statistics.median(turn.reads.p99_ms for turn in turns):.3f}",
            f"{sum(turn.reads.failed for turn in turns)}, "
            f"{sum(turn.failed_writes for turn in turns)}",
        )
    bench.console.print(table)
    for name, figure in applied_per_s.items():
        bench.print_target(f"Entries/s beside reads, {name}", figure, LEAST_APPLIED_PER_S)


def _measure_alone(bench: Bench) -> None:
    with (
        bench.fresh_folder() as folder,
        run_store(folder, followers=0, write_quorum=0, is_durable=False) as cluster,
    ):
        _put_one(cluster.leader_url)
        load = partial(
            run_wrk,
            cluster.leader_url,
            write_requests(folder / "get", get_one()),
            connections=CONNECTIONS,
            duration_s=bench.seconds,
        )
        results = take_turns({"quorumeter": load}, bench.rounds)
    title = f"GET of one key on one node, {CONNECTIONS} connections"
    bench.console.print(turns_table(title, "reads", results))
    bench.print_target("Reads/s", median_rate_per_s(results["quorumeter"]), LEAST_READS_PER_S)


def _measure_follower(bench: Bench, *, is_durable: bool) -> list[Applied]:
    with (
        bench.fresh_folder() as folder,
        run_store(folder, followers=1, write_quorum=1, is_durable=is_durable) as cluster,
    ):
        _put_one(cluster.leader_url)
        return [_read_under_writes(bench, cluster, folder) for _ in range(bench.rounds)]


def _read_under_writes(bench: Bench, cluster: LocalCluster, folder: Path) -> Applied:
    put_file = write_requests(folder / "puts", puts())
    get_file = write_requests(folder / "get", get_one())
    # Both loads run from before the count begins until after it ends.
    load = partial(run_wrk, duration_s=bench.seconds + 2 * LEAD_S)
    follower_url = cluster.nodes[1].url
    with ThreadPoolExecutor(2) as pool:
        writes = pool.submit(load, cluster.leader_url, put_file, connections=CONNECTIONS)
        reads = pool.submit(load, follower_url, get_file, connections=READ_CONNECTIONS)
        time.sleep(LEAD_S)
        entries_per_s = _count_applied(cluster.leader_url, bench.seconds)
        return Applied(entries_per_s, reads.result(), writes.result().failed)


def _count_applied(leader_url: str, seconds: int) -> float:
    """Entries per second that the follower acknowledged without a hole."""
    with Control() as control:
        begin_s, begin = time.monotonic(), control.positions(leader_url).links[0].contiguous
        time.sleep(seconds)
        end_s, end = time.monotonic(), control.positions(leader_url).links[0].contiguous
    return (end - begin) / (end_s - begin_s)


def _put_one(url: str) -> None:
    request = puts()[0]
    httpx.put(url + request.path, content=request.body, trust_env=False).raise_for_status()
