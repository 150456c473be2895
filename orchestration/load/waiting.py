"""What clients who wait for their answers would have measured: latency with coordinated omission.

Beside the response time of an open loop stands what a closed loop would have shown of the same
requests, lest a reader take the one for the other. Some clients, each with one request at a time,
take the requests in the order in which they are due; one that is due while all of them wait is not
theirs, and goes unseen. So a store that stalls for a second costs each of them one slow request,
and the many that came meanwhile are left out.
"""

from __future__ import annotations

import math
import statistics

from orchestration.load.plan import NS_PER_S

# As many service times tell how many clients it takes.
LEARNED_FROM = 30


class WaitingClients:
    """Decides of each request whether a waiting client would have sent it.

    There are as many clients as keep up with the rate while the store does not stall: by Little's
    law rate x mean service time, and one more.
    """

    def __init__(self, rate_per_s: float) -> None:
        """Begins to learn; a rate of 0 is a closed loop, which has waiting clients of its own."""
        self._rate_per_s = rate_per_s
        self._service_ns: list[int] = []
        self._free = 0

    def begin(self) -> bool:
        """Tells if the request that is due now is seen; if so, `end` follows."""
        if not self._rate_per_s:
            return True
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def end(self) -> None:
        """A request that was seen has been answered, or dropped."""
        self._free += 1

    def learn(self, service_ns: int) -> None:
        """Hears of an answer; the first few decide how many clients there are."""
        if len(self._service_ns) >= LEARNED_FROM or not self._rate_per_s:
            return
        self._service_ns.append(service_ns)
        if len(self._service_ns) == LEARNED_FROM:
            busy = self._rate_per_s * statistics.fmean(self._service_ns) / NS_PER_S
            self._free += 1 + math.ceil(busy)
