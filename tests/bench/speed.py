"""Parts ``start`` and ``speed``: the store in memory, next to a bare server and a naive store."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.bench.servers import bare_server, naive_store
from tests.bench.store import check_replicas, run_store
from tests.bench.turns import (
    count_successes,
    median_p50_ms,
    median_rate_per_s,
    take_turns,
    turns_table,
)
from tests.bench.workload import puts, write_requests
from tests.bench.wrk import run_wrk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.part import Bench
    from tests.bench.turns import Results

FOLLOWERS, WRITE_QUORUM = 5, 3
CONNECTIONS = 64


def measure_start(bench: Bench) -> None:
    """How long six nodes take to come up, and to go."""
    up_s, down_s = [], []
    for _ in range(bench.rounds):
        with bench.fresh_folder() as folder:
            start_s = time.monotonic()
            with run_store(
                folder, followers=FOLLOWERS, write_quorum=WRITE_QUORUM, is_durable=False
            ):
                up_s.append(time.monotonic() - start_s)
                stop_s = time.monotonic()
            down_s.append(time.monotonic() - stop_s)
    bench.console.print(
        f"Six nodes: up in {statistics.median(up_s):.2f} s (worst {max(up_s):.2f}), "
        f"down in {statistics.median(down_s):.2f} s (worst {max(down_s):.2f})."
    )


def measure_speed(bench: Bench) -> None:
    """Writes per second and the latency of one client, of all candidates in turn."""
    with (
        bench.fresh_folder() as folder,
        run_store(
            folder, followers=FOLLOWERS, write_quorum=WRITE_QUORUM, is_durable=False
        ) as cluster,
        bare_server(folder) as bare,
        naive_store(folder, FOLLOWERS, WRITE_QUORUM) as naive,
    ):
        urls = {"bare PUT": bare, "quorumeter": cluster.leader_url, "naive store": naive}
        requests = write_requests(folder / "puts", puts())
        many = _measure(bench, urls, requests, CONNECTIONS)
        one = _measure(bench, urls, requests, 1)
        check_replicas(bench.console, cluster, count_successes(many, one, name="quorumeter"))
    _print_ratios(bench, many, one)


def _measure(bench: Bench, urls: dict[str, str], requests: Path, connections: int) -> Results:
    load = partial(run_wrk, requests=requests, connections=connections, duration_s=bench.seconds)
    results = take_turns({name: partial(load, url) for name, url in urls.items()}, bench.rounds)
    title = f"PUT, {FOLLOWERS} followers, k={WRITE_QUORUM}, in memory; connections: {connections}"
    bench.console.print(turns_table(title, "writes", results))
    return results


def _print_ratios(bench: Bench, many: Results, one: Results) -> None:
    rate = {name: median_rate_per_s(runs) for name, runs in many.items()}
    p50_ms = {name: median_p50_ms(runs) for name, runs in one.items()}
    # The naive store may break down under many clients: it is held to the better of its two rates.
    naive = max(rate["naive store"], median_rate_per_s(one["naive store"]))
    bench.console.print(
        f"quorumeter: {rate['quorumeter'] / rate['bare PUT']:.2f} of the bare PUT's rate, "
        f"{rate['quorumeter'] / naive:.0f} times the naive store's best of {naive:.0f}/s; "
        f"p50 is {p50_ms['quorumeter'] / p50_ms['bare PUT']:.1f} times the bare PUT's."
    )
