"""A node's disk, after any use and any crash of the process, against a slow obvious model."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_app import storage as storage_module
from kv_app.errors import StorageError
from kv_app.log import HeldPositions, fingerprint_of
from kv_app.messages import Change, Entry, Operation, RememberedWrite, Version
from kv_app.meta import BaseRecord, Config, Position, Promise, Role
from kv_app.recovery import recover
from kv_app.storage import open_storage
from tests.kv_app.disks import NODE_ID, append, crash, flush, memory_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = "abcd"
MANY = 1000

# --- against a model --------------------------------------------------------------------------


@dataclass
class Model:
    """What a disk should hold, as plain dictionaries; positions are compared as tuples."""

    versions: dict[str, Version] = field(default_factory=dict)
    log: dict[Position, Entry] = field(default_factory=dict)
    remembered: dict[Position, RememberedWrite] = field(default_factory=dict)
    folded: Position = (0, 0)
    is_installing: bool = False

    def held(self) -> HeldPositions:
        """All positions."""
        held = HeldPositions(self.folded[1])
        for _, seq in self.log:
            held.add(seq)
        return held

    def shown(self) -> dict[str, Version]:
        """The newest version of each key, deletions that are in the log included."""
        shown = dict(self.versions)
        for position in sorted(self.log):
            for key, version in changes_of(self.log[position]):
                if key not in shown or position > (shown[key].epoch, shown[key].seq):
                    shown[key] = version
        return shown

    def idempotency(self) -> list[RememberedWrite]:
        """The keys of all writes, by their positions."""
        in_log = {
            position: remembered_of(entry)
            for position, entry in self.log.items()
            if entry.idempotency_key is not None
        }
        return [write for _, write in sorted({**in_log, **self.remembered}.items())]

    def fold(self, upto: Position, count: int) -> None:
        """Moves the oldest entries into the versions, as far as none is missing."""
        for position in sorted(position for position in self.log if position <= upto)[:count]:
            if self.is_installing or position[1] != self.folded[1] + 1:
                break
            entry = self.log.pop(position)
            self.install(dict(changes_of(entry)))
            if entry.idempotency_key is not None:
                self.remembered[position] = remembered_of(entry)
            self.folded = position

    def install(self, versions: dict[str, Version]) -> None:
        """Takes versions, whatever was there."""
        for key, version in versions.items():
            self.versions.pop(key, None)
            if version.value is not None:
                self.versions[key] = version


def changes_of(entry: Entry) -> Iterator[tuple[str, Version]]:
    """Yields what an entry does to each key."""
    if entry.operation in {Operation.PUT, Operation.DELETE}:
        yield entry.key, Version(entry.value, entry.epoch, entry.seq)
    for change in entry.changes:
        yield change.key, Version(change.value, entry.epoch, entry.seq)


def remembered_of(entry: Entry) -> RememberedWrite:
    """Returns what is remembered of an entry that has an idempotency key."""
    fingerprint = fingerprint_of(entry.operation, entry.key, entry.value, entry.changes)
    return RememberedWrite(entry.idempotency_key or "", fingerprint, entry.epoch, entry.seq)


class Pair:
    """A disk, and its model beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = Model()
        self.starts = 0
        self.epoch = 1
        self.storage = open_storage(folder / "0", NODE_ID, Role.FOLLOWER)

    def append(self, shapes: list[tuple[str, str]], skipped: int, *, with_key: bool) -> None:
        """Appends entries at the next positions, or after a gap."""
        seq = self.model.held().max_seq + skipped
        entries = []
        for kind, key in shapes:
            seq += 1
            entries.append(self._entry(kind, key, seq, with_key=with_key))
        append(self.storage, *entries)
        self.model.log.update({(entry.epoch, entry.seq): entry for entry in entries})

    def _entry(self, kind: str, key: str, seq: int, *, with_key: bool) -> Entry:
        operation, value, changes = Operation.PUT, f"v{seq}", tuple[Change, ...]()
        if kind == "batch":
            operation, changes = Operation.BATCH, (Change(key, f"b{seq}"), Change("a", None))
            changes = changes if key != "a" else changes[:1]
        elif kind == "delete":
            operation = Operation.DELETE
        elif kind == "noop":
            operation = Operation.NOOP
        return Entry(
            self.epoch,
            seq,
            int(operation),
            key if operation in {Operation.PUT, Operation.DELETE} else "",
            value if operation is Operation.PUT else None,
            f"i{self.epoch}.{seq}" if with_key else None,
            changes,
        )

    def fill(self) -> None:
        """Appends what is missing, as a leader sends it again."""
        held = self.model.held()
        missing = [seq for seq in range(1, held.max_seq) if not held.holds(seq)]
        entries = [self._entry("put", "c", seq, with_key=True) for seq in missing]
        append(self.storage, *entries)
        self.model.log.update({(entry.epoch, entry.seq): entry for entry in entries})

    def fold(self, count: int) -> None:
        """Folds some entries; it stops where one is missing."""
        upto = (self.epoch, self.model.held().max_seq)
        self.model.fold(upto, count)
        assert self.storage.fold(upto, upto, count) == self.model.folded
        assert self.storage.meta.folded == self.model.folded

    def snapshot(self, values: dict[str, str | None], ahead: int, *, is_whole: bool) -> None:
        """Takes a snapshot of some keys, or a part of one; the other keys are dropped."""
        position = (self.epoch, self.model.held().contiguous + ahead)
        versions = {key: Version(value, *position) for key, value in values.items()}
        dropped = [key for key in KEYS if key not in versions]
        write = RememberedWrite("i{}.{}".format(*position), b"f", *position)
        for key in dropped:
            self.model.versions.pop(key, None)
        self.model.install(versions)
        self.model.remembered[position] = write
        self.storage.install(versions.items(), ())
        self.storage.install((), dropped)
        self.storage.remember([write])
        self.model.is_installing = True
        self.fold(MANY)  # what goes on meanwhile must not bring older versions back
        if is_whole:
            self.model.is_installing = False
            self.model.folded = position
            self.model.log = {at: one for at, one in self.model.log.items() if at > position}
            self.storage.finish_snapshot(position)

    def forget(self, seq: int) -> None:
        """Forgets the idempotency keys below a position."""
        below = (self.epoch, seq)
        kept = self.model.remembered.items()
        self.model.remembered = {at: write for at, write in kept if at >= below}
        self.storage.forget_remembered(below)

    def new_epoch(self) -> None:
        """Begins an epoch, without a hole in the one before."""
        self.fill()
        self.epoch += 1
        base = BaseRecord(self.epoch, "leader", "life", Config((), 0, 0, 0), 2)
        meta = msgspec.structs.replace(
            self.storage.meta, promise=Promise(self.epoch, "leader"), base=base
        )
        self.storage.save(meta)

    def flush(self) -> None:
        """Lets the engine write its files anew."""
        flush(self.storage)

    def reopen(self) -> None:
        """Ends as asked, and starts again."""
        self.storage.close()
        self._start(self.folder / str(self.starts))

    def crash(self) -> None:
        """Starts again from what is on the disk."""
        before, after = (self.folder / str(number) for number in (self.starts, self.starts + 1))
        self._start(crash(self.storage, before, after))
        self.starts += 1

    def _start(self, folder: Path) -> None:
        meta = self.storage.meta
        self.storage = open_storage(folder, NODE_ID, Role.LEADER)
        self.model.is_installing = False
        assert self.storage.meta == meta
        assert self.storage.notice == ""
        self.check()

    def check(self) -> None:
        """Holds what is on the disk against the model."""
        found, model = recover(self.storage, MANY), self.model
        shown = model.shown()
        assert {key: found.state.read(key) for key in KEYS} == {key: shown.get(key) for key in KEYS}
        held = model.held()
        assert found.held == held
        assert found.held.max_seq == held.max_seq
        remembered = list(found.idempotency.remembered(MANY))
        assert sorted(remembered, key=lambda write: (write.epoch, write.seq)) == (
            model.idempotency()
        )
        assert [(one.epoch, one.seq) for one in self.storage.entries()] == sorted(model.log)


