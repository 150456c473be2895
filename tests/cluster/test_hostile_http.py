"""What hostile clients send, over real sockets, and that the others do not notice."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import pytest

from tests.cluster.nodes import Cluster, Node, build_cluster, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CONNECTIONS = 400
READ_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_S = 5.0
CHANNEL = (
    b"GET /replication HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BAD = b"PUT /kv/bad HTTP/1.1\r\nHost: localhost\r\n"
SLOW = b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = BAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A leader that waits for its one follower, with limits that a test can reach."""
    cluster = build_cluster(
        request.getfixturevalue("xprocess"),
        1,
        1,
        MAX_CONNECTIONS=str(MAX_CONNECTIONS),
        REQUEST_READ_TIMEOUT_S=str(READ_TIMEOUT_S),
        REQUEST_TIMEOUT=str(REQUEST_TIMEOUT_S),
    )
    try:
        cluster.wait_connected()
        yield cluster
    finally:
        cluster.stop()


def connect(node: Node) -> socket.socket:
    """Opens a connection to a node."""
    return socket.create_connection(("127.0.0.1", int(node.environment["PORT"])), timeout=10)


def read_to_end(connection: socket.socket) -> bytes:
    """Reads until the node ends the connection, however it does."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def talk(node: Node, data: bytes) -> bytes:
    """Sends bytes and returns all that comes back until the node ends the connection."""
    with connect(node) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return read_to_end(connection)


def error_of(answer: bytes, status: int) -> dict[str, Any]:
    """The error in one raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:500]
    assert b"content-type: application/json" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert error["definite"] is True
    return error


def put_raw(key: str, body: bytes, *headers: bytes) -> bytes:
    """A whole PUT, which closes its connection."""
    return b"\r\n".join(
        [
            f"PUT /kv/{key} HTTP/1.1".encode(),
            b"Host: localhost",
            b"Content-Length: %d" % len(body),
            *headers,
            b"",
            body,
        ]
    )


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, "malformed"),
        (
            BAD + b"Content-Length: -5\r\n\r\n",
            400,
            "malformed",
        ),
        (
            BAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            400,
            "malformed",
        ),
        (b"GET / HTTP/1.1\r\n" + b"Endless: header\r\n" * (1 << 19), 413, "too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"endless" * (1 << 20), 413, "too_large"),
        (
            BAD + b"Content-Length: 1000000000\r\n\r\nx",
            413,
            "too_large",
        ),
        (
            CHUNKED + b"10000\r\n%b\r\n" % bytes(0x10000) * 100,
            413,
            "too_large",
        ),
        (
            BAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            400,
            "malformed",
        ),
        (
            BAD + b"Content-Length: 14\r\n\r\n" + b'{"value":',
            400,
            "malformed",
        ),
    ],
    ids=[
        "garbage",
        "negative length",
        "two lengths",
        "endless headers",
        "endless header",
        "gigabyte announced",
        "too many chunks",
        "chunks without end",
        "half a body",
    ],
)
def test_hostile_request_is_refused_with_a_reason_and_its_connection_ended(
    cluster: Cluster, data: bytes, status: int, code: str
) -> None:
    """Its sender is told why in the one shape, even if it is still sending; nothing is written."""
    answer = talk(cluster.leader, data)
    assert error_of(answer, status)["code"] == code
    assert cluster.get("bad").status_code == 404
    assert cluster.put("after-hostile", "x").status_code == 200


def test_pipelined_writes_are_answered_in_order_and_made_in_order(cluster: Cluster) -> None:
    """Forty writes in one packet are forty writes; what is no request ends the connection."""
    writes = [put_raw("pipelined", b'{"value": "%d"}' % number) for number in range(40)]
    answer = talk(cluster.leader, b"".join(writes) + b"\x00")
    *answers, last = answer.split(b"HTTP/1.1 ")[1:]
    assert [part[:3] for part in answers] == [b"200"] * 40
    values = [json.loads(part.partition(b"\r\n\r\n")[2])["value"] for part in answers]
    assert values == [str(number) for number in range(40)]
    assert error_of(b"HTTP/1.1 " + last, 400)["code"] == "malformed"
    assert cluster.get("pipelined").json()["value"] == "39"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/kv/x", "/health", "/admin/quorum", "/replication", "/nothing"])
def test_methods_that_nobody_needs_have_the_error_shape(
    cluster: Cluster, method: str, path: str
) -> None:
    """405 where the path is one, else 404."""
    raw = talk(
        cluster.leader,
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    )
    status = 404 if path in {"/replication", "/nothing"} else 405
    assert error_of(raw, status)["code"].startswith("unknown" if status == 404 else "method")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/kv/headed", 200), ("/kv/no", 404), ("/health", 200), ("/dump", 200), ("/kv", 405)],
)
def test_head_is_the_head_of_a_get_and_nothing_behind_it(
    cluster: Cluster, path: str, status: int
) -> None:
    """Also of a dump, whose body nobody takes; the connection goes on."""
    cluster.put("headed", "x")
    one = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    raw = talk(cluster.leader, one + b"\r\n" + one + b"Connection: close\r\n\r\n")
    first, second, rest = raw.split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"content-type: application/json" in head
    assert rest == b""


