"""Nodes that end and start again: what they hold, who counts, and what a leader may do then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from kv_app import group_commit, outbox
from kv_app.comeback import SUPERSEDED_WAIT_S
from kv_app.errors import NotAttemptedError, StorageError
from kv_app.log import HeldPositions
from kv_app.messages import Base, Change, Operation, Version, Welcome
from kv_app.meta import Member, Promise, Role
from kv_app.node import Node
from kv_app.recovery import recover
from kv_app.settings import Settings
from kv_app.storage import open_storage
from tests.kv_app.disks import append, opened
from tests.kv_app.fake_leader import (
    Channel,
    base,
    batch,
    entries,
    hello,
    make_follower,
    put,
)
from tests.kv_app.fakes import run, until
from tests.kv_app.wired import Wired

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kv_app.leader import Leader

    MakeCluster = Callable[..., Wired]


@pytest.fixture
def make_cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCluster:
    """Makes the followers of a cluster whose nodes have disks."""

    def make(followers: int, **options: Any) -> Wired:
        wired = Wired(folder, followers, **options)
        monkeypatch.setattr("kv_app.channel.connect", wired.connect)
        return wired

    return make


# --- what is read -----------------------------------------------------------------------------


def test_node_without_a_disk_recovers_nothing() -> None:
    """All is in memory, and begins empty."""
    found = recover(None, 10)
    assert (len(found.state), len(found.idempotency)) == (0, 0)
    assert found.held == HeldPositions()


def test_what_is_found_is_made_durable_before_anything_is_told_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that crashed may have left what no sync had covered."""
    with opened(folder) as storage:
        append(storage, put(1))
        order: list[str] = []
        sync, read = storage.sync, storage.entries
        monkeypatch.setattr(storage, "sync", lambda: (order.append("sync"), sync()))
        monkeypatch.setattr(storage, "entries", lambda: (order.append("read"), read())[1])
        assert recover(storage, 10).held.contiguous == 1
        assert order == ["sync", "read"]


def test_idempotency_keys_are_recovered_up_to_their_number_the_newest_ones(folder: Path) -> None:
    """Those of folded entries come before those of the log, as they were written."""
    with opened(folder) as storage:
        append(storage, *(put(seq, idempotency_key=f"i{seq}") for seq in range(1, 7)))
        storage.fold((1, 4), (1, 4), 100)
        found = recover(storage, 3).idempotency
        assert [write.idempotency_key for write in found.remembered(999)] == ["i4", "i5", "i6"]


# --- followers --------------------------------------------------------------------------------


def test_follower_that_comes_back_with_its_disk_counts_at_once(make_cluster: MakeCluster) -> None:
    """It holds all that it acknowledged, of its epoch's base; nothing is sent again."""

    async def check() -> None:
        cluster = make_cluster(1, write_quorum=1)
        cluster.start()
        await cluster.all_count()
        await cluster.put_many(1, 20)
        node = cluster.followers[0]
        before = node.follower
        await node.restart()
        assert node.follower is not before
        assert node.follower.state.digests() == before.state.digests()
        assert node.follower.held == before.held
        assert node.follower.base_epoch == 1
        node.sent = 0
        link = cluster.leader.links[0]
        await until(lambda: link.is_connected)
        assert link.counts
        assert link.is_durable
        assert node.sent == 1  # the hello
        await cluster.put("k", "later")
        await cluster.converged()
        await cluster.stop()

    run(check)


