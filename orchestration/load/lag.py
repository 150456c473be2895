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
        due_ns = now_ns()
        while True:
            due_ns += INTERVAL_NS
            gevent.sleep(max(due_ns - now_ns(), 0) / NS_PER_S)
            late_ns = max(now_ns() - due_ns, 0)
            self._late.add(late_ns)
            # Each wake that a stall has swallowed was late as well, the later ones less.
            for missed in range(late_ns // INTERVAL_NS):
                self._late.add(late_ns - (missed + 1) * INTERVAL_NS)
                due_ns += INTERVAL_NS
