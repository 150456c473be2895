"""``nox -s bench``: the store's speed, next to a bare server and to a naive store.

Absolute rates are those of one machine on one day: what travels is the ratios, of medians over
rounds in which the candidates take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.parity import check_parity
from tests.bench.delays import measure_delays
from tests.bench.servers import bare_server, naive_store
from tests.bench.wrk import WrkResult, require_wrk, run_wrk

if TYPE_CHECKING:
    from collections.abc import Callable

FOLLOWERS, WRITE_QUORUM = 5, 3
CONNECTIONS = 64

console = Console(width=100)


def main() -> None:
    """Runs all parts and prints a table each."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--seconds", type=int, default=4, help="length of a turn")
    parser.add_argument("--parts", default="start,speed,delays", help="which parts to run")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if "start" in parts:
        measure_start(options.rounds)
    if "speed" in parts:
        require_wrk()
        measure_speed(options.rounds, options.seconds)
    if "delays" in parts:
        measure_delays(console)


def measure_start(rounds: int) -> None:
    """How long six nodes take to come up, and to go."""
    up_s, down_s = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, Control() as control:
            cluster = LocalCluster(LocalSettings(followers=FOLLOWERS), Path(folder), control)
            try:
                up_s.append(timed_s(cluster.start))
            finally:
                down_s.append(timed_s(cluster.stop))
    console.print(
        f"Six nodes: up in {statistics.median(up_s):.2f} s (worst {max(up_s):.2f}), "
        f"down in {statistics.median(down_s):.2f} s (worst {max(down_s):.2f}), {rounds} rounds."
    )


def timed_s(action: Callable[[], object]) -> float:
    """How many seconds an action takes."""
    start_s = time.monotonic()
    action()
    return time.monotonic() - start_s


def measure_speed(rounds: int, seconds: int) -> None:
    """Writes per second and the latency of one client, of all candidates in turn."""
    with tempfile.TemporaryDirectory() as folder, Control() as control:
        settings = LocalSettings(followers=FOLLOWERS, write_quorum=WRITE_QUORUM)
        cluster = LocalCluster(settings, Path(folder), control)
        try:
            cluster.start()
            with bare_server() as bare, naive_store(FOLLOWERS, WRITE_QUORUM) as naive:
                urls = {"bare PUT": bare, "quorumeter": cluster.leader_url, "naive store": naive}
                many = take_turns(urls, CONNECTIONS, rounds, seconds)
                one = take_turns(urls, 1, rounds, seconds)
            print_speed(many, one)
            check_replicas(cluster, control, [*many["quorumeter"], *one["quorumeter"]])
        finally:
            cluster.stop()


def take_turns(
    urls: dict[str, str], connections: int, rounds: int, seconds: int
) -> dict[str, list[WrkResult]]:
    """Runs wrk against each URL in turn, some rounds long."""
    results: dict[str, list[WrkResult]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            results[name].append(run_wrk(url, connections=connections, duration_s=seconds))
    return results


def print_speed(many: dict[str, list[WrkResult]], one: dict[str, list[WrkResult]]) -> None:
    """Prints medians, and the ratios to the bare server and to the naive store."""
    rate = {name: statistics.median(r.rate_per_s for r in runs) for name, runs in many.items()}
    p50_ms = {name: statistics.median(r.p50_ms for r in runs) for name, runs in one.items()}
    table = Table(title=f"PUT, {FOLLOWERS} followers, k={WRITE_QUORUM}, no delay, in memory")
    columns = ("", f"writes/s, {CONNECTIONS} conns", "min to max", "failed", "p50 ms, 1 conn")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name, runs in many.items():
        rates = [run.rate_per_s for run in runs]
        failed = sum(run.failed for run in [*runs, *one[name]])
        table.add_row(
            name,
            f"{rate[name]:,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            str(failed),
            f"{p50_ms[name]:.3f}",
        )
    console.print(table)
    # The naive store may break down under many clients: it is held to the better of its two rates.
    naive = max(rate["naive store"], statistics.median(r.rate_per_s for r in one["naive store"]))
    console.print(
        f"quorumeter: {rate['quorumeter'] / rate['bare PUT']:.2f} of the bare PUT's rate, "
        f"{rate['quorumeter'] / naive:.0f} times the naive store's best of {naive:.0f}/s; "
        f"p50 is {p50_ms['quorumeter'] / p50_ms['bare PUT']:.1f} times the bare PUT's."
    )


def check_replicas(cluster: LocalCluster, control: Control, runs: list[WrkResult]) -> None:
    """Every write that wrk counted must be in the log, and all replicas must be equal."""
    counted = sum(run.answered - run.failed for run in runs)
    parity = check_parity(control, cluster.leader_url, cluster.follower_urls)
    appended = control.positions(cluster.leader_url).last_seq
    console.print(
        f"Counted {counted:,} writes, the log holds {appended:,}; replicas: {parity.status}."
    )
    if appended < counted or parity.status != "match":
        raise SystemExit("A write that was counted is not on all replicas.")


if __name__ == "__main__":
    main()
