"""One link: delays, acknowledgments, learners, catch-up, and broken protocols."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kv_app import catch_up, channel
from kv_app.log import HeldPositions
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_SILENT,
    CLOSE_TOO_SLOW,
    PROTOCOL_VERSION,
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Confirmed,
    Heartbeat,
    Hello,
    Operation,
    Refusal,
    SeqRange,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    Version,
    Welcome,
)
from kv_app.meta import BaseRecord, Config
from kv_app.state import BUCKETS
from tests.kv_app.fakes import FakeNetwork, run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.leader import Leader

    MakeNetwork = Callable[[int], FakeNetwork]


def put_all(leader: Leader, first: int, last: int) -> None:
    """Appends puts at these positions, each of a key of its own."""
    for seq in range(first, last + 1):
        record = leader.append(Operation.PUT, f"k{seq}", f"v{seq}", None)
        assert record.entry.seq == seq


def versions_of(chunk: SnapshotChunk) -> list[tuple[str, Version]]:
    """Returns the keys of a part of a snapshot, with their versions."""
    return list(msgspec.msgpack.decode(chunk.versions, type=dict[str, Version]).items())


# --- what a follower of another epoch holds ----------------------------------------------------


@pytest.mark.parametrize(
    ("welcome", "base", "kept"),
    [
        ({"base_epoch": 0, "settled": 5}, {"position": 9}, 0),  # it never held a base
        ({"base_epoch": 1, "settled": 5}, {"position": 9}, 5),
        ({"base_epoch": 1, "settled": 12}, {"position": 9}, 9),
        ({"base_epoch": 1, "settled": -1}, {"position": 9}, 0),
        ({"base_epoch": 1, "settled": 5}, {"position": 9, "forced": 2}, 0),  # may lack it
        ({"base_epoch": 2, "settled": 5}, {"position": 9, "forced": 2}, 5),  # has it in its base
        ({"base_epoch": 2, "settled": 5}, {"position": 9, "forced": 1}, 5),
    ],
)
def test_follower_keeps_what_is_in_every_later_base(
    welcome: dict[str, int], base: dict[str, int], kept: int
) -> None:
    """All that it knew to be committed, unless an epoch after its own began by force."""
    told = Welcome(
        **{
            "node_id": "f1",
            "start_id": "s",
            "cluster_id": "c",
            "epoch": 2,
            "contiguous": 20,
            "above": [],
            "incarnation": "life",
            "is_durable": True,
            **welcome,  # type: ignore[arg-type]
        }
    )
    config = Config((), 0, 0, 0)
    assert channel.kept_of(told, BaseRecord(3, "leader", "life", config, **base)) == kept


# --- hello ------------------------------------------------------------------------------------


def test_link_says_hello_with_the_token_and_the_position(make_network: MakeNetwork) -> None:
    """The follower is told who leads what, from where; the token goes in a header."""

    async def check() -> None:
        network = make_network(1)
        network[1].is_reachable = False
        leader = network.make_leader(
            write_quorum=0, cluster_token="t", advertise_url="http://me:1", follower_urls=()
        )
        put_all(leader, 1, 2)
        leader = await network.start_leader(
            write_quorum=0, cluster_token="t", advertise_url="http://me:1"
        )
        network[1].is_reachable = True
        await until(lambda: leader.links[0].is_connected)
        assert network[1].headers == [("Authorization", "Bearer t")]
        hello = network[1].client.frames[0]
        assert hello == Hello(
            PROTOCOL_VERSION,
            hello.cluster_id,
            1,
            "leader",
            "http://me:1",
            0,
            "first",
            is_formed=False,
        )
        assert len(hello.cluster_id) == 16
        await leader.stop()

    run(check)


def test_link_without_a_token_sends_none(make_network: MakeNetwork) -> None:
    """An open cluster has no header to leak."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader()
        assert network[1].headers == []
        await leader.stop()

    run(check)


# --- what breaks the protocol -----------------------------------------------------------------


