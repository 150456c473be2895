"""A leader with a disk: nothing commits before it is durable there, or after a failure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.errors import OutcomeUnknownError
from kv_app.messages import Operation, Version
from kv_app.meta import Role
from kv_app.storage import open_storage
from tests.kv_app.disks import Syncs, opened
from tests.kv_app.fakes import FakeNetwork, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kv_app.errors import StorageError
    from kv_app.leader import Leader
    from kv_app.log import LogRecord
    from kv_app.storage import Storage

    MakeNetwork = Callable[[int], FakeNetwork]


@pytest.fixture
def storage(folder: Path) -> Iterator[Storage]:
    """The leader's database."""
    with opened(folder, Role.LEADER, "leader") as found:
        yield found


def put(leader: Leader, key: str = "k", value: str = "v") -> LogRecord:
    """Appends a put."""
    return leader.append(Operation.PUT, key, value, None)


def wait(leader: Leader, record: LogRecord) -> asyncio.Task[None]:
    """Starts to wait for a write."""
    return asyncio.create_task(leader.wait_committed(record))


@pytest.mark.parametrize("first", ["acknowledgments", "sync"])
def test_write_is_committed_once_k_followers_hold_it_and_it_is_durable_on_the_leader(
    first: str, make_network: MakeNetwork, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither alone is enough, whichever comes first, and nothing is shown before both."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(storage, write_quorum=2)
        syncs.hold()
        record = put(leader)
        waiting = wait(leader, record)
        before = syncs.ended
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        if first == "acknowledgments":
            network[2].client.acknowledge(1)
            await asyncio.sleep(0.005)
            assert record.ack_count == 2
        else:
            syncs.release()
            await until(lambda: syncs.ended > before)
            await asyncio.sleep(0.005)
        assert not record.committed
        assert not waiting.done()
        assert leader.state.read("k") is None
        assert leader.stable_seq == 0
        if first == "acknowledgments":
            syncs.release()
        else:
            network[2].client.acknowledge(1)
        await waiting
        assert leader.state.read("k") == Version("v", 1, 1)
        assert leader.stable_seq == 1
        await leader.stop()

    run(check)


def test_write_of_a_leader_alone_waits_for_its_disk(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With k=0 its own sync is all there is to wait for."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        leader = FakeNetwork(0).make_leader(storage)
        syncs.hold()
        waiting = wait(leader, put(leader))
        await asyncio.sleep(0.005)
        assert not waiting.done()
        assert leader.state.read("k") is None
        syncs.release()
        await waiting
        assert leader.state.read("k") == Version("v", 1, 1)
        await leader.stop()

    run(check)


def test_entries_leave_before_they_are_synced_so_that_all_disks_work_at_once(
    make_network: MakeNetwork, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write takes as long as the slowest disk, not as all of them."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(storage, write_quorum=1)
        syncs.hold()
        put(leader)
        await network[1].client.has_sent(1)
        assert leader.stable_seq == 0
        syncs.release()
        await leader.stop()

    run(check)


def test_writes_while_a_sync_runs_share_the_next_one(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk is asked rarely and for much."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        leader = FakeNetwork(0).make_leader(storage)
        syncs.hold()
        began = syncs.began
        waiting = [wait(leader, put(leader))]
        await until(lambda: syncs.began == began + 1)
        for _ in range(20):
            waiting.append(wait(leader, put(leader)))
            await asyncio.sleep(0)
        syncs.release()
        await asyncio.gather(*waiting)
        assert syncs.began == began + 2
        await leader.stop()

    run(check)


def test_epoch_is_durable_before_its_first_entry(
    make_network: MakeNetwork, storage: Storage
) -> None:
    """A leader that crashes at once afterwards knows that it has led."""

    async def check() -> None:
        network = make_network(2)
        leader = network.make_leader(storage, write_quorum=1)
        assert storage.meta.base is None
        assert storage.meta.cluster_id
        leader.start()
        await until(lambda: leader.is_open)
        base = storage.meta.base
        assert base is not None
        assert base.config is not None
        assert (base.epoch, base.leader_id) == (1, "leader")
        assert (base.config.write_quorum, base.config.floor) == (1, 1)
        assert [member.url for member in base.config.members][1:] == list(network.followers)
        assert storage.meta.promise is not None
        assert storage.meta.promise.epoch == 1
        await leader.stop()

    run(check)


@pytest.mark.parametrize("k", [0, 1])
def test_disk_that_fails_ends_a_leader_and_commits_nothing_more(
    k: int, make_network: MakeNetwork, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed before stays so; for what waited the outcome is unknown."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        failures: list[StorageError] = []
        network = make_network(2)
        leader = await network.start_leader(storage, failures.append, write_quorum=k)
        for number in (1, 2):
            network[number].acknowledges = True
        await leader.wait_committed(put(leader, "before"))
        syncs.failing = "no space left"
        record = put(leader, "after")
        waiting = wait(leader, record)
        await until(lambda: failures)
        later = wait(leader, put(leader, "later"))
        await until(lambda: len(failures) > 1)
        await until(lambda: record.ack_count == 2)
        assert not record.committed
        assert leader.state.values() == {"before": "v"}
        assert [str(error) for error in failures] == ["no space left"] * len(failures)
        await leader.stop()
        for task in (waiting, later):
            with pytest.raises(OutcomeUnknownError):
                await task

    run(check)


def test_disk_that_fails_when_nobody_ends_the_process_is_an_error_that_is_seen(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that was not told whom to tell does not go on in silence."""

    async def check() -> None:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        leader = FakeNetwork(0).make_leader(storage)
        syncs = Syncs(storage, monkeypatch)
        syncs.failing = "no space left"
        record = put(leader)
        await until(lambda: seen)
        assert "no space left" in str(seen[0]["exception"])
        assert not record.committed

    run(check)


def test_stop_makes_durable_all_that_was_appended(make_network: MakeNetwork, folder: Path) -> None:
    """Also what no follower had acknowledged: its client was told that it may commit later."""

    async def check() -> None:
        storage = open_storage(folder, "leader", Role.LEADER)
        network = make_network(1)
        leader = await network.start_leader(storage, write_quorum=1)
        put(leader, "a")
        await network[1].client.has_sent(1)
        put(leader, "b")
        await leader.stop()
        storage.close()

    run(check)
    with opened(folder, Role.LEADER, "leader") as storage:
        assert [entry.key for entry in storage.entries()] == ["a", "b"]


def test_leaders_entries_are_folded_up_to_what_is_stable(
    make_network: MakeNetwork, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may still fail to commit stays in the log, whatever comes after it."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 4)
    monkeypatch.setattr("kv_app.storage.MIN_FOLD", 1)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(storage, write_quorum=1)
        for seq in range(1, 31):
            put(leader, f"k{seq}")
            await network[1].client.has_sent(seq)
            if seq != 20:
                network[1].client.acknowledge(seq)
        assert 1 <= storage.meta.folded[1] <= leader.stable_seq == 19
        await leader.stop()
        assert [entry.seq for entry in storage.entries()][-11:] == list(range(20, 31))

    run(check)


def test_deletions_are_forgotten_once_neither_log_nor_disk_has_what_they_delete(
    make_network: MakeNetwork, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take memory for ever; and too early, a restart would bring the keys back."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 4)
    monkeypatch.setattr("kv_app.storage.MIN_FOLD", 1)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(storage, write_quorum=1, log_entries=8)
        for seq in range(1, 31):
            leader.append(Operation.DELETE, f"k{seq}", None, None)
            await network[1].client.has_sent(seq)
            network[1].client.acknowledge(seq)
            await until(lambda seq=seq: leader.stable_seq == seq)
            gone = min(leader.log.first_seq - 1, storage.meta.folded[1])
            # Looked at when the entry was appended: at most a fold and an entry are newer.
            assert seq - gone <= leader.state.tombstones <= seq - gone + 8
        assert leader.state.tombstones < 20
        await leader.stop()

    run(check)