def test_follower_that_lost_its_disk_and_restarts_while_it_learns_counts_only_at_the_end(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the data, however often it starts with that part, is not what others rely on."""
    monkeypatch.setattr(outbox, "MAX_BATCH_ENTRIES", 10)

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=1)
        cluster.start()
        await cluster.all_count()
        await cluster.put_many(1, 100)
        await cluster.converged()
        node, link = cluster.followers[0], cluster.leader.links[0]
        for life in range(3):
            node.reads_left = 2  # the hello, and ten entries
            await node.restart(wiped=life == 0)
            await until(lambda: link.is_connected and node.reads_left == 0)
            await until(lambda life=life: link.held.contiguous == 10 * (life + 1))  # type: ignore[misc]
            assert link.is_learner
            assert not link.counts
            assert node.follower.base_epoch == 0
        node.reads_left = None
        await node.restart()
        await until(lambda: link.counts)
        assert node.follower.held.contiguous == 100
        await cluster.put("k", "later")
        await cluster.converged()
        await cluster.stop()

    run(check)


def test_base_that_was_meant_for_an_earlier_life_makes_no_voter(folder: Path) -> None:
    """A follower that lost its data since then has not what the base stands for."""

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = Channel(follower)
            welcome = await channel.ask(hello())
            assert welcome.incarnation == storage.meta.incarnation
            channel.say(Base(base(), "an earlier one"))
            await channel.ask(entries(put(1)))
            assert follower.base_epoch == 0
            await channel.give_base(welcome)
            await channel.give_base(welcome)  # again, after a lost answer
            assert storage.meta.base is not None
            assert storage.meta.base.epoch == 1
            await channel.leave()
            await follower.stop()

    run(check)


def test_base_of_another_epoch_ends_the_channel() -> None:
    """A leader gives out the base of the epoch that it leads."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        welcome: Welcome = await channel.ask(hello())
        assert "a base of epoch 2 in epoch 1" in await channel.refused(
            Base(base(2), welcome.incarnation)
        )
        assert follower.base_epoch == 0

    run(check)


def test_follower_keeps_its_promise_over_a_restart(folder: Path) -> None:
    """An epoch that is over stays over, whenever the follower started."""

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = Channel(follower)
            await channel.ask(hello(epoch=5))
            assert storage.meta.promise is not None
            assert storage.meta.promise.epoch == 5
            await channel.leave()
            await follower.stop()
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            late = Channel(follower)
            assert "epoch 4 is over, this node is in 5" in await late.refused(hello(epoch=4))
            await follower.stop()

    run(check)


def test_voter_is_nobody_elses_follower_though_it_holds_no_entry(folder: Path) -> None:
    """It stands for what its cluster may have acknowledged elsewhere."""

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = Channel(follower)
            await channel.give_base(await channel.ask(hello("c1")))
            await channel.leave()
            channel = Channel(follower)
            assert "another cluster" in await channel.refused(hello("c2"))
            assert storage.meta.cluster_id == "c1"
            await follower.stop()

    run(check)


# --- leaders ----------------------------------------------------------------------------------


def refusal(leader: Leader) -> NotAttemptedError:
    """Tries a write that must not be attempted."""
    with pytest.raises(NotAttemptedError) as refused:
        leader.append(Operation.PUT, "k", "v", None)
    return refused.value


def test_leader_that_ended_before_it_opened_begins_anew(make_cluster: MakeCluster) -> None:
    """It led nothing, so nothing can be lost; its cluster is the same."""

    async def check() -> None:
        cluster = make_cluster(3, write_quorum=1)
        for node in cluster.followers[1:]:
            node.is_up = False
        leader = cluster.start()
        await until(lambda: leader.links[0].is_connected)
        assert refusal(leader).details["reason"] == "forming"
        cluster_id = cluster.storage.meta.cluster_id if cluster.storage else ""
        await cluster.stop_leader()
        for node in cluster.followers:
            node.is_up = True
        leader = cluster.start()
        await until(lambda: leader.is_open)
        assert cluster.storage is not None
        assert cluster.storage.meta.cluster_id == cluster_id != ""
        assert cluster.storage.meta.base is not None
        assert cluster.storage.meta.base.epoch == leader.epoch == 1
        await cluster.stop()

    run(check)


def test_leader_that_lost_its_disk_leaves_its_followers_as_they_are(
    make_cluster: MakeCluster, folder: Path
) -> None:
    """What survives on them is all there is of what was acknowledged."""

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=1)
        cluster.start()
        await cluster.all_count()
        await cluster.put_many(1, 5)
        await cluster.converged()
        shown = [node.follower.state.values() for node in cluster.followers]
        await cluster.stop_leader()
        (folder / "leader").rename(folder / "lost")
        leader = cluster.start()
        await until(lambda: all(link.has_data for link in leader.links))
        assert refusal(leader).details["reason"] == "recovering"
        assert [node.follower.state.values() for node in cluster.followers] == shown
        await cluster.stop()

    run(check)


@pytest.mark.parametrize("urls", [("http://f1:1",), ("http://f1:1", "http://f3:1")])
def test_leader_with_other_followers_than_it_began_with_is_refused(
    urls: tuple[str, ...], make_cluster: MakeCluster, folder: Path
) -> None:
    """Who belongs to a cluster is in its record, and the settings do not silently change it."""

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=0)
        leader = cluster.start()
        await until(lambda: leader.is_open)
        await cluster.stop()
        options = {"node_id": "leader", "data_dir": folder / "leader"}
        node = Node(Settings(follower_urls=urls, **options))
        with pytest.raises(StorageError, match=r"was made with http://f1:1, http://f2:1 beside"):
            node.start()
        for same in (("http://f2:1", "http://f1:1"), ()):
            node = Node(Settings(follower_urls=same, **options))
            node.start()
            assert node.role is Role.FOLLOWER  # until it leads a new epoch
            await node.stop()

    run(check)


def test_leader_alone_goes_on_in_a_new_epoch_at_every_start(folder: Path) -> None:
    """Nobody else can hold anything: all is committed, and new positions are above the old."""

    async def check() -> None:
        last = 0
        for epoch in (1, 2, 3):
            node = Node(Settings(data_dir=folder))
            node.start()
            await until(lambda node=node: node.leader and node.leader.is_open)
            leader = node.require_leader()
            assert leader.epoch == epoch
            first = leader.append(Operation.PUT, "other", "", "first")
            await leader.wait_committed(first)
            record = leader.append(Operation.PUT, "k", f"of {epoch}", f"i{epoch}")
            await leader.wait_committed(record)
            assert first.entry.epoch == 1
            assert record.entry.seq > last
            last = record.entry.seq
            assert node.state.read("k") == Version(f"of {epoch}", epoch, last)
            base = node.replica.meta.base
            assert base is not None
            assert (base.epoch, base.config.members) == (
                epoch,
                (Member("node", "http://127.0.0.1:8000"),),
            )
            await node.stop()

    run(check)