async def check_broken(
    make_network: MakeNetwork, say: Any, code: int, part: str, *, silent: bool = False
) -> None:
    """Holds a link to closing on what a follower says, counting nothing, and trying again."""
    network = make_network(1)
    network[1].is_silent = silent
    leader = network.make_leader(write_quorum=0 if silent else 1)
    leader.start()
    await until(lambda: network[1].clients and network[1].client.frames)
    if not silent:
        await until(lambda: leader.links[0].counts)
        put_all(leader, 1, 3)
        await network[1].client.has_sent(3)
    client = network[1].client
    if isinstance(say, bytes):
        client.say_bytes(say)
    else:
        client.say(say)
    assert client.close_code == code
    await until(lambda: part in leader.links[0].detail)
    assert leader.links[0].detail.isprintable()
    assert len(leader.links[0].detail) < 700
    assert leader.links[0].held.max_seq == 0
    assert leader.stable_seq == 0
    network[1].is_silent = False
    await until(lambda: leader.links[0].is_connected and network[1].client is not client)
    await leader.stop()


def welcome(cluster_id: str = "", contiguous: int = 0, *above: SeqRange) -> Welcome:
    """Returns the welcome of a follower that holds some entries, and no base."""
    return Welcome(
        "f1", "s", cluster_id, 1, contiguous, list(above), "life 1", 0, is_durable=False, settled=0
    )


def replaced(**fields: Any) -> Welcome:
    """Returns the welcome of an empty follower with some fields changed."""
    return msgspec.structs.replace(welcome(), **fields)


@pytest.mark.parametrize(
    ("say", "part"),
    [
        (Ack([SeqRange(1, 4)]), "positions 1 to 4 in ranges"),
        (Ack([SeqRange(4, 4)]), "positions 4 to 4 in ranges"),
        (Ack([SeqRange(0, 1)]), "Expected `int` >= 1"),
        (Ack([SeqRange(2, 1)]), "positions 2 to 1 in ranges"),
        (Ack([SeqRange(1, 2**62)]), "positions 1 to"),
        (CaughtUp(4), "positions 1 to 4 in ranges"),
        (Ack([SeqRange(1, 2), SeqRange(2, 3)]), "positions 2 to 3 in ranges"),
        (Ack([SeqRange(3, 3), SeqRange(1, 1)]), "positions 1 to 1 in ranges"),
        (Ack([SeqRange(1, 3)] * 20_000), "positions 1 to 3 in ranges"),
        (Confirmed(1 << 61), f"confirms round {1 << 61} of"),
        (welcome(), "a second welcome"),
        (BaseHeld(2), "holds a base of epoch 2 unasked"),
        (b"", "broke the protocol"),
        (b"\xc1", "broke the protocol"),
        (b"\x92\x04\xa1\xff", "broke the protocol"),
        (b"\x93\x02\x90" + b"\x91" * 100_000 + b"\x90", "broke the protocol"),
    ],
)
def test_follower_that_breaks_the_protocol_is_dropped_and_counts_for_nothing(
    say: Any, part: str, make_network: MakeNetwork
) -> None:
    """An acknowledgment of what was never written, and garbage, end the channel, not the link."""
    run(lambda: check_broken(make_network, say, CLOSE_PROTOCOL, part))


