"""Part ``etcd``: durable writes next to etcd, three members each, over HTTP and JSON."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import httpx

from orchestration.clusters.local import HOST, free_ports
from tests.bench.servers import serve, wait_until
from tests.bench.store import check_replicas, run_store
from tests.bench.turns import (
    count_successes,
    median_p50_ms,
    median_rate_per_s,
    take_turns,
    turns_table,
)
from tests.bench.workload import etcd_puts, puts, write_requests
from tests.bench.wrk import run_wrk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.part import Bench
    from tests.bench.turns import Results

MEMBERS = 3
CONNECTIONS = 64
LEAST_RATE_RATIO = 1.25
LEAST_SPEED_RATIO = 1.0


def measure_etcd(bench: Bench) -> None:
    """Writes per second over many connections, and the latency over one, of both in turn."""
    with (
        bench.fresh_folder() as folder,
        run_etcd(folder) as etcd_url,
        run_store(folder, followers=MEMBERS - 1, write_quorum=1, is_durable=True) as cluster,
    ):
        etcd_file = write_requests(folder / "etcd-puts", etcd_puts())
        own_file = write_requests(folder / "puts", puts())

        def measure(connections: int) -> Results:
            load = partial(run_wrk, connections=connections, duration_s=bench.seconds)
            candidates = {
                "etcd": partial(load, etcd_url, etcd_file),
                "quorumeter": partial(load, cluster.leader_url, own_file),
            }
            results = take_turns(candidates, bench.rounds)
            title = f"{MEMBERS} members each, on disk before the answer; connections: {connections}"
            bench.console.print(turns_table(title, "writes", results))
            return results

        many, one = measure(CONNECTIONS), measure(1)
        check_replicas(bench.console, cluster, count_successes(many, one, name="quorumeter"))
    bench.print_target(
        f"Times etcd's writes/s, {CONNECTIONS} connections",
        median_rate_per_s(many["quorumeter"]) / median_rate_per_s(many["etcd"]),
        LEAST_RATE_RATIO,
    )
    bench.print_target(
        "Etcd's p50 over ours, one connection",
        median_p50_ms(one["etcd"]) / median_p50_ms(one["quorumeter"]),
        LEAST_SPEED_RATIO,
    )


@contextlib.contextmanager
def run_etcd(folder: Path) -> Iterator[str]:
    """Three members on loopback with etcd's own settings; gives the URL of their leader."""
    ports = free_ports(2 * MEMBERS)
    clients = [f"http://{HOST}:{port}" for port in ports[:MEMBERS]]
    peers = [f"http://{HOST}:{port}" for port in ports[MEMBERS:]]
    cluster = ",".join(f"member{index}={peer}" for index, peer in enumerate(peers))
    with contextlib.ExitStack() as stack:
        for index, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            command = ["etcd", "--name", f"member{index}", "--logger", "zap"]
            command += ["--log-level", "error", "--data-dir", str(folder / f"member{index}")]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", cluster]
            # A member listens to clients once there is a leader: to its peers it does at once.
            port = ports[MEMBERS + index]
            stack.enter_context(serve(command, port, folder / f"member{index}.log"))
        yield _wait_for_leader(clients)


def _wait_for_leader(clients: list[str]) -> str:
    found: list[str] = []

    def is_found() -> bool:
        found[:] = [url for url in clients if _leads(url)]
        return bool(found)

    wait_until(is_found, lambda: "etcd's members have no leader.")
    return found[0]


def _leads(url: str) -> bool:
    try:
        answer = httpx.post(f"{url}/v3/maintenance/status", json={}, timeout=1, trust_env=False)
        status = answer.raise_for_status().json()
    except httpx.HTTPError:
        return False
    return bool(status.get("leader") == status["header"]["member_id"])
