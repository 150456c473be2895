"""Reads and writes: what do reads see of the writes' cost?

    locust -f locustfiles/mixed.py --host http://127.0.0.1:8000 --read-share 0.95

`--read-from followers` spreads reads over the followers that the leader knows. Their answers may
be stale; this scenario measures how quick they are, not how old.
"""

from orchestration.load.user import KvUser, Request


class Mixed(KvUser):
    """Reads and writes of the same keys, at the share that `--read-share` says."""

    def next_request(self) -> Request:
        """A read or a write, drawn by the seed."""
        return self.read() if self.next_is_read() else self.write()
