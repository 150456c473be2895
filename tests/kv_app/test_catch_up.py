"""How a follower comes to the end of the log: part by part, by the state, by what has changed."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from kv_app import catch_up, log
from kv_app.catch_up import CatchUp
from kv_app.errors import NotAttemptedError
from kv_app.links import status_of
from kv_app.log import HeldPositions, Log
from kv_app.messages import (
    Ack,
    Base,
    CaughtUp,
    Entries,
    Operation,
    RememberedWrite,
    Replace,
    SeqRange,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
    Welcome,
)
from kv_app.state import State
from tests.kv_app.disks import opened
from tests.kv_app.fake_leader import (
    Channel,
    base,
    entries,
    following,
    hello,
    make_follower,
    put,
    snapshot_frames,
)
from tests.kv_app.fakes import FakeClient, FakeNetwork, run, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kv_app.follower import Follower
    from kv_app.leader import Leader

    MakeNetwork = Callable[[int], FakeNetwork]

TURNS = 20


def put_all(leader: Leader, first: int, last: int) -> None:
    """Appends puts at these positions, each of a key of its own."""
    for seq in range(first, last + 1):
        leader.append(Operation.PUT, f"k{seq}", f"v{seq}", f"i{seq}")


def state_of(**versions: Version) -> State:
    """Returns a state that holds these."""
    state = State()
    for key, version in versions.items():
        state.install(key, version)
    return state


async def some_turns() -> None:
    """Lets everything go on that does not wait."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def begins(client: FakeClient) -> list[tuple[int, int]]:
    """Returns the snapshots that were begun: from where, up to where."""
    found = [frame for frame in client.frames if isinstance(frame, SnapshotBegin)]
    return [(one.since, one.stable_seq) for one in found]


def versions_since_the_last_begin(client: FakeClient) -> dict[str, Any]:
    """Returns all keys of the newest snapshot, each with its value."""
    sent: dict[str, Any] = {}
    for frame in client.frames:
        if isinstance(frame, SnapshotBegin):
            sent.clear()
        elif isinstance(frame, SnapshotChunk):
            versions = msgspec.msgpack.decode(frame.versions, type=dict[str, Version])
            sent.update((key, version.value) for key, version in versions.items())
    return sent


async def wiped(leader: Leader, network: FakeNetwork) -> FakeClient:
    """Takes all from the follower; returns its next channel, on which the state comes slowly."""
    network[1].acknowledges = True
    network[1].lose_all()
    before = network[1].client
    await until(lambda: network[1].client is not before and leader.links[0].is_connected)
    network[1].client.is_congested = True
    return network[1].client


async def read_on(client: FakeClient) -> None:
    """Lets a slow follower read all that there is for it."""
    client.is_congested = False
    client.listener.on_writable()
    await some_turns()


# --- the leader -------------------------------------------------------------------------------


@pytest.mark.parametrize(("contiguous", "gets_state"), [(3, True), (4, False), (5, False)])
def test_state_is_for_who_lacks_what_the_log_has_dropped(
    contiguous: int, *, gets_state: bool
) -> None:
    """Whose next entry is the first of the log is sent the log, and nothing else."""
    source = SimpleNamespace(log=Log(10, 1 << 20, last_seq=4))
    nothing = cast("Any", None)
    held = HeldPositions(contiguous)
    catching_up = CatchUp(cast("Any", source), held, nothing, nothing, nothing, nothing, "f1")
    assert catching_up.gets_state is gets_state