@pytest.mark.parametrize(
    ("say", "code", "part"),
    [
        (Ack([]), CLOSE_PROTOCOL, "before the welcome"),
        (BaseHeld(1), CLOSE_PROTOCOL, "holds a base of epoch 1 unasked"),
        (Refusal("not you", 0, ""), CLOSE_REFUSED, "the follower refused: not you"),
        (Refusal("of another", 1, "another"), CLOSE_REFUSED, "the follower refused: of another"),
        (Refusal("of none", 1, ""), CLOSE_REFUSED, "the follower refused: of none"),
        (welcome("", 0, SeqRange(2, 2)), CLOSE_REFUSED, "earlier leader"),
        (welcome("", 0, SeqRange(1, 2)), CLOSE_PROTOCOL, "positions 1 to 2 in ranges"),
        (welcome("", 1, SeqRange(2, 2)), CLOSE_PROTOCOL, "positions 2 to 2 in ranges"),
        (welcome("", 0, SeqRange(5, 4)), CLOSE_PROTOCOL, "positions 5 to 4 in ranges"),
        (welcome("", 0, SeqRange(5, 6), SeqRange(6, 7)), CLOSE_PROTOCOL, "positions 6 to 7"),
        (welcome("", 0, SeqRange(8, 9), SeqRange(2, 3)), CLOSE_PROTOCOL, "positions 2 to 3"),
        (replaced(settled=1), CLOSE_PROTOCOL, "up to 1 to be committed, and holds up to 0"),
        (replaced(settled=1 << 63), CLOSE_PROTOCOL, "Expected `int` <="),
        (replaced(contiguous=-1), CLOSE_PROTOCOL, "Expected `int` >= 0"),
        (replaced(epoch=2), CLOSE_PROTOCOL, "holds a later one's log"),
        (replaced(base_epoch=2), CLOSE_PROTOCOL, "holds a later one's log"),
        (replaced(node_id=""), CLOSE_PROTOCOL, "Expected `str` of length >= 1"),
        (replaced(node_id="n" * 129), CLOSE_PROTOCOL, "Expected `str` of length <= 128"),
        (replaced(node_id="f1\n2026 CRITICAL"), CLOSE_PROTOCOL, "matching regex"),
        (replaced(start_id="\x1b[2J"), CLOSE_PROTOCOL, "matching regex"),
        (replaced(incarnation="\u202e"), CLOSE_PROTOCOL, "matching regex"),
        (Refusal("\x1b[2J\n" + "no" * 10_000, 0, ""), CLOSE_REFUSED, "refused: \\x1b[2J\\nnono"),
        (welcome("other", 5), CLOSE_REFUSED, "earlier leader"),
    ],
)
def test_follower_that_does_not_follow_is_dropped_with_its_reason(
    say: Any, code: int, part: str, make_network: MakeNetwork
) -> None:
    """Before it was welcome nothing counts, and the detail tells why."""
    run(lambda: check_broken(make_network, say, code, part, silent=True))


@pytest.mark.parametrize(("is_its_own", "ends"), [(True, True), (False, False)])
def test_only_a_node_of_its_cluster_tells_a_leader_that_its_epoch_is_over(
    is_its_own: bool,  # noqa: FBT001  a parameter of the test
    ends: bool,  # noqa: FBT001  as above
    make_network: MakeNetwork,
) -> None:
    """The epochs of another cluster, at whose port a follower once was, say nothing about its own.

    Else writes would fail without any fault in this cluster.
    """

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        superseded: list[int] = []
        leader._on_superseded = superseded.append
        cluster_id = network[1].leads_on if is_its_own else "another"
        network[1].client.say(Refusal("in a newer epoch", 1 << 61, cluster_id))
        assert superseded == ([1 << 61] if ends else [])
        assert not leader.links[0].detail.startswith("not connected")
        await leader.stop()

    run(check)


class BoundedPositions(HeldPositions):
    """Refuses to count a range out that would fill the memory."""

    def add_range(self, first: int, last: int) -> None:
        """Adds a range of a size that a test may have."""
        if last - first > 1000:
            raise MemoryError(f"{first} to {last}")
        super().add_range(first, last)


