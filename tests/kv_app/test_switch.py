"""A voter's way to the base of a new epoch: in one step, whenever its machine loses power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kv_app.errors import StorageError
from kv_app.messages import Entry, Operation, Version
from kv_app.meta import BaseRecord, Meta, Promise, Role
from kv_app.settings import Settings
from tests.kv_app.fake_leader import base, batch, put
from tests.kv_app.fakes import run
from tests.kv_app.roles import make_replica
from tests.simulation.disk import Batch, Contents, Database, Disk, mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kv_app.replica import Replica
    from kv_app.staged import Staged
    from kv_app.storage import Storage

# What a node is after a start: the epoch of its base, its log, and the values that it shows.
Found = tuple[int, list[tuple[int, int]], dict[str, str]]
OLD: Found = (1, [(1, 1), (1, 2), (1, 3)], {"k1": "old", "k2": "old", "k3": "old"})
STEPS = 30


class PowerCutError(Exception):
    """The machine has lost power."""


class FailingDatabase(Database):
    """A process's use of a disk that ends before one of its steps."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.steps_left: int | None = None

    def _step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise PowerCutError

    def write(self, batch: Batch, options: object) -> None:
        """Writes a batch, or ends before."""
        self._step()
        super().write(batch, options)

    def flush_wal(self, *, sync: bool) -> None:
        """Makes all durable, or ends before."""
        self._step()
        super().flush_wal(sync=sync)


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts disks in the place of the engine that lose what was not synced."""
    monkeypatch.setattr("kv_app.storage.WriteBatch", Batch)
    monkeypatch.setattr("tests.simulation.disk.Database", FailingDatabase)


def mounted(disk: Disk) -> Storage:
    """Returns a node's database."""
    return mount(disk, Meta("f1", Role.FOLLOWER, "life", "c1"))


def replica_on(storage: Storage | None) -> Replica:
    """Returns what a node holds that starts with this."""
    return make_replica(Settings(node_id="f1"), storage)


def voter_of_epoch_1(disk: Disk) -> Replica:
    """Returns one whose log holds three entries, of which the first is settled."""
    replica = replica_on(mounted(disk))
    replica.save(base=base(), promise=Promise(1, "leader", "first"))
    some = [put(seq, "old", idempotency_key=f"i{seq}") for seq in (1, 2, 3)]
    replica.make_durable(replica.take(some), lambda: None)
    assert replica.commits is not None
    replica.commits.commit()
    replica.note_stable(1)
    return replica


def entries_of_epoch_2(replica: Replica) -> tuple[Staged, Found]:
    """Stages a base that keeps what is settled; returns it, and what the node is with it."""
    staged = replica.stage(replica.settled_seq)
    staged.take([put(2, "new", epoch=2)])
    return staged, (2, [(1, 1), (2, 2)], {"k1": "old", "k2": "new"})


def whole_of_epoch_2(replica: Replica) -> tuple[Staged, Found]:
    """Stages a base that replaces everything."""
    staged = replica.stage(0)
    staged.begin_snapshot()
    staged.install({"k9": Version("new", 2, 1)})
    staged.finish_snapshot(1)
    staged.take([put(2, "new", epoch=2)])
    return staged, (2, [(2, 2)], {"k9": "new", "k2": "new"})


def found_on(contents: dict[bytes, bytes]) -> Found:
    """Returns what a node is that starts with a disk's contents."""
    disk = Disk()
    disk.durable.values = dict(contents)
    replica = replica_on(mounted(disk))
    log = [(entry.epoch, entry.seq) for entry in replica.log.above(0)]
    return replica.base_epoch, log, replica.state.values()


def leftovers(disk: Disk) -> Iterator[dict[bytes, bytes]]:
    """Yields all that a power cut may leave: what was synced, and the first of what was not."""
    contents = Contents()
    contents.values = dict(disk.durable.values)
    yield dict(contents.values)
    for changes in disk.unsynced:
        contents.apply(changes)
        yield dict(contents.values)


