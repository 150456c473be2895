"""Brings back from a node's disk what it held when it ended."""

from dataclasses import dataclass

from kv_app.log import HeldPositions, IdempotencyIndex
from kv_app.state import State
from kv_app.storage import Storage


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a node holds.

    Attributes:
        state: All versions, those of entries that may not be committed too.
        held: Which positions it holds.
        idempotency: The idempotency keys of all that.
    """

    state: State
    held: HeldPositions
    idempotency: IdempotencyIndex


def recover(storage: Storage | None, idempotency_keys: int) -> Recovered:
    """Reads all that there is; nothing, without a disk.

    What is found is durable before anything is told of it: a crash of the process alone leaves
    writes behind that no sync has covered.

    Args:
        storage: The node's database.
        idempotency_keys: How many keys are remembered.

    Raises:
        StorageError: The disk failed, or is damaged.
    """
    state, idempotency = State(), IdempotencyIndex(idempotency_keys)
    if storage is None:
        return Recovered(state, HeldPositions(), idempotency)
    storage.sync()
    held = HeldPositions(storage.meta.folded[1])
    for key, version in storage.versions():
        state.install(key, version)
    for write in storage.remembered():
        idempotency.restore(write)
    for entry in storage.entries():
        held.add(entry.seq)
        state.apply(entry)
        idempotency.remember(entry)
    return Recovered(state, held, idempotency)
