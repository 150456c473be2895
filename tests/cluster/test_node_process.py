"""A node as a process: its start, its refusals, its end."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.cluster.nodes import clean_environment, free_ports, wait_until
from tests.cluster.tool import ROOT

if TYPE_CHECKING:
    from tests.cluster.nodes import Cluster, MakeCluster, Node


def run_node(**variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a node that is expected to refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "kv_app"],
        env=clean_environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROLE", "king"),
        ("PORT", "0"),
        ("HOST", "0.0.0.0"),  # noqa: S104  refused without a token
        ("WRITE_QUORUM", "-1"),
        ("FOLLOWER_URLS", "ftp://x"),
        ("MAX_DELAY_MS", "soon"),
        ("REQUEST_TIMEOUT", "0"),
    ],
)
def test_bad_setting_ends_the_node_with_a_sentence(variable: str, value: str) -> None:
    """A node that cannot use a setting names it, and exits with 64 before it listens."""
    done = run_node(**{variable: value})
    assert done.returncode == 64
    assert done.stderr.startswith("kv_app: ")
    assert variable in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("optimize", ["0", "2"])
def test_taken_port_ends_the_node_with_a_sentence(optimize: str) -> None:
    """A port that somebody has is one sentence, not a traceback; also without docstrings."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_node(PORT=port, PYTHONOPTIMIZE=optimize)
    assert done.returncode != 0
    assert port in done.stderr
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "::1%nowhere", "nowhere.invalid"])
def test_host_that_is_not_this_machines_is_named(host: str) -> None:
    """Another port would not help."""
    done = run_node(HOST=host, ADVERTISE_URL="http://127.0.0.1:8000", CLUSTER_TOKEN="t")
    assert done.returncode == 64
    assert done.stderr.startswith("kv_app: Cannot listen on http://")
    assert host in done.stderr
    assert done.stderr.endswith("; choose another HOST.\n")


def test_sigterm_ends_a_node_quickly_and_cleanly(make_cluster: MakeCluster) -> None:
    """SIGTERM is a clean end, for a leader with open channels and for a follower."""
    cluster = make_cluster(2, 1)
    cluster.wait_connected()
    for node in (cluster.followers[0], cluster.leader, cluster.followers[1]):
        start_s = time.monotonic()
        assert node.stop() in {0, -15}
        assert time.monotonic() - start_s < 5


def test_sigterm_answers_the_writes_that_wait(make_cluster: MakeCluster) -> None:
    """A leader that stops tells those who wait for a quorum that the outcome is unknown."""
    cluster = make_cluster(1, 1, REQUEST_TIMEOUT="30")
    cluster.wait_connected()
    with cluster.followers[0].paused(), ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cluster.put, f"waits-{number}", "x") for number in range(3)]
        wait_until(lambda: cluster.links()["last_seq"] == len(waiting), "the writes are in the log")
        start_s = time.monotonic()
        cluster.leader.stop()
        assert time.monotonic() - start_s < 2
        for answer in (write.result() for write in waiting):
            assert answer.status_code == 504
            error = answer.json()["error"]
            assert (error["code"], error["definite"]) == ("outcome_unknown", False)
            assert "stopped" in error["message"]


def test_sigterm_refuses_the_writes_that_come_after_it(make_cluster: MakeCluster) -> None:
    """A write whose body comes while the leader stops is not tried, and its client is told so."""
    cluster = make_cluster(1, 1)
    cluster.wait_connected()
    address = ("127.0.0.1", int(cluster.leader.environment["PORT"]))
    with socket.create_connection(address, timeout=5) as late:
        late.sendall(b"PUT /kv/late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n")
        cluster.get("late")  # both were read when this is answered
        psutil.Process(cluster.leader.pid).terminate()
        wait_until(lambda: not is_listening(address), "the leader takes no connections any more")
        late.sendall(b'{"value":"x"}')
        answer = b"".join(iter(lambda: late.recv(4096), b""))
    cluster.leader.reap()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"reason":"draining"' in answer
    assert cluster.get("late", cluster.followers[0]).status_code == 404