@pytest.mark.parametrize(
    ("contiguous", "above"),
    [
        (4, []),
        (0, [SeqRange(4, 4)]),
        (0, [SeqRange(2, 2**62)]),
        (-1, []),
        (0, [SeqRange(-5, -5)]),
        (0, [SeqRange(3, 2)]),
    ],
)
def test_welcome_with_positions_that_cannot_be_is_refused(
    contiguous: int,
    above: list[SeqRange],
    make_network: MakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A follower holds what the log has, in ranges that go up: others are not even counted out."""
    monkeypatch.setattr(channel, "HeldPositions", BoundedPositions)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0)
        put_all(leader, 1, 3)
        first = network[1].client
        network[1].keep(contiguous, above)
        first.close(1000, "again")
        await until(lambda: network[1].client is not first and network[1].client.close_code)
        assert network[1].client.close_code == CLOSE_PROTOCOL
        assert not leader.links[0].is_connected
        await leader.stop()

    run(check)


# --- acknowledgments and learners -------------------------------------------------------------


def test_follower_that_comes_back_empty_counts_once_it_has_caught_up(
    make_network: MakeNetwork,
) -> None:
    """A learner's acknowledgments are kept, and count together when the last gap is closed."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 3)
        await network[1].client.has_sent(3)
        network[2].lose_all()
        await until(lambda: not leader.links[1].is_connected)
        await until(lambda: leader.links[1].is_connected)
        assert leader.links[1].is_learner
        assert [link.counts for link in leader.links] == [True, False]
        put_all(leader, 4, 4)
        await network[2].client.has_sent(4)
        assert network[2].client.seqs == [1, 2, 3, 4]
        network[2].client.acknowledge(1, 2)
        network[2].client.acknowledge(4)
        assert leader.stable_seq == 0
        network[2].client.acknowledge(3)
        await until(lambda: leader.links[1].counts)
        assert leader.links[0].counts
        assert leader.stable_seq == 4
        await leader.stop()

    run(check)


def test_learner_alone_is_not_enough_for_a_write(make_network: MakeNetwork) -> None:
    """It is connected, but it does not count before it has caught up."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 2)
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        assert "0 of 1 followers count" in leader.readiness().reason
        await leader.stop()

    run(check)


def test_learner_gets_the_base_once_it_holds_all_that_it_had_missed(
    make_network: MakeNetwork,
) -> None:
    """The last of it does not do, and the first of it neither."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 3)
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        client = network[1].client
        await client.has_sent(3)
        for first in (3, 1):
            client.acknowledge(first)
            await asyncio.sleep(0)
            assert not any(isinstance(frame, Base) for frame in client.frames)
            assert leader.links[0].is_learner
        client.acknowledge(2)
        await until(lambda: leader.links[0].counts)
        assert any(isinstance(frame, Base) for frame in client.frames)
        assert leader.stable_seq == 3
        await leader.stop()

    run(check)


def test_learner_stays_one_when_its_channel_breaks_half_way(make_network: MakeNetwork) -> None:
    """Some of what it had missed is not all: a new channel of the same start changes nothing."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 3)
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        half_way = network[1].client
        network[1].keep(0, [SeqRange(2, 3)])
        half_way.close(1000, "cut")
        await until(lambda: network[1].client is not half_way and leader.links[0].is_connected)
        assert leader.links[0].is_learner
        assert leader.stable_seq == 0
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        await until(lambda: leader.links[0].counts)
        assert leader.stable_seq == 3
        await leader.stop()

    run(check)


def test_follower_that_comes_back_gets_what_it_lacks_and_is_credited_what_it_holds(
    make_network: MakeNetwork,
) -> None:
    """Acknowledgments lost with a channel are made up for by the next welcome."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 5)
        await network[1].client.has_sent(5)
        first = network[1].client
        network[1].keep(2, [SeqRange(4, 4)])
        first.close(1000, "cut")
        await until(lambda: network[1].client is not first and network[1].client.entries)
        assert network[1].client.seqs == [3, 5]
        assert leader.stable_seq == 2
        assert not leader.links[0].is_learner
        network[1].client.acknowledge(3)
        assert leader.stable_seq == 4
        await leader.stop()

    run(check)


def test_follower_too_far_behind_gets_the_whole_state_and_the_rest(
    make_network: MakeNetwork,
) -> None:
    """What the log has dropped comes as a snapshot of committed versions; then it may count."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=2)
        put_all(leader, 1, 5)
        await network[1].client.has_sent(5)
        leader.quorum_changes.begin(1)  # at seq 6
        put_all(leader, 7, 7)
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        client = network[1].client
        await until(lambda: any(isinstance(frame, SnapshotEnd) for frame in client.frames))
        begins = [frame for frame in client.frames if isinstance(frame, SnapshotBegin)]
        assert [begin.stable_seq for begin in begins] == [5]
        chunks = [frame for frame in client.frames if isinstance(frame, SnapshotChunk)]
        assert len(chunks) == BUCKETS
        sent = {key: version.value for chunk in chunks for key, version in versions_of(chunk)}
        assert sent == {f"k{seq}": f"v{seq}" for seq in range(1, 6)}
        await client.has_sent(7)
        assert client.seqs == [6, 7]
        client.acknowledge(6, 7)
        assert not leader.links[0].counts
        assert leader.stable_seq == 5
        client.say(CaughtUp(5))
        await until(lambda: leader.links[0].counts)
        assert leader.stable_seq >= 7
        await leader.stop()

    run(check)


def test_snapshot_waits_for_a_follower_that_reads_slowly(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is never buffered as a whole."""
    monkeypatch.setattr(catch_up, "BYTES_PER_STEP", 64)  # a chunk without keys has less

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=1)
        put_all(leader, 1, 4)
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        client = network[1].client
        client.is_congested = True
        for turns in (1, 2, 3):
            await until(lambda: any(isinstance(f, SnapshotChunk) for f in client.frames))
            for _ in range(5):
                await asyncio.sleep(0)
            chunks = [f for f in client.frames if isinstance(f, SnapshotChunk)]
            assert 0 < len(chunks) <= 3 * turns
            client.listener.on_writable()
            await asyncio.sleep(0)
        await leader.stop()

    run(check)


