"""Part ``failover``: how long nobody takes writes, from the command to the first acknowledged one.

The leader of three followers is killed and one of them is promoted; the clock starts with that call
and ends with the answer to a write at the new leader. The others hold all data already, as they do
unless they were away: what a promotion has to copy comes on top.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
from rich.table import Table

from orchestration.control import Control
from tests.bench.servers import wait_until
from tests.bench.store import run_store

if TYPE_CHECKING:
    from orchestration.clusters.local import LocalCluster, LocalNode
    from tests.bench.part import Bench

FOLLOWERS, WRITE_QUORUM = 3, 2
SIZES = (10_000, 1_000_000)
WANTED_S = 1.0
PER_BATCH = 1000
VALUE = "v" * 32
CALL_TIMEOUT_S = 60.0


def measure_failover(bench: Bench) -> None:
    """Kills leaders of small and of large stores, in memory and on disk."""
    table = Table(title=f"{FOLLOWERS} followers, k={WRITE_QUORUM}: from the command to a write")
    for column in ("keys", "acknowledged from", "median s", "all s", "wanted"):
        table.add_column(column, justify="right")
    for keys in SIZES:
        for is_durable in (False, True):
            rounds = bench.rounds if keys == min(SIZES) else 1
            times = [measure_one(bench, keys, is_durable=is_durable) for _ in range(rounds)]
            table.add_row(
                f"{keys:,}",
                "disk" if is_durable else "memory",
                f"{statistics.median(times):.3f}",
                ", ".join(f"{time_s:.3f}" for time_s in times),
                f"{WANTED_S:g}" if keys == min(SIZES) else "",
            )
    bench.console.print(table)


def measure_one(bench: Bench, keys: int, *, is_durable: bool) -> float:
    """Fills a store, kills its leader, and promotes another node; returns the time in s."""
    with (
        bench.fresh_folder() as folder,
        run_store(
            folder, followers=FOLLOWERS, write_quorum=WRITE_QUORUM, is_durable=is_durable
        ) as cluster,
    ):
        leader, target, *_ = cluster.nodes
        fill(leader, keys)
        wait_converged(cluster)
        psutil.Process(leader.process.pid).kill()
        began_s = time.monotonic()
        call(target, "POST", "/admin/promote", {})
        call(target, "PUT", "/kv/first", {"value": "after"})
        return time.monotonic() - began_s


def fill(node: LocalNode, keys: int) -> None:
    """Puts keys into a store, by batches."""
    for first in range(0, keys, PER_BATCH):
        puts = [
            {"op": "put", "key": f"key-{number}", "value": VALUE}
            for number in range(first, min(keys, first + PER_BATCH))
        ]
        call(node, "POST", "/kv", {"operations": puts})


def wait_converged(cluster: LocalCluster) -> None:
    """Waits until every follower holds all that the leader has."""
    with Control() as control:

        def is_converged() -> bool:
            found = control.positions(cluster.leader_url)
            return all(link.contiguous == found.last_seq for link in found.links)

        wait_until(is_converged, lambda: "The followers did not get all that the leader has.")


def call(node: LocalNode, method: str, path: str, body: dict[str, Any]) -> None:
    """Makes a call that must succeed.

    Raises:
        SystemExit: It did not.
    """
    address = urlsplit(node.url).netloc
    with closing(http.client.HTTPConnection(address, timeout=CALL_TIMEOUT_S)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status != http.client.OK:
        raise SystemExit(f"{method} {path} was answered {answer.status} {text}")
