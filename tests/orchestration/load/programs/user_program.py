"""Has a user of records send requests to a fake store, case by case; prints the outcomes as JSON.

A program of its own since gevent and Locust must stay out of pytest's process.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

from gevent.pywsgi import WSGIServer
from locust.env import Environment

from orchestration.load.drivers import DriverError
from orchestration.load.drivers.http_kv import HttpKvDriver
from orchestration.load.plan import LoadPlan, Share
from orchestration.load.records import load_records
from orchestration.load.run import Run
from orchestration.load.user import KvUser
from orchestration.load.workload import MAX_SCAN_KEYS, key_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestration.load.executor import Request

SIZE = 40
KEYS = 30
SCANS = 20


class PromptServer(WSGIServer):
    """Sends each packet at once: else a reply's second one waits 40 ms for the first's receipt."""

    def handle(self, sock: Any, address: Any) -> None:
        """Serves a connection."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


class FakeStore:
    """A leader with one follower, itself, that remembers what it is asked."""

    def __init__(self, **values: str) -> None:
        self.values = {name.replace("_", "-"): value for name, value in values.items()}
        self.asked: list[str] = []
        self._server = PromptServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append(f"{method} {path}")
        status: str = "200 OK"
        body: Any
        key = path.removeprefix("/kv/")
        if method == "GET" and path.startswith("/kv/") and key not in self.values:
            status, body = "404 Not Found", {"error": {"code": "not_found", "definite": True}}
        elif path == "/admin/links":
            body = {"links": {self.url: {}}}
        elif method == "GET":
            body = {"value": self.values[key]}
        else:
            self._take(key, json.loads(environ["wsgi.input"].read()))
            body = {"epoch": 1, "seq": 1, "follower_acks": 0}
        answer = json.dumps(body).encode()
        start(status, [("Content-Length", str(len(answer)))])
        return [answer]

    def _take(self, key: str, document: dict[str, Any]) -> None:
        if "value" in document:
            self.values[key] = document["value"]
        for operation in document.get("operations", ()):
            self.values[operation["key"]] = operation["value"]


class Recorded(KvUser):
    """A user whose keys are there."""

    needs_records = True


class Plain(KvUser):
    """A user whose keys may be there."""


def user_of(kind: type[KvUser], store: FakeStore, plan: LoadPlan) -> KvUser:
    """A user in a run, before its first request."""
    environment = Environment(user_classes=[kind])
    run = Run(
        plan=plan,
        share=Share(),
        url=store.url,
        token=None,
        folder=None,
        request_event=environment.events.request,
        on_done=lambda: None,
    )
    user = kind(environment)
    run.take_part = lambda *_, **__: None  # type: ignore[method-assign]
    user._take_part(run)
    return user


def outcome(request: Request) -> str:
    """The error's code, or "ok"."""
    try:
        request.call()
    except DriverError as error:
        return error.code
    return "ok"


def loaded(**values: str) -> bool:
    """Whether records were written to a store that has these values."""
    store, plan = FakeStore(**values), LoadPlan(keys=KEYS, value_bytes=(SIZE, SIZE + 5))
    wrote = load_records(HttpKvDriver(store.url), plan)
    assert wrote == (len(store.values) == KEYS)
    return wrote


def finds_nothing(kind: type[KvUser]) -> dict[str, str]:
    """What becomes of each operation that reads, in an empty store."""
    outcomes = {}
    for name in ("read", "scan", "read_modify_write"):
        user = user_of(kind, FakeStore(), LoadPlan(keys=KEYS))
        outcomes[name] = outcome(getattr(user, name)())
    return outcomes


def scans() -> list[int]:
    """The numbers of the keys that scans read, of a store that has all records and more."""
    store = FakeStore(**{key_name(number): "v" for number in range(KEYS + MAX_SCAN_KEYS)})
    user = user_of(Recorded, store, LoadPlan(keys=KEYS))
    for _ in range(SCANS):
        user.scan().call()
    return [int(asked.rpartition("-")[2]) for asked in store.asked]


def readable_after_a_drop() -> int:
    """How many inserted keys may be read after one insert was never sent and one was."""
    user = user_of(Recorded, FakeStore(), LoadPlan(keys=KEYS))
    user.insert()
    user.insert().call()
    return user._run.inserted.readable


def asked_for_followers() -> list[str]:
    """What a run that reads from followers asks the leader before it begins."""
    store = FakeStore(key_0="v")
    user = user_of(Plain, store, LoadPlan(keys=1, read_from="followers"))
    user.read().call()
    return store.asked


def main() -> None:
    """Runs all cases."""
    right, short, long = "v" * SIZE, "v" * (SIZE - 1), "v" * (SIZE + 6)
    outcomes = {
        "loads": {
            "none": loaded(),
            "both": loaded(key_0=right, key_29=right),
            "last": loaded(key_29=right),
            "first": loaded(key_0=right),
            "short": loaded(key_0=right, key_29=short),
            "long": loaded(key_0=long, key_29=right),
        },
        "recorded": finds_nothing(Recorded),
        "plain": finds_nothing(Plain),
        "scans": scans(),
        "readable_after_a_drop": readable_after_a_drop(),
        "asked_for_followers": asked_for_followers(),
    }
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
