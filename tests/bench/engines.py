"""Embedded engines as the part ``storage`` measures them: each commits some entries durably."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import struct
from typing import TYPE_CHECKING, Protocol, cast

from rocksdict import DBRecoveryMode, Options, Rdict, WriteBatch, WriteOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

ENTRY_BYTES = 120
LMDB_MAP_BYTES = 1 << 30
# What every entry holds.
ENTRY = os.urandom(ENTRY_BYTES)


class Engine(Protocol):
    """One open engine."""

    def commit(self, first: int, count: int) -> None:
        """Makes so many entries durable, at positions from ``first`` on, in one commit."""

    def close(self) -> None:
        """Gives back what it holds."""


class Store(Engine, Protocol):
    """An engine that finds its entries again; a bare file is none."""

    def entries(self) -> dict[int, bytes]:
        """All entries by their positions."""


class Append:
    """A file: append and fdatasync, what any log costs at least."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def commit(self, first: int, count: int) -> None:
        """One write, one fdatasync."""
        os.write(self._file, b"".join(_key(first + index) + ENTRY for index in range(count)))
        os.fdatasync(self._file)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


class RocksSyncWrite:
    """RocksDB, synced by the write itself."""

    def __init__(self, folder: Path) -> None:
        self._db = _open_rocksdb(folder)
        self._options = WriteOptions()
        self._options.sync = True

    def commit(self, first: int, count: int) -> None:
        """One write of a batch."""
        self._db.write(_batch(first, count), self._options)

    def entries(self) -> dict[int, bytes]:
        """All of the database."""
        items = cast("Iterable[tuple[bytes, bytes]]", self._db.items())
        return {_seq(key): entry for key, entry in items}

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


class RocksFlushWal:
    """RocksDB, synced by a call of its own after the write."""

    def __init__(self, folder: Path) -> None:
        self._db = _open_rocksdb(folder)

    def commit(self, first: int, count: int) -> None:
        """One write of a batch, one flush of the write-ahead log."""
        self._db.write(_batch(first, count))
        self._db.flush_wal(sync=True)

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


class Sqlite:
    """SQLite with a write-ahead log and synchronous=FULL."""

    def __init__(self, folder: Path) -> None:
        path = folder / "sqlite"
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, entry BLOB)")

    def commit(self, first: int, count: int) -> None:
        """One transaction."""
        rows = [(first + index, ENTRY) for index in range(count)]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO log VALUES (?, ?)", rows)
        self._db.execute("COMMIT")

    def entries(self) -> dict[int, bytes]:
        """All rows."""
        return dict(self._db.execute("SELECT seq, entry FROM log"))

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


class Lmdb:
    """LMDB with its own settings: a commit syncs."""

    def __init__(self, folder: Path) -> None:
        import lmdb  # noqa: PLC0415 - measured where it is installed, needed nowhere

        self._environment = lmdb.open(str(folder / "lmdb"), map_size=LMDB_MAP_BYTES)

    def commit(self, first: int, count: int) -> None:
        """One transaction."""
        with self._environment.begin(write=True) as transaction:
            for index in range(count):
                transaction.put(_key(first + index), ENTRY, append=True)

    def entries(self) -> dict[int, bytes]:
        """All of the map."""
        with self._environment.begin() as transaction:
            return {_seq(key): entry for key, entry in transaction.cursor()}

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()


def engines() -> dict[str, Callable[[Path], Engine]]:
    """What can be measured here, by its name in tables."""
    found: dict[str, Callable[[Path], Engine]] = {
        "append, fdatasync": Append,
        "RocksDB, write": RocksSyncWrite,
        "RocksDB, flush_wal": RocksFlushWal,
        "SQLite": Sqlite,
    }
    if has_lmdb():
        found["LMDB"] = Lmdb
    return found


def has_lmdb() -> bool:
    """Whether LMDB's binding is installed; nothing of the project depends on it."""
    return importlib.util.find_spec("lmdb") is not None


def _key(seq: int) -> bytes:
    return struct.pack(">QQ", 1, seq)


def _seq(key: bytes) -> int:
    return int(struct.unpack(">QQ", key)[1])


def _open_rocksdb(folder: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency())
    return Rdict(str(folder / "rocksdb"), options)


def _batch(first: int, count: int) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    for index in range(count):
        batch.put(_key(first + index), ENTRY)
    return batch
