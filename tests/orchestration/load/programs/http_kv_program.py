"""Asks a fake store through the HTTP driver, case by case, and prints the outcomes as JSON.

A program of its own since gevent must stay out of pytest's process.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import gevent
from gevent.server import StreamServer

from orchestration.load.drivers import DriverError
from orchestration.load.drivers.http_kv import HttpKvDriver

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 0.3


def http(status: str, body: str, extra: str = "") -> bytes:
    """A reply with JSON."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n{body}".encode()


WRITTEN = http("200 OK", '{"key":"k","value":"v","epoch":2,"seq":7,"follower_acks":3}')
UNKNOWN = http(
    "504 Gateway Timeout",
    '{"error":{"code":"outcome_unknown","message":"no quorum in 5 s","definite":false}}',
)
READ_ONLY = http(
    "403 Forbidden", '{"error":{"code":"not_leader","message":"ask another","definite":true}}'
)
ABSENT = http("404 Not Found", '{"error":{"code":"not_found","message":"","definite":true}}')


class FakeStore:
    """Answers every request on a connection with the same bytes, and remembers the requests."""

    def __init__(self, reply: bytes, *, then_close: bool = False) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self._reply = reply
        self._then_close = then_close
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Listens no more."""
        self._server.stop(timeout=0)

    def _serve(self, connection: Any, _address: Any) -> None:
        self.connections += 1
        while data := connection.recv(65536):
            self.requests.append(data.decode())
            if self._reply:
                connection.sendall(self._reply)
            if self._then_close:
                return
            if not self._reply:
                gevent.sleep(10)


def tell(call: Callable[[], Any]) -> Any:
    """What the driver returned or raised."""
    try:
        return call()
    except DriverError as error:
        return {"code": error.code, "definite": error.definite, "detail": error.detail}


def ask(
    reply: bytes, call: Callable[[HttpKvDriver], Any], *, then_close: bool = False, times: int = 1
) -> dict[str, Any]:
    """One case: a store, a driver, and the call made so many times."""
    store = FakeStore(reply, then_close=then_close)
    driver = HttpKvDriver(store.url, token="a-token", timeout_s=TIMEOUT_S)
    outcomes = []
    for _ in range(times):
        outcomes.append(tell(lambda: call(driver)))
        gevent.sleep(0.01)
    driver.close()
    store.stop()
    return {
        "outcome": outcomes[-1],
        "requests": store.requests,
        "connections": store.connections,
    }


def write(driver: HttpKvDriver) -> Any:
    """A write with an idempotency key."""
    return driver.write("a/b", "väl", idempotency_key="once")


def main() -> None:
    """All cases."""
    closed = FakeStore(b"")
    closed.stop()
    local = FakeStore(WRITTEN)
    by_name = HttpKvDriver(local.url.replace("127.0.0.1", "localhost"))
    cases = {
        "by_name": {"outcome": tell(lambda: write(by_name))},
        "write": ask(WRITTEN, write),
        "delete": ask(WRITTEN, lambda driver: driver.delete("a")),
        "read": ask(http("200 OK", '{"key":"a","value":"1"}'), lambda driver: driver.read("a")),
        "read_absent": ask(ABSENT, lambda driver: driver.read("a")),
        "unknown": ask(UNKNOWN, write),
        "not_leader": ask(READ_ONLY, write),
        "no_json": ask(http("502 Bad Gateway", "<html>"), write),
        "not_http": ask(b"hello\r\n\r\n", write),
        "bad_body": ask(http("200 OK", '{"epoch":1}'), write),
        "silence": ask(b"", write),
        "reset": ask(b"", write, then_close=True),
        "kept_open": ask(WRITTEN, write, times=5),
        "closed_each_time": ask(WRITTEN, write, then_close=True, times=3),
        "asked_to_close": ask(
            http("200 OK", '{"epoch":2,"seq":7,"follower_acks":3}', "Connection: close\r\n"),
            write,
            times=3,
        ),
        "refused": {"outcome": tell(lambda: write(HttpKvDriver(closed.url)))},
    }
    sys.stdout.write(json.dumps(cases))


if __name__ == "__main__":
    main()