def test_snapshot_for_a_follower_that_is_lost_ends_with_the_channel(
    make_network: MakeNetwork,
) -> None:
    """Nobody goes on waiting for a lost follower to read."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=1)
        put_all(leader, 1, 4)
        before = asyncio.all_tasks()
        network[1].lose_all()
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        client = network[1].client
        client.is_congested = True
        await until(lambda: any(isinstance(frame, SnapshotChunk) for frame in client.frames))
        network[1].is_reachable = False
        client.close(1000, "gone")
        await until(lambda: not leader.links[0].is_connected)
        await until(lambda: asyncio.all_tasks() == before)
        await leader.stop()

    run(check)


# --- delays -----------------------------------------------------------------------------------


def test_entry_that_is_due_sooner_does_not_wait_for_those_before_it(
    make_network: MakeNetwork,
) -> None:
    """The one timer of a link is set for whatever is due next, also if that comes last."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(
            write_quorum=1, min_delay_ms=3_600_000.0, max_delay_ms=3_600_000.0
        )
        put_all(leader, 1, 1)
        await asyncio.sleep(0)
        leader.set_delays(1.0, 1.0)
        put_all(leader, 2, 2)
        await network[1].client.has_sent(2)
        assert network[1].client.seqs == [2]
        await leader.stop()

    run(check)


def test_delay_of_what_is_sent_again_is_counted_from_its_append(make_network: MakeNetwork) -> None:
    """A reconnect does not make an entry wait again: what is due by then is sent at once."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, min_delay_ms=1e6, max_delay_ms=1e6)
        put_all(leader, 1, 2)
        first = network[1].client
        await until(lambda: leader.links[0].waiting == 2)
        appended_ns = leader.now_ns()
        leader.now_ns = lambda: appended_ns + 1_000_000_000_000
        first.close(1000, "cut")
        await until(lambda: network[1].client is not first and leader.links[0].is_connected)
        assert network[1].client.seqs == [1, 2]
        assert first.seqs == []
        await leader.stop()

    run(check)


def test_what_waited_for_a_lost_follower_waits_once_when_it_is_back(
    make_network: MakeNetwork,
) -> None:
    """The log says what a follower lacks; a channel leaves nothing to the next one."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, min_delay_ms=1e6, max_delay_ms=1e6)
        put_all(leader, 1, 3)
        link = leader.links[0]
        await until(lambda: link.waiting == 3)
        for _ in range(3):
            last = network[1].client
            last.close(1000, "cut")
            await until(lambda last=last: network[1].client is not last and link.is_connected)
            assert link.waiting == 3
        await leader.stop()

    run(check)


