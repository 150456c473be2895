"""Writes only: what does a write cost?

    locust -f locustfiles/writes.py --host http://127.0.0.1:8000

Open loop at `--rate` by default: requests leave on schedule, whatever the store does, and a
stall shows in every request that it delayed. `--rate 0` is a closed loop: Locust's users send
back to back, which measures throughput and hides stalls.
"""

from orchestration.load.user import KvUser, Request


class Writes(KvUser):
    """New values to uniformly chosen keys."""

    def next_request(self) -> Request:
        """Always a write."""
        return self.write()
