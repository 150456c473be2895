"""What a retry of a write is answered with: the record of the first one."""

from kv_app.delays import DelayModel
from kv_app.errors import IdempotencyConflictError
from kv_app.log import IdempotentWrite, Log, LogRecord, fingerprint_of
from kv_app.messages import Entry


def first_record(
    first: IdempotentWrite, retry: Entry, log: Log, delays: DelayModel, write_quorum: int
) -> LogRecord:
    """Returns the record of a write that is asked for again.

    Args:
        first: What is remembered of it.
        retry: What is asked for now, at the position of the first.
        log: The leader's.
        delays: Those in force.
        write_quorum: k.

    Raises:
        IdempotencyConflictError: The first was another write.
    """
    if first.fingerprint != fingerprint_of(retry.operation, retry.key, retry.value, retry.changes):
        raise IdempotencyConflictError(
            "This Idempotency-Key was used for another operation, key or value; use a new one.",
            epoch=first.epoch,
            seq=first.seq,
        )
    record = log.get(first.seq)
    if record is not None:
        return record
    record = LogRecord(retry, b"", 0, delays, write_quorum, write_quorum)
    # The log drops only what is committed, so the first write did commit.
    record.committed = True
    record.ack_count = first.acks
    return record
