"""The core workloads of YCSB: what do common mixes of reads and writes feel of the quorum?

    locust -f locustfiles/ycsb.py --host http://127.0.0.1:8000 --mix ycsb-b --keys 10000

| mix | operations | keys |
| :-- | :-- | :-- |
| ycsb-a | half reads, half writes | zipfian |
| ycsb-b | 95% reads, 5% writes | zipfian |
| ycsb-c | reads only | zipfian |
| ycsb-d | 95% reads, 5% inserts | latest |
| ycsb-e | 95% scans of up to 100 keys, 5% inserts | zipfian |
| ycsb-f | half reads, half read-modify-writes | zipfian |

All `--keys` are written before the load begins, unless they are there. The store has no range
read, so that a scan is a series of reads.
"""

from typing import ClassVar

from orchestration.load.user import KvUser, Request


class Ycsb(KvUser):
    """One mix of operations, the one that `--mix` says."""

    needs_records = True
    # YCSB's records: 10 fields of 100 bytes.
    option_defaults: ClassVar[dict[str, str]] = {"value_bytes": "1000"}

    def next_request(self) -> Request:
        """An operation of the mix, drawn by the seed."""
        return self.next_of_mix()