@pytest.mark.parametrize("stage", [entries_of_epoch_2, whole_of_epoch_2])
def test_power_cut_at_any_step_leaves_the_old_log_or_the_new_base_whole(stage: Any) -> None:
    """Entries under a base that they are not of would be merged as what they are not."""

    async def check() -> None:
        seen: list[Found] = []
        for steps in range(STEPS):
            disk = Disk()
            replica = voter_of_epoch_1(disk)
            assert found_on(disk.durable.values) == OLD
            staged, new = stage(replica)
            assert replica.storage is not None
            database: Any = replica.storage._database
            database.steps_left = steps
            try:
                replica.switch(staged, base(2, 2), Promise(2, "leader", "second"), 1)
            except StorageError:  # as which the power cut is seen
                assert database.steps_left < 0
            left = [found_on(contents) for contents in leftovers(disk)]
            seen += left
            assert all(found in (OLD, new) for found in left)
            if database.steps_left >= 0:  # it has come to its end, and may be told
                assert left[0] == new
                break
        else:
            pytest.fail("it has too many steps")
        assert OLD in seen

    run(check)


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("stage", [entries_of_epoch_2, whole_of_epoch_2])
def test_idempotency_keys_of_what_a_base_began_without_are_forgotten(
    stage: Any, *, is_durable: bool
) -> None:
    """Else a retry would be told the position of a write that is nowhere any more."""

    async def check() -> None:
        replica = voter_of_epoch_1(Disk())
        if not is_durable:
            replica.storage = replica.commits = None
        staged, new = stage(replica)
        replica.switch(staged, base(2, 2), Promise(2, "leader", "second"), 1)
        assert [(entry.epoch, entry.seq) for entry in replica.log.above(0)] == new[1]
        assert replica.state.values() == new[2]
        for dropped in ("i2", "i3"):
            assert replica.idempotency.find(dropped) is None
        kept = replica.idempotency.find("i1")
        assert (kept is not None) is ((1, 1) in new[1])

    run(check)


# --- what is dropped ----------------------------------------------------------------------------


def quarantined_by(
    monkeypatch: pytest.MonkeyPatch, replica: Replica, staged: Staged, record: BaseRecord
) -> list[tuple[int, int, str, str | None]]:
    """Switches; returns position, key and value of what is kept aside."""
    kept: list[Entry] = []
    monkeypatch.setattr("kv_app.replica.quarantine", lambda *args: kept.extend(args[-1]))
    replica.switch(staged, record, Promise(record.epoch, "leader", "second"), 0)
    return [(entry.epoch, entry.seq, entry.key, entry.value) for entry in kept]


def in_memory(settled: int, *entries: Entry, **settings: int) -> Replica:
    """A voter of epoch 1 without a disk."""
    replica = make_replica(Settings(node_id="f1", **settings), None)
    replica.save(base=base(), promise=Promise(1, "leader", "first"))
    replica.take(entries)
    replica.note_stable(settled)
    return replica


def snapshot(replica: Replica, position: int, **versions: Version) -> Staged:
    """Stages a base that comes as a snapshot."""
    staged = replica.stage(0)
    staged.begin_snapshot()
    staged.install(versions)
    staged.finish_snapshot(position)
    return staged


def test_what_a_snapshot_shows_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should bring back over newer values what was never lost."""
    delete = Entry(1, 4, Operation.DELETE, "k4", None, None)
    batches = batch(7, {"k3": "new", "k9": None}), batch(8, {"k3": "newer", "k2": "same"})
    some = put(1), put(2, "same"), put(3, "old"), delete, put(5, "lost"), put(6), *batches
    replica = in_memory(1, *some)
    staged = snapshot(
        replica, 8, k1=Version("v1", 1, 1), k2=Version("same", 1, 2), k3=Version("new", 1, 7)
    )
    staged.install({"k5": Version("older", 1, 0)})
    kept = quarantined_by(monkeypatch, replica, staged, base(2, 8))
    assert kept == [(1, 5, "k5", "lost"), (1, 6, "k6", "v"), (1, 8, "", None)]


def test_what_lies_beyond_a_base_is_dropped_though_a_snapshot_went_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new epoch has other entries there."""
    replica = in_memory(1, put(1), put(2, "tail"))
    staged = snapshot(replica, 3, k1=Version("v1", 1, 1), k2=Version("new", 2, 3))
    assert quarantined_by(monkeypatch, replica, staged, base(2, 1)) == [(1, 2, "k2", "tail")]


@pytest.mark.parametrize("forced", [0, 2])
def test_after_force_what_was_settled_is_kept_aside_too(
    monkeypatch: pytest.MonkeyPatch, forced: int
) -> None:
    """This node may be the only one that has it; without force all later epochs do."""
    entries = [put(seq) for seq in range(1, 7)]
    replica = in_memory(6, *entries, log_entries=2)
    assert [entry.seq for entry in replica.log.above(0)] == [5, 6]
    staged = snapshot(replica, 3, k1=Version("v1", 1, 1), k9=Version("v9", 2, 3))
    record = msgspec.structs.replace(base(2, 2), forced=forced)
    kept = quarantined_by(monkeypatch, replica, staged, record)
    lost = [(1, seq, f"k{seq}", "v") for seq in range(2, 7)]
    assert kept == (lost if forced else [])