def test_half_open_clients_do_not_keep_others_from_writing(cluster: Cluster) -> None:
    """Three hundred slow or silent clients: every write of a normal one succeeds meanwhile."""
    begun = [
        b"",
        b"PUT /kv/slow HTTP/1.1\r\nHost: local",
        SLOW + b"Content-Length: 14\r\n\r\n" + b'{"val',
        SLOW + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    ]
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(cluster.leader)) for _ in range(300)]
        for number, client in enumerate(slow):
            client.sendall(begun[number % len(begun)])
        slowest_s, writes = 0.0, 0
        start_s = time.monotonic()
        while time.monotonic() - start_s < READ_TIMEOUT_S + 1:
            sent_s = time.monotonic()
            assert cluster.put(f"normal-{writes % 7}", "x").status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - sent_s)
            writes += 1
        assert slowest_s < REQUEST_TIMEOUT_S
        assert writes > 100
        for client in slow:
            assert error_of(read_to_end(client), 400)["code"] == "malformed"
    assert cluster.get("slow").status_code == 404


def test_connections_above_the_limit_are_refused_and_channels_are_not(cluster: Cluster) -> None:
    """A node full of silent clients says so, lets its leader in, and is free again later."""
    follower = cluster.followers[0]
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connect(follower))

        def refusal() -> bytes:
            answer = talk(
                follower, b"GET /kv/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            return answer if b" 503 " in answer[:20] else b""

        error = error_of(wait_until(refusal, "the follower is full"), 503)
        assert error["code"] == "not_attempted"
        assert (error["reason"], error["limit"]) == ("too_many_connections", "MAX_CONNECTIONS")
        with connect(follower) as channel:
            channel.sendall(CHANNEL)
            assert channel.recv(100).startswith(b"HTTP/1.1 101 ")
        assert cluster.put("while-full", "x").status_code == 200
    wait_until(lambda: cluster.get("while-full", follower).status_code == 200, "it is free again")


@pytest.mark.skipif(not psutil.LINUX, reason="needs prlimit")
def test_node_without_descriptors_does_not_spin_and_goes_on(cluster: Cluster) -> None:
    """Where the system gives it no more, connections are lost, the node is not."""
    process = psutil.Process(cluster.followers[0].pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 5, limits[1]))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    stack.enter_context(connect(cluster.followers[0]))
            before_s = sum(process.cpu_times()[:2])
            start_s = time.monotonic()
            while time.monotonic() - start_s < 1:
                assert cluster.put("without-descriptors", "x").status_code == 200
                time.sleep(0.02)
            assert sum(process.cpu_times()[:2]) - before_s < 0.5
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
    cluster.wait_converged()
    read = cluster.get("without-descriptors", cluster.followers[0])
    assert read.json()["value"] == "x"


KEYS = [
    "/",
    "a/b//c/",
    "%2F",
    "%252F",
    "two words",
    " ",
    "..",
    "../admin/quorum",
    "?after=1.1#x",
    "ключ",
    "🐘🗝️",
    "\x00\x01\x7f",
    "\r\nX: y",
    "\u202e\ufeff",
    "k" * 1024,
    "🐘" * 256,
]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_key_of_any_text_up_to_the_limit_is_itself_on_every_replica(
    cluster: Cluster, key: str
) -> None:
    """What a key looks like in a path is nothing that the store minds."""
    path = quote(key, safe="").replace(".", "%2E")  # a client may take dots for folders
    written = cluster.put(path, key)
    assert written.json()["key"] == key
    cluster.wait_converged()
    for node in cluster.nodes.values():
        assert cluster.get(path, node).json() == {
            "key": key,
            "value": key,
            "epoch": written.json()["epoch"],
            "seq": written.json()["seq"],
        }
    deleted = cluster.client.delete(f"{cluster.leader.url}/kv/{path}")
    assert deleted.json()["key"] == key


@pytest.mark.parametrize("value", ["", "x" * (1 << 20), "🐘" * (1 << 18)], ids=len)
def test_value_up_to_the_limit_comes_back_from_every_replica(cluster: Cluster, value: str) -> None:
    """The empty value and the largest one are values."""
    assert cluster.put("sized", value).status_code == 200
    cluster.wait_converged()
    for node in cluster.nodes.values():
        assert cluster.get("sized", node).json()["value"] == value
    refused = cluster.put("sized", value + "x" * (1 << 20))
    if value:
        assert refused.json()["error"]["limit"] == "MAX_VALUE_BYTES"


def test_stop_answers_clients_whose_request_is_half_there(cluster: Cluster) -> None:
    """They learn that nothing was tried, not of a bug; it comes last, since the leader is gone."""
    with connect(cluster.leader) as half:
        half.sendall(put_raw("half", b'{"value": "x"}')[:-3])
        cluster.get("half")  # both were read when this is answered
        psutil.Process(cluster.leader.pid).terminate()
        error = error_of(read_to_end(half), 503)
    assert (error["code"], error["reason"]) == ("not_attempted", "draining")
    assert cluster.leader.reap() in {0, -15}