def test_delays_of_two_followers_differ(make_network: MakeNetwork) -> None:
    """Each link draws its own: the entries leave in different orders."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1, max_delay_ms=10.0, delay_seed=5)
        put_all(leader, 1, 20)
        await until(lambda: all(len(network[n].client.seqs) == 20 for n in (1, 2)))
        assert network[1].client.seqs != network[2].client.seqs
        await leader.stop()

    run(check)


# --- slow, silent and absent followers --------------------------------------------------------


def test_congested_follower_is_sent_nothing_until_it_reads_again(
    make_network: MakeNetwork,
) -> None:
    """What waits is kept in order, not pushed into a full buffer."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        client = network[1].client
        client.is_congested = True
        for seq in (1, 2):
            put_all(leader, seq, seq)
            await network[2].client.has_sent(seq)
        assert client.seqs == []
        client.is_congested = False
        client.listener.on_writable()
        assert client.seqs == [1, 2]
        await leader.stop()

    run(check)


def test_follower_for_which_more_waits_than_the_log_holds_is_dropped(
    make_network: MakeNetwork,
) -> None:
    """Memory is bounded whatever a follower does: it comes back and gets the state."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=3)
        client = network[1].client
        client.is_congested = True
        for seq in range(1, 5):
            put_all(leader, seq, seq)
            await asyncio.sleep(0)
        await until(lambda: client.close_code == CLOSE_TOO_SLOW)
        await until(lambda: network[1].client is not client)
        await leader.stop()

    run(check)


def test_silent_follower_is_dropped_and_tried_again(make_network: MakeNetwork) -> None:
    """A node that hangs is as good as gone; heartbeats tell it from one with nothing to say."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=0, heartbeat_timeout_s=0.04)
        network[1].is_silent = True
        client = network[1].client
        await until(lambda: client.close_code == CLOSE_SILENT)
        await until(lambda: "silent for 0.04 s" in leader.links[0].detail)
        heard = network[2].clients
        await until(lambda: any(isinstance(f, Heartbeat) for other in heard for f in other.frames))
        network[1].is_silent = False
        await until(lambda: leader.links[0].is_connected)
        await leader.stop()

    run(check)


def test_heartbeat_tells_how_far_the_leader_is(make_network: MakeNetwork) -> None:
    """It carries the newest and the stable position."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, heartbeat_timeout_s=0.02)
        put_all(leader, 1, 2)
        await network[1].client.has_sent(2)
        network[1].client.acknowledge(1)
        await until(lambda: Heartbeat(2, 1) in network[1].client.frames)
        await leader.stop()

    run(check)


def test_log_says_why_a_follower_is_gone(
    make_network: MakeNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever operates the cluster looks there first."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader()
        network[1].is_reachable = False
        network[1].client.close(1000, "its machine sleeps")
        await until(lambda: not leader.links[0].is_connected)
        await leader.stop()

    with caplog.at_level(logging.WARNING, logger="kv_app.channel"):
        run(check)
    assert [record.getMessage() for record in caplog.records] == [
        "follower f1 at http://f1:1 is gone: its machine sleeps",
        "follower f2 at http://f2:1 is gone: this node ends the channel",
    ]


def test_absent_follower_is_tried_for_ever(make_network: MakeNetwork) -> None:
    """Whenever it comes, it is taken; until then the detail says what is wrong."""

    async def check() -> None:
        network = make_network(1)
        network[1].is_reachable = False
        leader = network.make_leader(write_quorum=0)
        leader.start()
        await until(lambda: network[1].attempts >= 5)
        assert leader.links[0].detail == "nobody listens there"
        network[1].is_reachable = True
        await until(lambda: leader.links[0].is_connected)
        assert leader.links[0].detail == ""
        await leader.stop()

    run(check)


def test_follower_that_does_not_answer_the_hello_is_given_up_after_a_time(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that opens and then says nothing does not hold the link up."""
    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 0.01)

    async def check() -> None:
        network = make_network(1)
        network[1].is_silent = True
        leader = network.make_leader(write_quorum=0)
        leader.start()
        await until(lambda: network[1].attempts >= 3)
        assert network[1].clients[0].closed.done()
        assert "no answer within" in leader.links[0].detail
        await leader.stop()

    run(check)


