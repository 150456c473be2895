"""A small fixed workload: 100 writes, 10 at a time, to 10 keys.

    locust -f locustfiles/seed_workload.py --host http://127.0.0.1:8000 --headless

`TOTAL_WRITES`, `WRITE_CONCURRENCY` and `KEY_COUNT` in the environment change the numbers; so do
`--total-writes`, `--users` and `--keys`. It is a closed loop: a slow reply delays the next write,
so its mean says how long a write takes, and nothing about writes that would have come meanwhile.
"""

import os
from typing import ClassVar

from orchestration.load.user import KvUser, Request

CONCURRENCY = os.environ.get("WRITE_CONCURRENCY", "10")


class SeedWorkload(KvUser):
    """Clients that write back to back until all writes are done."""

    closed_loop_only = True
    # As text: they are checked and converted like what a user types.
    option_defaults: ClassVar[dict[str, str]] = {
        "rate": "0",
        "warmup": "0",
        "total_writes": os.environ.get("TOTAL_WRITES", "100"),
        "keys": os.environ.get("KEY_COUNT", "10"),
        "num_users": CONCURRENCY,
        "spawn_rate": CONCURRENCY,
    }

    def next_request(self) -> Request:
        """Always a write."""
        return self.write()