kinds = st.sampled_from(["put", "delete", "batch", "noop"])
steps = st.one_of(
    st.tuples(
        st.just("append"),
        st.lists(st.tuples(kinds, st.sampled_from(KEYS)), min_size=1, max_size=4),
        st.sampled_from([0, 0, 1, 3]),
        st.booleans(),
    ),
    st.tuples(st.just("fill")),
    st.tuples(st.just("fold"), st.integers(min_value=1, max_value=6)),
    st.tuples(
        st.just("snapshot"),
        st.dictionaries(st.sampled_from(KEYS), st.none() | st.just("s"), max_size=3),
        st.integers(min_value=1, max_value=5),
        st.booleans(),
    ),
    st.tuples(st.just("forget"), st.integers(min_value=0, max_value=20)),
    st.tuples(st.sampled_from(["new_epoch", "flush", "reopen", "crash"])),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=14))
def test_disk_after_any_use_holds_what_the_model_holds(sequence: list[tuple[Any, ...]]) -> None:
    """Versions, positions, idempotency keys and the node's record, however often it started."""
    with memory_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_module, "MIN_FOLD", 1)
        pair = Pair(folder)
        try:
            for name, *arguments in sequence:
                if name == "append":
                    pair.append(*arguments[:2], with_key=arguments[2])
                elif name == "snapshot":
                    pair.snapshot(*arguments[:2], is_whole=arguments[2])
                else:
                    getattr(pair, name)(*arguments)
            pair.check()
            pair.crash()
        finally:
            with contextlib.suppress(StorageError):  # it did not open again
                pair.storage.close()
