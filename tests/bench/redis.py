"""Part ``redis``: durable operations next to Redis, five replicas each."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

from orchestration.clusters.local import HOST, free_ports
from tests.bench.servers import serve, wait_until
from tests.bench.store import check_replicas, run_store
from tests.bench.turns import (
    LoadResult,
    count_successes,
    median_rate_per_s,
    take_turns,
    turns_table,
)
from tests.bench.workload import BATCH_OPERATIONS, batches, puts, write_requests
from tests.bench.wrk import run_timed, run_wrk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestration.clusters.local import LocalCluster
    from tests.bench.part import Bench
    from tests.bench.turns import Results

REPLICAS, WRITE_QUORUM = 5, 3
CONNECTIONS = 64
LEAST_RATIO = 1.0
REDIS = f"Redis SET + WAIT {WRITE_QUORUM}"
BATCH = f"batches of {BATCH_OPERATIONS}"
SINGLE = "single keys"
# Redis' own defaults but for these. The log is on disk before an answer, on the primary and on
# every replica; it is not rewritten during a turn, nor is a snapshot taken.
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "auto-aof-rewrite-percentage": "0",
    "save": "",
    "repl-diskless-sync-delay": "0",
}


def measure_redis(bench: Bench) -> None:
    """Operations per second: Redis' pairs, our batches, and our single keys, in turn."""
    with (
        bench.fresh_folder() as folder,
        run_redis(folder) as port,
        run_store(
            folder, followers=REPLICAS, write_quorum=WRITE_QUORUM, is_durable=True
        ) as cluster,
    ):
        results = _measure(bench, port, cluster, folder)
        counted = count_successes(results, name=BATCH) // BATCH_OPERATIONS
        counted += count_successes(results, name=SINGLE)
        check_replicas(bench.console, cluster, counted)
    redis_per_s = median_rate_per_s(results[REDIS])
    bench.print_target(
        "Times Redis' operations/s, by batches",
        median_rate_per_s(results[BATCH]) / redis_per_s,
        LEAST_RATIO,
    )
    single = median_rate_per_s(results[SINGLE]) / redis_per_s
    bench.console.print(f"One key a request: {single:.2f} times Redis' operations/s.")


def _measure(bench: Bench, port: int, cluster: LocalCluster, folder: Path) -> Results:
    load = partial(run_wrk, cluster.leader_url, connections=CONNECTIONS, duration_s=bench.seconds)
    batch_file = write_requests(folder / "batches", batches())
    put_file = write_requests(folder / "puts", puts())
    candidates: dict[str, Callable[[], LoadResult]] = {
        REDIS: partial(run_pairs, port, bench.seconds),
        BATCH: lambda: load(batch_file).times(BATCH_OPERATIONS),
        SINGLE: partial(load, put_file),
    }
    results = take_turns(candidates, bench.rounds)
    title = (
        f"{REPLICAS} replicas, on disk on {WRITE_QUORUM} before the answer; "
        f"connections: {CONNECTIONS}"
    )
    bench.console.print(turns_table(title, "operations", results))
    return results


def run_pairs(port: int, seconds: int) -> LoadResult:
    """One turn of SET and WAIT, by a process of its own."""
    command = [sys.executable, "-m", "tests.bench.wait_loader", "--host", HOST]
    command += ["--port", str(port), "--connections", str(CONNECTIONS)]
    command += ["--seconds", str(seconds), "--replicas", str(WRITE_QUORUM)]
    output, cpu_s = run_timed(command)
    return LoadResult(**json.loads(output), cpu_share=cpu_s / seconds)


@contextlib.contextmanager
def run_redis(folder: Path) -> Iterator[int]:
    """A primary and its replicas, all connected; gives the primary's port."""
    primary, *replicas = free_ports(REPLICAS + 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_server(folder, primary))
        for port in replicas:
            stack.enter_context(_server(folder, port, "--replicaof", HOST, str(primary)))
        wait_until(
            lambda: _acknowledging(primary) == REPLICAS,
            lambda: f"Redis has {_acknowledging(primary)} of {REPLICAS} replicas.",
        )
        yield primary


def _server(folder: Path, port: int, *options: str) -> contextlib.AbstractContextManager[int]:
    data = folder / f"redis-{port}"
    data.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", HOST, "--dir", str(data), *options]
    for name, setting in SETTINGS.items():
        command += [f"--{name}", setting]
    return serve(command, port, folder / f"redis-{port}.log")


def _acknowledging(port: int) -> int:
    """How many replicas have a write of ours."""
    with socket.create_connection((HOST, port), timeout=5) as one, one.makefile("rb") as answers:
        one.sendall(f"SET ready yes\r\nWAIT {REPLICAS} 1000\r\n".encode())
        answers.readline()
        return int(answers.readline().lstrip(b":"))
