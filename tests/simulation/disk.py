"""Disks that lose on a crash what was not synced: they stand for the engine under ``Storage``."""

from __future__ import annotations

from bisect import bisect_left
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from kv_app.storage import Storage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from random import Random

    from kv_app.meta import Meta

Change = tuple[str, bytes, bytes]


class Batch:
    """Stands for ``rocksdict.WriteBatch``."""

    def __init__(self, *, raw_mode: bool = True) -> None:
        assert raw_mode
        self.changes: list[Change] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Adds a put."""
        self.changes.append(("put", key, value))

    def delete(self, key: bytes) -> None:
        """Adds a deletion."""
        self.changes.append(("delete", key, b""))

    def delete_range(self, first: bytes, end: bytes) -> None:
        """Adds the deletion of all from a key to another, that not included."""
        self.changes.append(("delete_range", first, end))


class Contents:
    """Sorted keys and values."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, changes: list[Change]) -> None:
        """Takes a batch."""
        for what, key, value in changes:
            if what == "put":
                self.values[key] = value
            elif what == "delete":
                self.values.pop(key, None)
            else:
                for one in [one for one in self.values if key <= one < value]:
                    del self.values[one]


class Disk:
    """What a node's process leaves behind.

    Attributes:
        durable: What was synced.
        is_mounted: True while a process uses it; what one that has ended still does is ignored.
    """

    def __init__(self) -> None:
        self.durable = Contents()
        self.unsynced: list[list[Change]] = []

    def crash(self, random: Random) -> None:
        """Loses some of what was not synced: what was written last goes first."""
        kept = random.randint(0, len(self.unsynced))
        for changes in self.unsynced[:kept]:
            self.durable.apply(changes)
        self.unsynced = []


class Database:
    """One process's use of a disk; stands for ``rocksdict.Rdict``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._now = Contents()
        self._now.values = dict(disk.durable.values)
        self.is_dead = False

    def write(self, batch: Batch, _options: object) -> None:
        """Writes a batch in one step."""
        if not self.is_dead:
            self._now.apply(batch.changes)
            self._disk.unsynced.append(batch.changes)

    def flush_wal(self, *, sync: bool) -> None:
        """Makes durable all that was written."""
        assert sync
        if not self.is_dead:
            for changes in self._disk.unsynced:
                self._disk.durable.apply(changes)
            self._disk.unsynced = []

    def get(self, key: bytes) -> bytes | None:
        """Returns a value."""
        return self._now.values.get(key)

    def iter(self) -> Cursor:
        """Returns a cursor over what there is now."""
        return Cursor(self._now.values)

    def close(self) -> None:
        """Ends the use."""


class Cursor:
    """Stands for the engine's iterator."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._values = values
        self._keys = sorted(values)
        self._at = 0

    def seek(self, key: bytes) -> None:
        """Goes to the first key at or above one."""
        self._at = bisect_left(self._keys, key)

    def valid(self) -> bool:
        """Tells if there is something."""
        return self._at < len(self._keys)

    def key(self) -> bytes:
        """Returns the key."""
        return self._keys[self._at]

    def value(self) -> bytes:
        """Returns the value."""
        return self._values[self.key()]

    def next(self) -> None:
        """Goes on."""
        self._at += 1

    def status(self) -> None:
        """Nothing is ever damaged."""


def mount(disk: Disk, meta: Meta) -> Storage:
    """Returns a node's storage on a disk, made if there is none."""
    from kv_app import storage  # noqa: PLC0415  its engine is patched

    database: Any = Database(disk)
    record = database.get(storage._META)
    if record is not None:
        return Storage(database, storage._decode_meta(record))
    fresh = Storage(database, meta)
    fresh.save(meta)
    return fresh


class SlowSyncs(Executor):
    """Syncs one after the other, each a while later, as a thread with a slow disk would."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, mean_s: float) -> None:
        self._loop = loop
        self._random = random
        self._mean_s = mean_s
        self.is_dead = False

    def submit(self, call: Callable[..., Any], /, *_: Any, **__: Any) -> Future[Any]:  # type: ignore[override]
        """Runs a call later."""
        future: Future[Any] = Future()

        def run() -> None:
            if not self.is_dead:
                future.set_result(call())

        self._loop.call_later(self._random.expovariate(1 / self._mean_s), run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Ends; what was submitted goes on."""
        del wait, cancel_futures