def test_follower_that_gets_the_state_is_sent_no_entries_until_it_has_it(
    make_network: MakeNetwork,
) -> None:
    """What is written meanwhile is kept for it by the log, not by its memory."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        await until(lambda: begins(client))
        put_all(leader, 10, 12)
        await some_turns()
        assert leader.links[0].waiting == 0
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        kinds = [type(frame) for frame in client.frames]
        assert client.seqs == [10, 11, 12]
        assert kinds.index(Entries) > kinds.index(SnapshotEnd)
        assert begins(client) == [(0, 9)]
        put_all(leader, 13, 13)
        await client.has_sent(13)
        await leader.stop()

    run(check)


def test_follower_that_the_log_has_left_behind_gets_what_has_changed_and_no_more(
    make_network: MakeNetwork,
) -> None:
    """However short the log is, each state that it is sent is smaller than the one before."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 50)
        client = await wiped(leader, network)
        await until(lambda: begins(client))
        put_all(leader, 51, 60)
        leader.append(Operation.DELETE, "k7", None, None)
        put_all(leader, 62, 67)  # the log begins above the deletion
        await some_turns()
        assert leader.log.first_seq > 61
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        assert begins(client) == [(0, 50), (50, 67)]
        changed = {f"k{seq}": f"v{seq}" for seq in range(51, 68) if seq != 61}
        assert versions_since_the_last_begin(client) == {**changed, "k7": None}
        keys = [frame.writes for frame in client.frames if isinstance(frame, SnapshotKeys)]
        assert {write.seq for write in keys[-1]} == {*range(51, 68)} - {61}
        await leader.stop()

    run(check)


def test_deletions_are_forgotten_again_once_everybody_has_caught_up(
    make_network: MakeNetwork,
) -> None:
    """They are kept for who is to be told of them, and for no longer."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        await until(lambda: begins(client))
        leader.append(Operation.DELETE, "k1", None, None)
        put_all(leader, 11, 20)
        await some_turns()
        assert leader.state.tombstones == 1
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        put_all(leader, 21, 21)
        await client.has_sent(21)
        assert leader.state.tombstones == 0
        await leader.stop()

    run(check)


def test_follower_that_cannot_be_told_of_all_deletions_gets_the_whole_state_again(
    make_network: MakeNetwork,
) -> None:
    """More of them than the log has entries are not kept for it; it is never left with a key."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        await until(lambda: begins(client))
        for seq in range(1, 8):
            leader.append(Operation.DELETE, f"k{seq}", None, None)
        put_all(leader, 17, 24)
        await some_turns()
        assert leader.state.forgotten_seq > 9
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        assert begins(client) == [(0, 9), (0, 24)]
        await leader.stop()

    run(check)


