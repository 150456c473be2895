"""Nodes with disks that fail, that are told to stop, and that are started twice on one disk."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.cluster.nodes import (
    RECONNECT_MAX_S,
    Cluster,
    Node,
    clean_environment,
    free_ports,
    wait_until,
)
from tests.cluster.tool import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeDurable = Callable[..., Cluster]

EXIT_STORAGE = 74
STOP_LIMIT_S = 2.5
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes disks fail")


@pytest.fixture
def make_durable(xprocess: Any, tmp_path: Path) -> Iterator[MakeDurable]:
    """Makes and starts a cluster whose nodes have a disk each."""
    with contextlib.ExitStack() as stack:

        def make(followers: int, write_quorum: int, **settings: str) -> Cluster:
            names = ["leader", *(f"follower{number}" for number in range(1, followers + 1))]
            ports = free_ports(len(names))
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            nodes = {
                name: Node(name, url, environment_of(name, port, tmp_path / name, settings))
                for name, url, port in zip(names, urls, ports, strict=True)
            }
            nodes["leader"].environment.update(
                ROLE="leader", FOLLOWER_URLS=",".join(urls[1:]), WRITE_QUORUM=str(write_quorum)
            )
            cluster = Cluster(xprocess, nodes)
            stack.callback(cluster.stop)
            cluster.start(*nodes)
            return cluster

        yield make


def environment_of(
    name: str, port: int, data_dir: Path, settings: dict[str, str]
) -> dict[str, str]:
    """Returns the settings of one node of a cluster."""
    return {
        "NODE_ID": name,
        "PORT": str(port),
        "ROLE": "follower",
        "RECONNECT_MAX_S": str(RECONNECT_MAX_S),
        "DATA_DIR": str(data_dir),
        **settings,
    }


@dataclass
class Load:
    """Clients that write keys of their own, one after the other, until they are told to stop.

    Attributes:
        acknowledged: The keys whose writes were answered with 200.
        others: What else was answered: status, code and reason.
    """

    cluster: Cluster
    acknowledged: list[str] = field(default_factory=list)
    others: list[tuple[int, str, str | None]] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Writes for as long as the block lasts."""
        with ThreadPoolExecutor(clients) as pool:
            for client in range(clients):
                pool.submit(self._write, client)
            try:
                yield
            finally:
                self.is_over.set()

    def _write(self, client: int) -> None:
        number = 0
        while not self.is_over.is_set():
            number += 1
            key = f"c{client}-{number}"
            try:
                answer = self.cluster.put(key, key)
            except httpx.HTTPError:
                time.sleep(0.01)  # it is gone, and the outcome of this one is unknown
                continue
            if answer.status_code == 200:
                self.acknowledged.append(key)
            else:
                error = answer.json()["error"]
                self.others.append((answer.status_code, error["code"], error.get("reason")))

    def written(self, count: int) -> bool:
        """Tells if so many writes were acknowledged."""
        return len(self.acknowledged) >= count


@contextlib.contextmanager
def failing(node: Node, call: str, error: str, path: Path | None = None) -> Iterator[None]:
    """Lets a system call of a running node fail for the rest of its life, if it concerns a file."""
    command = ["strace", "-f", "-p", str(node.pid), "-e", f"inject={call}:error={error}"]
    command += ["-e", f"trace={call}", "-o", "/dev/null"]
    if path is not None:
        command += ["-P", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        if "attached" not in line:
            pytest.skip(f"strace may not attach here: {line}")
        try:
            yield
        finally:
            strace.terminate()


def log_of(node: Node) -> str:
    """Returns what a node has logged."""
    return str(node.info.logpath.read_text("utf-8"))


def newest_log(node: Node) -> Path:
    """Returns the file that takes a node's writes."""
    return max((Path(node.environment["DATA_DIR"]) / "store").glob("*.log"))


def check_ended_for_its_disk(node: Node, part: str) -> None:
    """Waits for a node to end, and holds it to its exit code and its one sentence."""
    assert node.reap() == EXIT_STORAGE
    critical = [line for line in log_of(node).splitlines() if " CRITICAL " in line]
    assert len(critical) == 1
    assert part in critical[0]
    assert "the node ends" in critical[0]
    assert "Traceback" not in log_of(node)


def check_holds(cluster: Cluster, keys: list[str], node: Node | None = None) -> None:
    """Holds a node to all that was acknowledged."""
    shown = cluster.client.get(f"{(node or cluster.leader).url}/dump").json()
    missing = [key for key in keys if shown.get(key) != key]
    assert not missing, f"{len(missing)} of {len(keys)}, such as {missing[:3]}"


# --- disks that fail --------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        ("fdatasync", "EIO", "Input/output error"),
        ("write", "ENOSPC", "No space left on device"),
    ],
)
def test_leader_whose_disk_fails_ends_with_a_sentence_and_comes_back_with_all_it_acknowledged(
    call: str, error: str, part: str, make_durable: MakeDurable
) -> None:
    """A sync is never tried again: what it was to make durable may be gone already."""
    cluster = make_durable(0, 0)
    load = Load(cluster)
    with load.running(clients=4):
        wait_until(lambda: load.written(50), "some writes were acknowledged")
        with failing(cluster.leader, call, error, newest_log(cluster.leader)):
            check_ended_for_its_disk(cluster.leader, part)
    assert load.others == []
    cluster.start("leader")
    check_holds(cluster, load.acknowledged)
    assert cluster.put("later", "x").json()["epoch"] == 2


