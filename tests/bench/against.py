"""``--against REV``: this tree and a revision in turns, and the ratio of each figure.

A pair is one turn of each, with a fresh cluster for each turn: so the intervals hold what clusters
differ by that are started anew, and not only what one cluster's seconds differ by. The order
alternates, so that a machine that slows down meets both alike.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import psutil
from rich.table import Table

from tests.bench.ratios import by_figure, paired_ratio, verdict
from tests.bench.store import require_replicas, run_store
from tests.bench.tree import check_out, this_tree
from tests.bench.workload import get_one, puts, write_requests
from tests.bench.wrk import run_wrk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestration.clusters.local import LocalCluster
    from tests.bench.part import Bench
    from tests.bench.tree import Tree

CONNECTIONS = 64
IN_MEMORY = {"followers": 5, "write_quorum": 3}
ON_DISK = {"followers": 2, "write_quorum": 1}
GENERATOR_RATE_PER_S = 1_000
GENERATOR_WARMUP_S = 1
US_PER_S = 1_000_000
MIB = 2**20
# A sweep that does not vouch for its figures has measured the generator all the same.
SWEEP_CODES = (0, 2)


class Figure(NamedTuple):
    """One line of the table."""

    label: str
    decimals: int
    is_more_better: bool = False


FIGURES = {
    "start_s": Figure("six nodes up, s", 2),
    "writes_per_s": Figure("writes/s, 64 connections", 0, is_more_better=True),
    "write_p50_ms": Figure("write p50 ms, one connection", 3),
    "reads_per_s": Figure("reads/s of the leader, 64 connections", 0, is_more_better=True),
    "leader_us": Figure("leader's CPU µs a write, 64 connections", 1),
    "followers_us": Figure("followers' CPU µs a write, all five", 1),
    "leader_mib": Figure("leader's memory MiB after the writes", 0),
    "disk_writes_per_s": Figure("on disk: writes/s, 64 connections", 0, is_more_better=True),
    "disk_write_p50_ms": Figure("on disk: write p50 ms, one connection", 3),
    "generator_us": Figure("generator's CPU µs a request, 1,000/s", 0),
    "send_delay_p99_ms": Figure("generator's send delay p99 ms, 1,000/s", 3),
}


def measure_against(bench: Bench, revision: str) -> None:
    """Prints the table of all figures; one round before the first is not counted."""
    with bench.fresh_folder() as folder:
        old, new = check_out(revision, folder), this_tree()
        turns: dict[Tree, list[dict[str, float]]] = {old: [], new: []}
        for number in range(bench.rounds + 1):
            for tree in (old, new) if number % 2 else (new, old):
                turns[tree].append(measure_turn(bench, tree))
            bench.console.print(f"[dim]round {number} of {bench.rounds}[/]", highlight=False)
        counted = {tree: by_figure(found[1:]) for tree, found in turns.items()}
        bench.console.print(ratio_table(counted[old], counted[new], (old.name, new.name)))


def ratio_table(
    old: Mapping[str, list[float]], new: Mapping[str, list[float]], names: tuple[str, str]
) -> Table:
    """One line a figure that both have: both medians, the ratio, its interval, and what it says."""
    table = Table(
        title="Medians, and new / old with intervals that hold all at once with 95%", title_style=""
    )
    for column in ("", *names, "ratio", "from", "to", ""):
        table.add_column(column, justify="right" if column in {*names, "ratio"} else "left")
    shared = [name for name in FIGURES if name in old and name in new]
    for name in shared:
        figure = FIGURES[name]
        ratio = paired_ratio(old[name], new[name], comparisons=len(shared))
        parts = (ratio.value, ratio.low, ratio.high) if ratio else ()
        table.add_row(
            figure.label,
            *(f"{statistics.median(each[name]):,.{figure.decimals}f}" for each in (old, new)),
            *([f"{part:.3f}" for part in parts] or [""] * 3),
            verdict(ratio, is_more_better=figure.is_more_better),
        )
    return table


def measure_turn(bench: Bench, tree: Tree) -> dict[str, float]:
    """All figures of one tree, on clusters of its own that begin empty."""
    with bench.fresh_folder() as folder:
        requests = write_requests(folder / "puts", puts())
        figures = _in_memory(bench, tree, folder, requests)
    with bench.fresh_folder() as folder:
        requests = write_requests(folder / "puts", puts())
        return figures | _on_disk(bench, tree, folder, requests)


def _in_memory(bench: Bench, tree: Tree, folder: Path, requests: Path) -> dict[str, float]:
    begin_s = time.monotonic()
    with _store(tree, folder, is_durable=False, **IN_MEMORY) as cluster:
        start_s = time.monotonic() - begin_s
        leader, *followers = [psutil.Process(node.process.pid) for node in cluster.nodes]
        url = cluster.leader_url
        before = [_cpu_s([leader]), _cpu_s(followers)]
        many = run_wrk(url, requests, connections=CONNECTIONS, duration_s=bench.seconds)
        leader_s, followers_s = _cpu_s([leader]) - before[0], _cpu_s(followers) - before[1]
        leader_mib = leader.memory_info().rss / MIB
        one = run_wrk(url, requests, connections=1, duration_s=bench.seconds)
        gets = write_requests(folder / "gets", get_one())
        reads = run_wrk(url, gets, connections=CONNECTIONS, duration_s=bench.seconds)
        require_replicas(cluster, many.succeeded + one.succeeded)
        return {
            "start_s": start_s,
            "writes_per_s": many.rate_per_s,
            "write_p50_ms": one.p50_ms,
            "reads_per_s": reads.rate_per_s,
            "leader_us": leader_s / many.succeeded * US_PER_S,
            "followers_us": followers_s / many.succeeded * US_PER_S,
            "leader_mib": leader_mib,
            **_generator(bench, tree, url, folder),
        }


def _on_disk(bench: Bench, tree: Tree, folder: Path, requests: Path) -> dict[str, float]:
    with _store(tree, folder, is_durable=True, **ON_DISK) as cluster:
        url = cluster.leader_url
        many = run_wrk(url, requests, connections=CONNECTIONS, duration_s=bench.seconds)
        one = run_wrk(url, requests, connections=1, duration_s=bench.seconds)
        require_replicas(cluster, many.succeeded + one.succeeded)
        return {"disk_writes_per_s": many.rate_per_s, "disk_write_p50_ms": one.p50_ms}


@contextlib.contextmanager
def _store(
    tree: Tree, folder: Path, *, followers: int, write_quorum: int, is_durable: bool
) -> Iterator[LocalCluster]:
    with run_store(
        folder,
        followers=followers,
        write_quorum=write_quorum,
        is_durable=is_durable,
        environment=tree.environment(),
    ) as cluster:
        yield cluster


def _generator(bench: Bench, tree: Tree, url: str, folder: Path) -> dict[str, float]:
    """What a tree's own sweep costs at a fixed rate; nothing if it does not say."""
    options = {
        "attach": url,
        "k": IN_MEMORY["write_quorum"],
        "rate": GENERATOR_RATE_PER_S,
        "trials": 1,
        "warmup": GENERATOR_WARMUP_S,
        "duration": bench.seconds,
        "out": folder / "reports",
    }
    command = [sys.executable, "-m", "orchestration", "sweep", "--quiet"]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        command, env=tree.environment(), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in SWEEP_CODES:
        raise SystemExit(f"The sweep of {tree.name} ended with {done.returncode}:\n{done.stderr}")
    # Older trees have runs in other folders of it, and a link to the last one.
    (rows,) = {path.resolve() for path in (folder / "reports").rglob("cells.jsonl")}
    row = json.loads(rows.read_text(encoding="utf-8"))
    found = {"send_delay_p99_ms": row.get("send_delay_ms", {}).get("p99")}
    if row.get("generator_cpu_share") and row.get("achieved_rate"):
        found["generator_us"] = row["generator_cpu_share"] / row["achieved_rate"] * US_PER_S
    return {name: value for name, value in found.items() if value is not None}


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)
