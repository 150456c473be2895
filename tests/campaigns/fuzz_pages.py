"""What a web page could send, and what is ambiguous, to live nodes with a token and without.

Each request is a proper one with one thing wrong, drawn at random; each is refused with the status
of just that, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from kv_app.failover.calls import Probe, Recall, Seal
from kv_app.meta import Promise
from tests.campaigns.campaign import Violation
from tests.campaigns.nodes import CALL_TIMEOUT_S, Cluster
from tests.campaigns.views import view_of

if TYPE_CHECKING:
    from random import Random

    from tests.campaigns.campaign import Stage
    from tests.campaigns.nodes import Node

TOKEN = "a token for the fuzz"
FOLLOWERS, WRITE_QUORUM = 1, 1
REQUESTS, SHORT_REQUESTS = 20_000, 500
PUT = b'{"value": "x"}'
BATCH = b'{"operations": [{"op": "put", "key": "page", "value": "x"}]}'
DELAYS = b'{"min_delay_ms": 1, "max_delay_ms": 2}'
CALLS = [
    ("GET", "/kv/before", b""),
    ("GET", "/kv/before?consistency=linearizable", b""),
    ("HEAD", "/kv/before", b""),
    ("PUT", "/kv/page", PUT),
    ("DELETE", "/kv/before", b""),
    ("POST", "/kv", BATCH),
    ("GET", "/dump", b""),
    ("GET", "/digest", b""),
    ("GET", "/health", b""),
    ("GET", "/metrics", b""),
    ("GET", "/docs", b""),
    ("GET", "/admin/status", b""),
    ("GET", "/admin/replica-status", b""),
    ("POST", "/admin/delays", DELAYS),
    ("POST", "/admin/quorum", b'{"write_quorum": 0}'),
    ("POST", "/admin/promote", b"{}"),
    ("GET", "/replication", b""),
    ("POST", "/replication/call", msgspec.msgpack.encode(Probe())),
    ("OPTIONS", "/kv/page", b""),
]
QUESTIONS = [
    msgspec.msgpack.encode(question)
    for question in (
        Probe(),
        Seal("x", Promise(1 << 40, "evil", "evil")),
        Recall("x", "follower1", ("http://127.0.0.1:9", "http://127.0.0.1:9")),
    )
]
CHANNEL = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
OFFER = (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEA"))
SITES = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "xn--e1aybc.example")

Header = tuple[str, str]


def fuzz_pages(stage: Stage) -> str:
    """Sends all of it to a cluster without a token, then to one with; returns what was done.

    Raises:
        Violation: Something was not refused, or changed what the nodes show, or a node failed.
    """
    requests = SHORT_REQUESTS if stage.options.short else REQUESTS
    for token in (None, TOKEN):
        settings = {"CLUSTER_TOKEN": token} if token else {}
        name = f"pages-{'with' if token else 'without'}"
        with Cluster(stage, name, FOLLOWERS, WRITE_QUORUM, **settings) as cluster:
            cluster.start()
            cluster.wait_counting()
            cluster.client.put(f"{cluster.leader.url}/kv/before", json={"value": "x"})
            cluster.wait_converged()
            before = [view_of(cluster, node) for node in cluster.nodes]
            attacker = Attacker(stage.random, cluster.nodes, token)
            for _ in range(requests):
                attacker.attack()
            if [view_of(cluster, node) for node in cluster.nodes] != before:
                raise Violation("A node shows something else after requests that it refused.")
            cluster.wait_counting()
            cluster.check_logs()
            kinds = ", ".join(f"{count} {kind}" for kind, count in attacker.done.most_common())
            stage.say(f"  {name}: {kinds}")
    return f"{requests} requests of pages and ambiguous ones, with the token and without"


class Attacker:
    """Sends requests that are wrong in one thing.

    Attributes:
        done: How many, by what was wrong.
    """

    def __init__(self, random: Random, nodes: list[Node], token: str | None) -> None:
        self._random = random
        self._hosts = [urlsplit(node.url).netloc for node in nodes]
        self._token = token
        self.done: Counter[str] = Counter()
        self._attacks = [
            self.page,
            self.rebound,
            self.hosts,
            self.question_in_a_form,
            self.two_idempotency_keys,
            self.bad_escape,
            self.unknown_member,
            self.offer,
        ]

    def attack(self) -> None:
        """Sends one request.

        Raises:
            Violation: It was not refused as it should be.
        """
        attack = self._random.choice(self._attacks)
        attack()
        self.done[attack.__name__.replace("_", " ")] += 1

    def page(self) -> None:
        """A page of another origin: refused by all calls."""
        origin = self._random.choice(
            [
                "null",
                "http://localhost:1",
                "http://127.0.0.1",
                *(f"http://{name}" for name in SITES),
            ]
        )
        self._expect({403}, *self._call(), [("Origin", origin)])

    def rebound(self) -> None:
        """A page whose name was made to point here: refused where there is no token."""
        name = self._random.choice(SITES)
        host = self._random.choice([name, f"{name}:8000", f"[{name}]", f"{name}."])
        if self._token is None:
            self._expect({421}, *self._call(), [], host)
        else:
            self._expect({200, 404}, "GET", "/kv/before", b"", [], host)

    def hosts(self) -> None:
        """No ``Host``, or two: not of HTTP/1.1."""
        host = self._random.choice(self._hosts)
        more = self._random.choice([[], [("Host", host), ("Host", host)]])
        self._expect({400}, *self._call(), more, None)

    def question_in_a_form(self) -> None:
        """What nodes ask, as a form sends it."""
        path = self._random.choice(["/replication/call", "/replication/whole"])
        kind = self._random.choice(["text/plain", "application/json", "multipart/form-data"])
        body = self._random.choice(QUESTIONS)
        self._expect({400}, "POST", path, body, [("Content-Type", kind)])

    def two_idempotency_keys(self) -> None:
        """Which of them would be the write's?"""
        method, path, body = self._random.choice([call for call in CALLS if "/kv" in call[1]][3:6])
        keys = [("Idempotency-Key", key) for key in ("one", "two")]
        self._expect({400}, method, path, body, keys, leader=True)

    def bad_escape(self) -> None:
        """A percent sign that encodes nothing."""
        path = "/kv/page" + self._random.choice(["%", "%z", "%2", "%%41", "%zz", "%-1"])
        self._expect({400}, self._random.choice(["GET", "PUT", "DELETE"]), path, PUT, leader=True)

    def unknown_member(self) -> None:
        """A member of a body that nobody knows."""
        path, body = self._random.choice(
            [
                ("/kv", BATCH),
                ("/kv/page", PUT),
                ("/admin/delays", DELAYS),
                ("/admin/promote", b"{}"),
            ]
        )
        more = b'{"unknown": 1' + (b", " if len(body) > len(b"{}") else b"") + body[1:]
        self._expect({400}, "PUT" if path == "/kv/page" else "POST", path, more, leader=True)

    def offer(self) -> None:
        """An offer to speak HTTP/2: ignored, with and without a body."""
        self._expect({200}, "GET", "/kv/before", b"", list(OFFER))
        self._expect({400}, "POST", "/admin/delays", b"{}", list(OFFER), leader=True)

    def _call(self) -> tuple[str, str, bytes]:
        return self._random.choice(CALLS)

    def _expect(
        self,
        statuses: set[int],
        method: str,
        path: str,
        body: bytes,
        headers: list[Header] | None = None,
        host: str | None = "",
        *,
        leader: bool = False,
    ) -> None:
        address = self._hosts[0] if leader else self._random.choice(self._hosts)
        sent = list(headers or [])
        if host is not None:
            sent.append(("Host", host or address))
        if path == "/replication":
            sent += CHANNEL
        names = {name for name, _ in sent}
        if "Content-Type" not in names:
            kind = "msgpack" if path.startswith("/replication") else "json"
            sent.append(("Content-Type", f"application/{kind}"))
        if self._token is not None:
            sent.append(("Authorization", f"Bearer {self._token}"))
        status = ask(address, method, path, body, sent)
        if status not in statuses:
            request = [f"{method} {path}", *(f"{name}: {text}" for name, text in sent), repr(body)]
            raise Violation(f"{status} instead of {statuses} for what should be refused.", request)


def ask(address: str, method: str, path: str, body: bytes, headers: list[Header]) -> int:
    """Sends one request as it is; returns the status of its answer."""
    connection = HTTPConnection(address, timeout=CALL_TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, text in headers:
            connection.putheader(name, text)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()
