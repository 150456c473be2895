"""The log's way from a replica to the leader that its node becomes, and back."""

from collections.abc import Sequence

import msgspec

from kv_app.delays import DelayModel
from kv_app.log import Log, LogRecord
from kv_app.replica import Replica

_encode_entry = msgspec.msgpack.Encoder().encode
_NO_DELAYS = DelayModel()


def take_over(replica: Replica, log: Log, now_ns: int) -> None:
    """Moves the entries of a base into a leader's log; they have no delays any more.

    Args:
        replica: Loses them.
        log: The leader's, which is empty.
        now_ns: The leader's monotonic clock. When they were appended only an earlier leader knew,
            by its own.
    """
    for entry in replica.log.above(log.last_seq):
        log.append(LogRecord(entry, _encode_entry(entry), now_ns, _NO_DELAYS, 0, 0))
    replica.log.clear()


def give_back(replica: Replica, log: Log, unwritten: Sequence[LogRecord], settled: int) -> None:
    """Gives a replica all that its leader has appended, committed or not.

    Args:
        replica: That of the node that leads no more.
        log: The leader's.
        unwritten: Those of its records that the disk was not given yet.
        settled: Everything at or below is committed.
    """
    if unwritten and replica.commits is not None:
        # Their flush is still to come, and would be one of another role.
        entries = [(one.entry.epoch, one.entry.seq, one.encoded) for one in unwritten]
        replica.commits.add(entries, lambda: None)
    replica.held.advance(log.last_seq)
    replica.stable_seq = max(replica.stable_seq, settled)
    replica.settled_seq = max(replica.settled_seq, settled)
    replica.log.skip_to(log.first_seq - 1)
    given = [record.entry for record in log]
    replica.log.extend(given)
    for entry in given:
        if entry.seq > replica.settled_seq:
            replica.state.apply_unsettled(entry)
