"""Makes entries durable, many with one sync.

Whatever is added in one turn of the event loop, or while a sync runs, shares the next one. A small
commit is synced in the loop itself: a hop to a thread and back costs as much as the sync. A large
one, or any on a disk that was slow last, is synced in a thread, so that the loop goes on meanwhile.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Final

from kv_app.errors import StorageError
from kv_app.log import IdempotencyIndex
from kv_app.meta import NOWHERE, Position
from kv_app.metrics import SIZE_BOUNDS, TIME_BOUNDS_NS, Histogram
from kv_app.storage import Storage

# A commit of so few entries is synced in the loop, unless the last sync took longer than this.
INLINE_ENTRIES: Final = 8
INLINE_SYNC_NS: Final = 1_000_000
# Folding begins when so many entries may be folded, and then goes along with the commits, twice as
# fast as entries come in.
FOLD_EVERY: Final = 4096

EncodedEntry = tuple[int, int, bytes]
Done = Callable[[], None]


class GroupCommit:
    """The way of entries to the disk.

    Attributes:
        fold_to: Everything at or below is committed and held; the owner moves it on.
        unsynced_bytes: Of the entries that are not durable yet.
        sync_times_ns: How long syncs took.
        sync_entries: How many entries they made durable.
    """

    def __init__(
        self,
        storage: Storage,
        idempotency: IdempotencyIndex,
        on_failure: Callable[[StorageError], None],
        executor: Executor | None = None,
    ) -> None:
        """Makes an empty one.

        Args:
            storage: Where entries go.
            idempotency: What of the idempotency keys on disk is still remembered.
            on_failure: Called when the disk fails; must end the process.
            executor: Where large commits are synced; a thread of its own if not given.
        """
        self.storage = storage
        self.fold_to: Position = NOWHERE
        self.unsynced_bytes = 0
        self.sync_times_ns = Histogram(TIME_BOUNDS_NS)
        self.sync_entries = Histogram(SIZE_BOUNDS)
        self._idempotency = idempotency
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._thread = executor or ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._syncing: Future[int] | None = None
        self._sync_ns = 0
        self._entries: list[EncodedEntry] = []
        self._waiting: list[Done] = []
        self._is_due = False
        self._to_fold = 0
        self._folding: asyncio.Handle | None = None

    def add(self, entries: Sequence[EncodedEntry], done: Done) -> None:
        """Takes entries, and calls ``done`` when they and all before them are durable."""
        self._entries += entries
        self.unsynced_bytes += _size_bytes(entries)
        self._waiting.append(done)
        if not self._is_due and self._syncing is None:
            self._is_due = True
            self._loop.call_soon(self.commit)

    def commit(self) -> None:
        """Begins to commit what was added, now; while a sync runs, the next follows it at once."""
        self._is_due = False
        if not self._waiting or self._syncing is not None:
            return
        entries, self._entries = self._entries, []
        waiting, self._waiting = self._waiting, []
        try:
            self.storage.append(entries)
            if len(entries) <= INLINE_ENTRIES and self._sync_ns <= INLINE_SYNC_NS:
                self._finish(self._sync(), waiting, entries)
            else:
                self._sync_in_thread(waiting, entries)
        except StorageError as error:
            self._on_failure(error)

    async def flush(self) -> None:
        """Commits all that was added so far."""
        while self._waiting or self._syncing is not None:
            self.commit()
            if self._syncing is not None:
                await asyncio.wait([asyncio.wrap_future(self._syncing)])
                await asyncio.sleep(0)  # the loop has been told as well, and goes first

    def drop(self, idempotency: IdempotencyIndex | None = None) -> None:
        """Forgets what was added and not written yet: the log is replaced.

        Args:
            idempotency: What is remembered from now on, if that is replaced too.
        """
        self._entries, self._waiting = [], []
        self.unsynced_bytes = 0
        self.fold_to = NOWHERE
        self._end_folding()
        if idempotency is not None:
            self._idempotency = idempotency

    async def close(self) -> None:
        """Commits all that was added, and ends."""
        await self.flush()
        self._end_folding()
        self._thread.shutdown()

    def _sync(self) -> int:
        """Syncs; returns how many ns that took."""
        began_ns = time.monotonic_ns()
        self.storage.sync()
        return time.monotonic_ns() - began_ns

    def _sync_in_thread(self, waiting: list[Done], entries: list[EncodedEntry]) -> None:
        def finish() -> None:
            self._syncing = None
            try:
                self._finish(syncing.result(), waiting, entries)
            except StorageError as error:
                self._on_failure(error)
            self.commit()

        syncing = self._syncing = self._thread.submit(self._sync)
        syncing.add_done_callback(lambda _: self._loop.call_soon_threadsafe(finish))

    def _finish(self, sync_ns: int, waiting: list[Done], entries: list[EncodedEntry]) -> None:
        self._sync_ns = sync_ns
        self.sync_times_ns.observe(sync_ns)
        self.sync_entries.observe(len(entries))
        self.unsynced_bytes = max(0, self.unsynced_bytes - _size_bytes(entries))
        for done in waiting:
            done()
        self._fold(len(entries))

    def _fold(self, committed: int) -> None:
        """Moves some old entries into the versions, if there are many; step by step."""
        folded = self.storage.meta.folded
        if self.fold_to[1] - folded[1] >= FOLD_EVERY:
            self._to_fold += 2 * committed
            if self._folding is None:
                self._fold_step()

    def _fold_step(self) -> None:
        self._folding = None
        before = self.storage.meta.folded[1]
        try:
            reached = self.storage.fold(self.fold_to, self.fold_to, self._to_fold)
            if self._idempotency.is_full:
                self.storage.forget_remembered(self._idempotency.oldest())
        except StorageError as error:
            self._on_failure(error)
            return
        moved = reached[1] - before
        self._to_fold = max(0, self._to_fold - moved) if moved else 0
        if self._to_fold:
            self._folding = self._loop.call_soon(self._fold_step)

    def _end_folding(self) -> None:
        self._to_fold = 0
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None


def _size_bytes(entries: Sequence[EncodedEntry]) -> int:
    return sum(len(encoded) for _, _, encoded in entries)