# --- what outlives entries --------------------------------------------------------------------


def test_idempotency_keys_outlive_a_restart_a_fold_and_a_snapshot(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the data knows of every remembered write, wherever it got it from."""
    monkeypatch.setattr(group_commit, "FOLD_EVERY", 4)

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=1, log_entries=8)
        leader = cluster.start()
        await cluster.all_count()
        behind, other = cluster.followers
        await behind.end()
        changes = (Change("a", "1"), Change("b", None))
        for number in range(1, 101):
            if number % 2:
                await cluster.put(f"k{number}", idempotency_key=f"i{number}")
            else:
                record = leader.append(Operation.BATCH, "", None, f"i{number}", changes)
                await leader.wait_committed(record)
        assert other.storage is not None
        await until(lambda: other.follower.held.contiguous == 100)
        assert other.storage.meta.folded[1] > 0
        behind._data_dir = behind._new_folder()
        behind.start()  # without its data, and with more missing than the log holds
        await cluster.converged()
        for node in cluster.followers:
            await node.restart()
            writes = list(node.follower.idempotency.remembered(999))
            assert {write.idempotency_key for write in writes} == {
                f"i{number}" for number in range(1, 101)
            }
            for write in writes:
                held = leader.idempotency.find(write.idempotency_key)
                assert held is not None
                assert (held.epoch, held.seq) == (write.epoch, write.seq)
                assert held.fingerprint == write.fingerprint
        await cluster.stop()

    run(check)


@pytest.mark.parametrize("is_folded", [False, True])
def test_batch_comes_back_from_the_disk_as_a_whole(folder: Path, *, is_folded: bool) -> None:
    """All its changes at its one position, from the log and from the versions alike."""
    with opened(folder) as storage:
        append(storage, put(1, key="b"), batch(2, {"a": "1", "b": None, "c": "3"}, "once"))
        if is_folded:
            storage.fold((1, 2), (1, 2), 10)
    with opened(folder) as storage:
        found = recover(storage, 10)
        assert found.state.values() == {"a": "1", "c": "3"}
        assert found.state.read("a") == Version("1", 1, 2)
        assert found.state.read("b") == (None if is_folded else Version(None, 1, 2))
        assert found.held == HeldPositions(2)
        assert found.idempotency.find("once") is not None


# --- nodes ------------------------------------------------------------------------------------


def test_role_on_disk_wins_over_the_setting_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A follower's data is never led by mistake."""
    open_storage(folder, "n1", Role.FOLLOWER).close()

    async def check() -> None:
        node = Node(Settings(node_id="n1", role=Role.LEADER, data_dir=folder))
        with caplog.at_level(logging.WARNING, logger="kv_app"):
            node.start()
        assert node.role is Role.FOLLOWER
        assert "ROLE=leader is ignored" in caplog.text
        await node.stop()

    run(check)


def test_leader_that_lost_its_data_and_ended_as_a_learner_waits_and_leads_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would, where it alone is told to lead; another leader may reach it first."""
    begun: list[float] = []
    monkeypatch.setattr("kv_app.comeback.Comeback.begin", lambda _, after_s: begun.append(after_s))

    async def check(node_id: str, role: Role) -> None:
        settings = Settings(node_id=node_id, role=role, data_dir=folder / node_id)
        with opened(folder / node_id, role, node_id) as storage:
            promise = Promise(3, "another", "a")
            storage.save(structs.replace(storage.meta, cluster_id="c1", promise=promise))
        node = Node(settings)
        node.start()
        assert node.leader is None
        await node.stop()

    run(lambda: check("l", Role.LEADER))
    assert begun == [SUPERSEDED_WAIT_S]
    run(lambda: check("f", Role.FOLLOWER))
    assert begun == [SUPERSEDED_WAIT_S]


def test_node_says_what_it_repaired_when_it_starts(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unfinished write is gone, and whoever reads the log is told."""
    storage = open_storage(folder, "n1", Role.FOLLOWER)
    storage.notice = "cut off 7 bytes"

    async def check() -> None:
        node = Node(Settings(node_id="n1", role=Role.FOLLOWER, data_dir=folder))
        with caplog.at_level(logging.WARNING, logger="kv_app"), pytest.MonkeyPatch.context() as on:
            on.setattr("kv_app.node.open_storage", lambda *_: storage)
            node.start()
        assert "cut off 7 bytes" in caplog.text
        await node.stop()

    run(check)


def test_node_whose_disk_is_gone_when_it_stops_has_said_all_it_can(folder: Path) -> None:
    """A second stop finds nothing to close."""

    async def check() -> None:
        node = Node(Settings(node_id="n1", role=Role.LEADER, data_dir=folder))
        node.start()
        assert node.health().durable
        await node.stop()
        assert node.storage is None
        await node.stop()

    run(check)