def ask(node: Node, method: str, path: str, body: str = "") -> socket.socket:
    """Sends a request on a connection of its own."""
    connection = socket.create_connection(("127.0.0.1", int(node.environment["PORT"])), timeout=10)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


def error_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Returns the status and the error of the last answer on a connection."""
    with connection:
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"application/json" in head, answer
    return int(head.split()[1]), json.loads(body)["error"]


def stop_in_peace(node: Node) -> None:
    """Ends a node by SIGTERM; it must not take what waits for a bug."""
    assert node.stop() in {0, -15}
    log = node.info.logpath.read_text("utf-8")
    assert "Traceback" not in log
    assert "Exception in ASGI application" not in log


def test_sigterm_answers_all_other_calls_that_wait_in_the_one_shape(
    make_cluster: MakeCluster,
) -> None:
    """Reads are refused and changes unknown, whatever they wait for; nothing is called a bug."""
    cluster = make_cluster(2, 1, REQUEST_TIMEOUT="30", HEARTBEAT_TIMEOUT_S="30")
    cluster.wait_connected()
    leader = cluster.leader
    with cluster.followers[0].paused(), cluster.followers[1].paused():
        read = ask(leader, "GET", "/kv/a?consistency=linearizable")
        digests = ask(leader, "GET", "/admin/digests")
        raising = ask(leader, "POST", "/admin/quorum", '{"write_quorum": 2}')
        wait_until(lambda: cluster.links()["last_seq"] == 1, "the raise is in the log")
        lowering = ask(leader, "POST", "/admin/quorum", '{"write_quorum": 0}')
        wait_until(lambda: cluster.links()["last_seq"] == 2, "the lowering is in the log")
        stop_in_peace(leader)
        status, error = error_on(read)
        assert (status, error["code"], error["definite"]) == (409, "not_confirmed", True)
        for change, seq in ((raising, 1), (lowering, 2)):
            status, error = error_on(change)
            assert (status, error["code"], error["seq"]) == (504, "outcome_unknown", seq)
            assert "stopped" in error["message"]
        status, error = error_on(digests)
        assert (status, error["code"], error["reason"]) == (503, "not_attempted", "draining")


def test_sigterm_leaves_the_outcome_of_a_promotion_under_way_unknown(
    make_cluster: MakeCluster,
) -> None:
    """Others have promised themselves to its epoch; who asked for it is told to look."""
    cluster = make_cluster(2, 2)
    cluster.wait_connected()
    new, other = cluster.followers

    def has_promised() -> bool:
        return epoch_of(cluster, other) == 2

    with cluster.leader.paused():  # the new one waits for it, for a while
        promotion = ask(new, "POST", "/admin/promote", "{}")
        wait_until(has_promised, "the other follower has promised itself to the next epoch")
        stop_in_peace(new)
        status, error = error_on(promotion)
    assert (status, error["code"], error["definite"]) == (504, "outcome_unknown", False)
    assert "stopped in the middle" in error["message"]


def epoch_of(cluster: Cluster, node: Node) -> int:
    """Returns the epoch that a node leads or has promised itself to."""
    return int(cluster.client.get(f"{node.url}/admin/status").json()["epoch"])


def is_listening(address: tuple[str, int]) -> bool:
    """Tells if somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def test_uvicorn_serves_the_application_by_name() -> None:
    """`uvicorn kv_app.main:app` is the other way to start a node."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "uvicorn", "kv_app.main:app", "--port", str(port)]
    with subprocess.Popen(
        command, env=clean_environment(NODE_ID="by-name"), cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        try:

            def node_id() -> str | None:
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
                except httpx.HTTPError:
                    return None
                return str(answer.json()["node_id"])

            assert wait_until(node_id, "the node answers") == "by-name"
            url = f"http://127.0.0.1:{port}/kv/x"
            assert httpx.put(url, json={"value": "1"}, trust_env=False).status_code == 200
        finally:
            process.terminate()
