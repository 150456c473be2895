"""Folders that hold a node's data, and what is left of them after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kv_app import group_commit
from kv_app.errors import StorageError
from kv_app.meta import Role
from kv_app.storage import Storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from kv_app.messages import Entry

MEMORY = Path("/dev/shm")  # noqa: S108  a name of its own is made in it
NODE_ID = "n"
HOLD_LIMIT_S = 10.0
encode = msgspec.msgpack.Encoder().encode


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Makes a folder, in memory where the system offers that: a sync there takes no time."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def opened(folder: Path, role: Role = Role.FOLLOWER, node_id: str = NODE_ID) -> Iterator[Storage]:
    """Opens a node's database for as long as the block lasts."""
    storage = open_storage(folder, node_id, role)
    try:
        yield storage
    finally:
        storage.close()


def crash(storage: Storage, folder: Path, copy: Path) -> Path:
    """Ends the use of a database; its copy holds what a killed process leaves."""
    # A copy is not made at one moment: files must not come and go meanwhile.
    storage._database.cancel_all_background(wait=True)
    shutil.copytree(folder, copy)
    with contextlib.suppress(StorageError):  # the engine has been told to end, and says so
        storage.close()
    return copy


def append(storage: Storage, *entries: Entry) -> None:
    """Writes entries with one write; not synced."""
    storage.append([(entry.epoch, entry.seq, encode(entry)) for entry in entries])


def flush(storage: Storage) -> None:
    """Lets the engine move all from its log to a file of versions, as it does when it has much."""
    storage._database.flush()


class Syncs:
    """The syncs of a database: they can be held up, and made to fail.

    Attributes:
        began: How many were asked for.
        ended: How many were done.
        failing: Why the next ones fail; empty if they do not.
    """

    def __init__(self, storage: Storage, patch: pytest.MonkeyPatch) -> None:
        """Takes over the syncs of a database; all run in a thread from now on."""
        self.began = self.ended = 0
        self.failing = ""
        self._sync = storage.sync
        self._gate = threading.Event()
        self._gate.set()
        patch.setattr(storage, "sync", self._wait)
        patch.setattr(group_commit, "INLINE_SYNC_NS", -1)

    def _wait(self) -> None:
        self.began += 1
        if not self._gate.wait(HOLD_LIMIT_S):
            raise StorageError("nobody let it go on")
        if self.failing:
            raise StorageError(self.failing)
        self._sync()
        self.ended += 1

    def hold(self) -> None:
        """Lets no sync end from now on."""
        self._gate.clear()

    def release(self) -> None:
        """Lets them end again."""
        self._gate.set()