# --- links that are cut on purpose ------------------------------------------------------------


def test_link_that_is_cut_neither_counts_nor_sends_until_it_is_mended(
    make_network: MakeNetwork,
) -> None:
    """From the call on; then it connects again, and what was missed is sent."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        link, first = leader.links[0], network[1].client
        link.cut()
        assert not link.counts
        assert first.closed.done()
        assert "cut on purpose" in link.detail
        put_all(leader, 1, 2)
        await network[2].client.has_sent(2)
        attempts = network[1].attempts
        await asyncio.sleep(0.02)  # longer than it would wait to connect again
        assert network[1].attempts == attempts
        link.mend()
        assert link.detail == "not connected yet"
        await until(lambda: link.counts)
        assert network[1].client.seqs == [1, 2]
        link.mend()  # of a link that is not cut does nothing
        assert link.counts
        await leader.stop()

    run(check)


@pytest.mark.parametrize("is_welcome", [False, True])
def test_link_that_is_cut_while_it_connects_stays_down(
    make_network: MakeNetwork, caplog: pytest.LogCaptureFixture, *, is_welcome: bool
) -> None:
    """A welcome that was on its way changes nothing, and neither is a bug of the leader."""

    async def check() -> None:
        network = make_network(1)
        network[1].is_silent = True
        leader = network.make_leader(write_quorum=0)
        leader.start()
        link = leader.links[0]
        await until(lambda: network[1].clients and network[1].client.frames)
        if is_welcome:
            network[1].client.say(welcome())
        link.cut()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not link.is_connected
        assert "cut on purpose" in link.detail
        assert "bug" not in caplog.text
        await leader.stop()

    run(check)


def test_snapshot_that_meets_a_bug_of_the_leader_ends_the_channel_and_is_tried_again(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says what it was; the follower is not left waiting for the rest."""

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(catch_up, "snapshot_frames", fail)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=1)
        put_all(leader, 1, 3)
        await network[1].client.has_sent(3)
        lost = len(network[1].clients)
        network[1].lose_all()
        await until(lambda: len(network[1].clients) > lost + 1)
        assert "met a bug" in network[1].clients[lost].closed.result()
        await leader.stop()

    run(check)


def test_link_that_meets_a_bug_of_the_leader_is_tried_again(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a peer makes the leader stumble over, the link does not end for good."""
    failures = ["first"]

    async def check() -> None:
        network = make_network(1)
        connect = network.connect

        async def stumble(*arguments: Any, **options: Any) -> Any:
            if failures:
                raise RuntimeError(failures.pop())
            return await connect(*arguments, **options)

        monkeypatch.setattr(channel, "connect", stumble)
        leader = network.make_leader(write_quorum=0)
        leader.start()
        await until(lambda: "met a bug" in leader.links[0].detail)
        await until(lambda: leader.links[0].is_connected)
        await leader.stop()

    run(check)


def test_leader_that_stood_still_reads_before_it_takes_a_follower_for_silent(
    make_network: MakeNetwork,
) -> None:
    """However long it was: what the follower sent meanwhile waits to be read."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, heartbeat_timeout_s=0.4)
        client = network[1].client
        for _ in range(20):
            await asyncio.sleep(0)  # all that it had to say is said
        time.sleep(1.0)  # noqa: ASYNC251  the whole node stands still, its loop too
        await asyncio.sleep(0.01)  # its timers have run
        client.say(Ack([]))
        await until(lambda: any(isinstance(frame, Heartbeat) for frame in client.frames))
        assert client.close_code is None
        assert leader.links[0].is_connected
        await leader.stop()

    run(check)
