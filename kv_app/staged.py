"""What is to replace a part of what a replica holds, while it comes in."""

from collections.abc import Iterable
from dataclasses import dataclass

from kv_app.log import HeldPositions, IdempotencyIndex
from kv_app.messages import Entry, RememberedWrite, Version
from kv_app.meta import BaseRecord
from kv_app.state import State, changes_of
from kv_app.storage import Storage


@dataclass(slots=True)
class Whole:
    """A snapshot that comes in: nothing of what the replica holds is kept.

    Attributes:
        state: Its versions.
        idempotency: Its idempotency keys.
        position: It holds all at or below; 0 until it has come whole.
    """

    state: State
    idempotency: IdempotencyIndex
    position: int = 0


class Staged:
    """Entries, and perhaps a snapshot, beside what a replica holds; acknowledged as nothing.

    Attributes:
        keep: What the replica holds at or below stays.
        entries: What comes above.
        held: Which positions there will be.
        whole: The snapshot, if there is one.
    """

    def __init__(self, keep: int, idempotency_keys: int, storage: Storage | None) -> None:
        self.keep = keep
        self.entries: dict[int, Entry] = {}
        self.held = HeldPositions(keep)
        self.whole: Whole | None = None
        self._idempotency_keys = idempotency_keys
        self._storage = storage

    def has(self, entry: Entry) -> bool:
        """Tells if an entry is among what came, the same one at its position."""
        other = self.entries.get(entry.seq)
        return other is not None and other.epoch == entry.epoch

    def shows(self, entry: Entry, base: BaseRecord) -> bool:
        """Tells if nothing is lost of an entry: it stays, or came, or newer ones of its keys did.

        A snapshot does not say which entries it is made of. What was deleted long ago is in none:
        then the answer may be False though the entry was once in this log.

        Args:
            entry: What the replica holds.
            base: What the log that came begins with.
        """
        if self.has(entry):
            return True
        whole = self.whole
        if whole is None:
            return entry.seq <= self.keep
        is_after_base = entry.seq > base.position and entry.epoch < base.epoch
        if is_after_base or entry.seq > whole.position:
            return False
        position = entry.epoch, entry.seq
        for key, value in changes_of(entry):
            version = whole.state.read(key)
            if version is None:
                if value is not None:
                    return False
            elif (version.epoch, version.seq) < position:
                return False
        return True

    def take(self, entries: Iterable[Entry]) -> None:
        """Takes entries, in any order, again or not."""
        for entry in entries:
            if entry.seq > self.keep and self.held.add(entry.seq):
                self.entries[entry.seq] = entry

    def begin_snapshot(self) -> Whole:
        """Begins a snapshot; one that was under way is given up."""
        self.keep, self.held = 0, HeldPositions()
        for seq in self.entries:
            self.held.add(seq)
        self.whole = Whole(State(), IdempotencyIndex(self._idempotency_keys))
        if self._storage is not None:
            self._storage.stage_begin()
        return self.whole

    def install(self, versions: dict[str, Version]) -> None:
        """Takes a part of the snapshot."""
        whole = self.whole or self.begin_snapshot()
        for key, version in versions.items():
            whole.state.install(key, version)
        if self._storage is not None:
            self._storage.stage(versions.items())

    def restore(self, writes: list[RememberedWrite]) -> None:
        """Takes idempotency keys of the snapshot."""
        whole = self.whole or self.begin_snapshot()
        for write in writes:
            whole.idempotency.restore(write)
        if self._storage is not None:
            self._storage.stage_remembered(writes)

    def finish_snapshot(self, position: int) -> None:
        """Notes that the snapshot has come whole."""
        whole = self.whole or self.begin_snapshot()
        whole.position = position
        self.keep = position
        self.held.advance(position)
        for seq in [seq for seq in self.entries if seq <= position]:
            del self.entries[seq]