def test_deletion_that_is_forgotten_while_what_changed_is_sent_makes_it_begin_anew(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not all is never ended, so that nobody takes it for all."""
    monkeypatch.setattr(catch_up, "BYTES_PER_STEP", 1)  # a message a turn

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        await until(lambda: begins(client))
        put_all(leader, 10, 20)
        await some_turns()
        for _ in range(600):
            if len(begins(client)) == 2:
                break
            client.listener.on_writable()
            await asyncio.sleep(0)
        assert begins(client) == [(0, 9), (9, 20)]
        for seq in range(1, 8):
            leader.append(Operation.DELETE, f"k{seq}", None, None)
        put_all(leader, 28, 36)
        await some_turns()
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        assert begins(client) == [(0, 9), (9, 20), (0, 36)]
        assert sum(isinstance(frame, SnapshotEnd) for frame in client.frames) == 2
        await leader.stop()

    run(check)


def test_what_has_changed_takes_few_turns_of_the_loop_if_it_is_little(
    make_network: MakeNetwork,
) -> None:
    """A turn takes as long as the requests in it: of hundreds, a short log would see no end."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        await read_on(client)
        await until(lambda: leader.links[0].counts)
        assert begins(client) == [(0, 9)]
        assert leader.links[0].parts <= 5
        await leader.stop()

    run(check)


def test_log_that_is_too_short_for_a_follower_to_catch_up_is_told_of_once(
    make_network: MakeNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the setting that helps; however often it goes on, there is one."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        for rounds in range(1, 7):
            await until(lambda rounds=rounds: len(begins(client)) == rounds)  # type: ignore[misc]
            last = leader.log.last_seq
            put_all(leader, last + 1, last + 10)
            while len(begins(client)) == rounds:
                client.listener.on_writable()
                await asyncio.sleep(0)
        told = [one for one in caplog.records if "raise LOG_ENTRIES" in one.getMessage()]
        assert [one.levelname for one in told] == ["WARNING"]
        rounds_told = [one for one in caplog.records if "what has changed from" in one.getMessage()]
        assert len(rounds_told) == 1
        await leader.stop()

    with caplog.at_level(logging.INFO):
        run(check)


def test_voter_that_gets_the_state_does_not_count_until_it_has_it(
    make_network: MakeNetwork,
) -> None:
    """It acknowledges nothing meanwhile: a write that needed it would wait in vain."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=4)
        put_all(leader, 1, 9)
        await network[1].client.has_sent(9)
        network[1].keep(2)
        network[1].client.close(1000, "cut")
        link = leader.links[0]
        await until(lambda: not link.is_connected)
        network[1].acknowledges = True
        before = network[1].client
        await until(lambda: network[1].client is not before and link.is_connected)
        client = network[1].client
        client.is_congested = True
        await some_turns()
        assert not link.is_learner
        assert not link.counts
        assert status_of(link, 1).learner
        leader.quorum_changes.begin(1)
        with pytest.raises(NotAttemptedError, match="0 of 1 count now"):
            leader.append(Operation.PUT, "k", "v", None)
        await read_on(client)
        await until(lambda: link.counts)
        assert not status_of(link, 1).learner
        await until(lambda: leader.stable_seq == leader.log.last_seq)
        await leader.stop()

    run(check)


def test_long_log_is_read_in_steps_and_others_come_between_them(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand entries at once would hold up all requests."""
    monkeypatch.setattr(catch_up, "RECORDS_PER_STEP", 2)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0)
        put_all(leader, 1, 9)
        client = await wiped(leader, network)
        client.is_congested = False
        seen: list[int] = []
        while len(client.seqs) < 9:
            seen.append(len(client.seqs))
            await asyncio.sleep(0)
        assert client.seqs == list(range(1, 10))
        assert {2, 4, 6, 8} <= set(seen)
        put_all(leader, 10, 11)
        await client.has_sent(11)
        assert client.seqs == list(range(1, 12))
        await leader.stop()

    run(check)


def test_voter_that_comes_back_is_credited_only_what_is_not_committed(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed entries need no further acknowledgment, and may be a hundred thousand."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 9)
        await network[2].client.has_sent(9)
        network[2].client.acknowledge(1, 5)
        credited: list[SeqRange] = []
        monkeypatch.setattr(
            leader, "on_acknowledged", lambda _, ranges: credited.extend(ranges), raising=False
        )
        network[1].keep(7, [SeqRange(9, 9)])
        network[1].client.close(1000, "cut")
        await until(lambda: not leader.links[0].is_connected)
        await until(lambda: leader.links[0].counts)
        assert credited == [SeqRange(6, 7), SeqRange(9, 9)]
        await leader.stop()

    run(check)


def test_idempotency_keys_are_made_ready_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand at once would hold up all requests; and the index may change meanwhile."""
    made: list[int] = []

    def make(key: str, fingerprint: bytes, epoch: int, seq: int) -> RememberedWrite:
        made.append(seq)
        return RememberedWrite(key, fingerprint, epoch, seq)

    monkeypatch.setattr(log, "RememberedWrite", make)
    index = log.IdempotencyIndex(10)
    for seq in range(1, 9):
        index.remember(put(seq, key=f"k{seq}", idempotency_key=f"i{seq}"))
    told = index.remembered(7, since=2)
    assert made == []
    assert next(told).seq == 3
    index.remember(put(9, idempotency_key="i9"))
    assert [write.seq for write in told] == [4, 5, 6, 7]
    assert made == [3, 4, 5, 6, 7]


# --- the follower -----------------------------------------------------------------------------


async def voter_of_an_older_epoch(follower: Follower) -> Channel:
    """Returns a channel on which an older epoch's contents are to be replaced."""
    channel = await following(follower)
    await channel.ask(entries(put(1), stable_seq=1))
    await channel.give_base(follower.welcome())
    await channel.leave()
    second = Channel(follower)
    assert isinstance(await second.ask(hello(epoch=2)), Welcome)
    second.say(Replace(0))
    return second


@pytest.mark.parametrize("is_staged", [False, True])
def test_follower_takes_no_entries_while_a_snapshot_comes_in(*, is_staged: bool) -> None:
    """Whatever its leader sends beside: none is kept, and none is acknowledged."""

    async def check() -> None:
        follower = make_follower(log_entries=10)
        if is_staged:
            channel = await voter_of_an_older_epoch(follower)
        else:
            channel = await following(follower)
        epoch = follower.epoch
        first, *rest = snapshot_frames(state_of(a=Version("v", 1, 90)), 100)
        channel.say_bytes(first)
        for seq in range(101, 1101):
            channel.say(entries(put(seq, epoch=epoch), stable_seq=seq))
        for frame in rest:
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(100)
        assert len(follower.replica.log) <= 1
        if is_staged:
            staged = follower._staged
            assert staged is not None
            assert (staged.entries, staged.held.max_seq) == ({}, 100)
        else:
            assert follower.held.max_seq == 100
        assert await channel.ask(entries(put(101, epoch=epoch))) == Ack([SeqRange(101, 101)])
        await channel.leave()

    run(check)


@pytest.mark.parametrize("is_staged", [False, True])
@pytest.mark.parametrize("is_durable", [False, True])
def test_follower_takes_what_has_changed_beside_what_it_holds(
    folder: Path, *, is_staged: bool, is_durable: bool
) -> None:
    """What is not in it stays, what was deleted goes; the disk says the same after a restart."""

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage if is_durable else None)
            if is_staged:
                channel = await voter_of_an_older_epoch(follower)
            else:
                channel = await following(follower)
            epoch = follower.epoch
            before = state_of(a=Version("1", 1, 1), b=Version("2", 1, 2), c=Version("3", 1, 3))
            after = state_of(a=Version("1", 1, 1), b=Version(None, 1, 11), d=Version("4", 1, 12))
            writes = [RememberedWrite("i", b"f", 1, 11)]
            for frame in snapshot_frames(before, 10):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(10)
            for frame in snapshot_frames(after, 20, writes, since=10):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(20)
            await channel.ask(entries(put(21, "5", key="e", epoch=epoch), stable_seq=21))
            if is_staged:
                channel.say(Base(base(2, 20), follower.replica.meta.incarnation))
                await channel.heard()
            expected = {"a": "1", "c": "3", "d": "4", "e": "5"}
            assert follower.state.values() == expected
            assert follower.held.contiguous == 21
            assert follower.idempotency.find("i") is not None
            await channel.leave()
            await follower.stop()
        if is_durable:
            with opened(folder, node_id="f1") as storage:
                again = make_follower(storage)
                assert again.state.values() == expected
                assert again.held.contiguous == 21
                assert again.idempotency.find("i") is not None

    run(check)


@pytest.mark.parametrize(("known", "since", "position"), [(0, 5, 9), (9, 5, 12), (9, 9, 8)])
def test_snapshot_that_builds_upon_what_did_not_come_is_refused(
    known: int, since: int, position: int
) -> None:
    """A follower would believe that it holds what it never got."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        if known:
            for frame in snapshot_frames(state_of(), known):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(known)
        reason = await channel.refused(SnapshotBegin(position, since))
        assert f"what changed from {since} to {position}, after one of {known}" in reason

    run(check)


def test_snapshot_cannot_build_upon_one_that_was_replaced_since() -> None:
    """``Replace`` begins with nothing."""

    async def check() -> None:
        follower = make_follower()
        channel = await voter_of_an_older_epoch(follower)
        for frame in snapshot_frames(state_of(), 9):
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(9)
        channel.say(Replace(0))
        assert "after one of 0" in await channel.refused(SnapshotBegin(12, 9))

    run(check)


def test_follower_lets_others_go_first_between_two_messages_of_many_entries() -> None:
    """What was read from the socket at once is not taken in one turn of the loop."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        many = 200
        for first in (1, 1 + many, 1 + 2 * many):
            channel.say(entries(*(put(seq) for seq in range(first, first + many))))
        seen = set()
        while follower.held.contiguous < 3 * many:
            seen.add(follower.held.contiguous)
            await asyncio.sleep(0)
        assert {many, 2 * many} <= seen
        await channel.leave()

    run(check)
