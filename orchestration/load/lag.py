"""How late the load process's own event loop is: what it adds to every request that it times."""

from __future__ import annotations

import gevent

from orchestration.load.alarm import now_ns
from orchestration.load.plan import NS_PER_S
from orchestration.load.recorder import LatencyCounts

INTERVAL_NS = 20_000_000


class LoopLag:
    """Asks to be woken fifty times a second, and notes how much later it was.

    The loop's timers count in milliseconds, so that one of them is no lag.
    """

    def __init__(self) -> None:
        self._late = LatencyCounts()
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> float:
        """Ends it; returns the 99th percentile in ms."""
        self._greenlet.kill()
        return self._late.percentiles_ns((99,))[0] / 1_000_000

    def _run(self) -> None:
        while True:
            due_ns = now_ns() + INTERVAL_NS
            gevent.sleep(INTERVAL_NS / NS_PER_S)
            self._late.add(max(now_ns() - due_ns, 0))