@needs_strace
def test_follower_whose_disk_fails_ends_and_the_others_go_on_without_it(
    make_durable: MakeDurable,
) -> None:
    """Its acknowledgments were true; when it is back, it holds them, and catches up."""
    cluster = make_durable(2, 1)
    cluster.wait_connected()
    load, lost = Load(cluster), cluster.followers[0]
    with load.running(clients=4):
        wait_until(lambda: load.written(50), "some writes were acknowledged")
        with failing(lost, "fdatasync", "EIO", newest_log(lost)):
            check_ended_for_its_disk(lost, "Input/output error")
        before = len(load.acknowledged)
        wait_until(lambda: load.written(before + 50), "writes go on")
        cluster.start(lost.name)
        wait_until(lambda: cluster.links()["links"][lost.name]["connected"], "it is back")
    cluster.wait_connected()
    cluster.wait_converged()
    assert load.others == []
    for node in cluster.nodes.values():
        check_holds(cluster, load.acknowledged, node)


# --- nodes that are told to stop --------------------------------------------------------------


def test_sigterm_under_load_answers_what_is_in_flight_and_loses_nothing(
    make_durable: MakeDurable,
) -> None:
    """New writes are refused, those on their way are committed, and the disk holds them all."""
    cluster = make_durable(1, 1, MIN_DELAY_MS="150", MAX_DELAY_MS="150")
    cluster.wait_connected()
    load, clients = Load(cluster), 8
    with load.running(clients):
        wait_until(lambda: load.written(2 * clients), "some writes were acknowledged")
        acknowledged = len(load.acknowledged)
        in_flight = wait_until(
            lambda: (status := cluster.links())["last_seq"] - status["stable_seq"], "writes wait"
        )
        began_s = time.monotonic()
        assert cluster.leader.stop() == 0
        assert time.monotonic() - began_s < STOP_LIMIT_S
    assert len(load.acknowledged) - acknowledged >= in_flight
    assert set(load.others) <= {(503, "not_attempted", "draining")}
    cluster.start("leader")
    check_holds(cluster, load.acknowledged)
    refused = cluster.put("later", "x")
    assert refused.status_code == 503
    assert refused.json()["error"]["reason"] == "recovering"
    check_holds(cluster, load.acknowledged, cluster.followers[0])


# --- two nodes on one disk --------------------------------------------------------------------


def test_second_node_on_one_disk_ends_with_a_sentence_and_the_first_goes_on(
    make_durable: MakeDurable,
) -> None:
    """The second one touches nothing."""
    cluster = make_durable(0, 0)
    assert cluster.put("k", "before").status_code == 200
    environment = {**cluster.leader.environment, "PORT": str(free_ports(1)[0])}
    second = subprocess.run(
        [sys.executable, "-m", "kv_app"],
        env=clean_environment(**environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == EXIT_STORAGE
    [critical] = [line for line in second.stderr.splitlines() if " CRITICAL " in line]
    assert "is used by another process" in critical
    assert "Traceback" not in second.stderr
    assert cluster.put("k", "after").status_code == 200
    cluster.leader.kill()
    cluster.start("leader")
    assert cluster.get("k").json()["value"] == "after"
