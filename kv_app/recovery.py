"""Brings back from a node's disk what it held when it ended."""

import sys
from dataclasses import dataclass

from kv_app.log import EntryLog, HeldPositions, IdempotencyIndex
from kv_app.state import State
from kv_app.storage import Storage


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a node holds.

    Attributes:
        state: All versions, those of entries that may not be committed too.
        held: Which positions it holds.
        idempotency: The idempotency keys of all that.
        log: The entries that are not folded yet.
    """

    state: State
    held: HeldPositions
    idempotency: IdempotencyIndex
    log: EntryLog


def recover(
    storage: Storage | None, idempotency_keys: int, log: EntryLog | None = None
) -> Recovered:
    """Reads all that there is; nothing, without a disk.

    What is found is durable before anything is told of it: a crash of the process alone leaves
    writes behind that no sync has covered.

    Args:
        storage: The node's database.
        idempotency_keys: How many keys are remembered.
        log: Where entries go; empty.

    Raises:
        StorageError: The disk failed, or is damaged.
    """
    state, idempotency = State(), IdempotencyIndex(idempotency_keys)
    if log is None:
        log = EntryLog(sys.maxsize, sys.maxsize)
    if storage is None:
        return Recovered(state, HeldPositions(), idempotency, log)
    storage.sync()
    log.start = storage.meta.folded[1]
    held = HeldPositions(log.start)
    for key, version in storage.versions():
        state.install(key, version)
    for write in storage.remembered():
        idempotency.restore(write)
    for entry in storage.entries():
        held.add(entry.seq)
        log.extend((entry,))
        state.apply_unsettled(entry)
        idempotency.remember(entry)
    return Recovered(state, held, idempotency, log)
