"""Makes entries durable, many with one sync.

Whatever is added while one sync runs, or in one turn of the event loop, shares the next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from kv_app.errors import StorageError
from kv_app.log import IdempotencyIndex
from kv_app.storage import NOWHERE, Position, Storage

# Folding begins when so many entries may be folded, and then goes along with the commits, faster
# than entries come in.
FOLD_EVERY: Final = 4096
MIN_FOLD: Final = 64

EncodedEntry = tuple[int, int, bytes]


class GroupCommit:
    """The way of entries to the disk.

    Attributes:
        fold_to: Everything at or below is committed and held; the owner moves it on.
    """

    def __init__(
        self,
        storage: Storage,
        idempotency: IdempotencyIndex,
        on_failure: Callable[[StorageError], None],
    ) -> None:
        """Makes an empty one.

        Args:
            storage: Where entries go.
            idempotency: What of the idempotency keys on disk is still remembered.
            on_failure: Called when the disk fails; must end the process.
        """
        self.storage = storage
        self._idempotency = idempotency
        self.fold_to: Position = NOWHERE
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._entries: list[EncodedEntry] = []
        self._waiting: list[Callable[[], None]] = []
        self._is_due = False

    def add(self, entries: Sequence[EncodedEntry], done: Callable[[], None]) -> None:
        """Takes entries, and calls ``done`` when they and all before them are durable."""
        self._entries += entries
        self._waiting.append(done)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.commit)

    def commit(self) -> None:
        """Commits what was added, now."""
        self._is_due = False
        if not self._waiting:
            return
        entries, self._entries = self._entries, []
        waiting, self._waiting = self._waiting, []
        try:
            self.storage.append(entries)
            self.storage.sync()
            for done in waiting:
                done()
            self._fold(len(entries))
        except StorageError as error:
            self._on_failure(error)

    def _fold(self, committed: int) -> None:
        """Moves some old entries into the versions, if there are many."""
        folded = self.storage.meta.folded
        if self.fold_to[1] - folded[1] >= FOLD_EVERY:
            self.storage.fold(self.fold_to, self.fold_to, max(MIN_FOLD, 2 * committed))
            if self._idempotency.is_full:
                self.storage.forget_remembered(self._idempotency.oldest())
