"""A load of ``SET`` and ``WAIT`` on Redis, as a process: prints a ``LoadResult`` as JSON.

No load generator at hand sends the two as a pair on each of many connections. This one is a loop
over raw sockets: a turn takes tens of microseconds, and the caller sees what share of a core it
used.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import statistics
import sys
import time

from tests.bench.workload import keys, value

RECEIVE_BYTES = 4096
TIMEOUT_S = 5.0
_ANSWERS = re.compile(rb"\+OK\r\n:(\d+)\r\n")


def main() -> None:
    """Runs the load that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True, help="that WAIT waits for")
    options = parser.parse_args()
    pairs = [_pair(key, options.replicas) for key in keys()]
    load = Load((options.host, options.port), options.connections, pairs, options.replicas)
    sys.stdout.write(json.dumps(load.run(options.seconds)))


class Load:
    """Some connections, each of which sends its next pair when the last one is answered."""

    def __init__(
        self, address: tuple[str, int], connections: int, pairs: list[bytes], replicas: int
    ) -> None:
        self._pairs = pairs
        self._replicas = replicas
        self._sockets = {}
        self._sent = 0
        self._sent_ns: dict[int, int] = {}
        self._received: dict[int, bytes] = {}
        self._failed = 0
        self._latencies_ns: list[int] = []
        self._poll = select.epoll()
        for _ in range(connections):
            one = socket.create_connection(address, timeout=TIMEOUT_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[one.fileno()] = one
            self._poll.register(one.fileno(), select.EPOLLIN)

    def run(self, seconds: int) -> dict[str, float]:
        """The load's figures; what is on its way at the end does not count.

        Raises:
            SystemExit: Redis closed a connection or did not answer.
        """
        start_ns = time.monotonic_ns()
        end_ns = start_ns + seconds * 1_000_000_000
        for number in self._sockets:
            self._send(number)
        while (now_ns := time.monotonic_ns()) < end_ns:
            ready = self._poll.poll(TIMEOUT_S)
            if not ready:
                raise SystemExit(f"Redis did not answer within {TIMEOUT_S:g} s.")
            for number, _ in ready:
                self._receive(number)
        percentiles_ns = statistics.quantiles(self._latencies_ns, n=100)
        succeeded = len(self._latencies_ns) - self._failed
        return {
            "succeeded": succeeded,
            "failed": self._failed,
            "rate_per_s": succeeded / ((now_ns - start_ns) / 1e9),
            "p50_ms": percentiles_ns[49] / 1e6,
            "p99_ms": percentiles_ns[98] / 1e6,
        }

    def _send(self, number: int) -> None:
        self._received[number] = b""
        self._sent_ns[number] = time.monotonic_ns()
        self._sockets[number].send(self._pairs[self._sent % len(self._pairs)])
        self._sent += 1

    def _receive(self, number: int) -> None:
        data = self._sockets[number].recv(RECEIVE_BYTES)
        if not data:
            raise SystemExit("Redis closed a connection.")
        received = self._received[number] = self._received[number] + data
        # Both answers end in a line; an error is one line too.
        if received.count(b"\r\n") < 2:
            return
        self._latencies_ns.append(time.monotonic_ns() - self._sent_ns[number])
        match = _ANSWERS.fullmatch(received)
        if match is None or int(match[1]) < self._replicas:
            self._failed += 1
        self._send(number)


def _pair(key: str, replicas: int) -> bytes:
    return _command("SET", key, value()) + _command("WAIT", str(replicas), "1000")


def _command(*words: str) -> bytes:
    parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()


if __name__ == "__main__":
    main()
