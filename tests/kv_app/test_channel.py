"""One link: batches, delays, acknowledgments, learners, catch-up, and broken protocols."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import channel
from kv_app.channel import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, encode_batches
from kv_app.delays import DelayKind, DelayModel
from kv_app.log import HeldPositions, LogRecord
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_SILENT,
    CLOSE_TOO_SLOW,
    PROTOCOL_VERSION,
    Ack,
    CaughtUp,
    Entries,
    Entry,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    Refusal,
    SeqRange,
    SnapshotChunk,
    SnapshotEnd,
    Welcome,
)
from tests.kv_app.fakes import FakeNetwork, encode, run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.leader import Leader

    MakeNetwork = Callable[[int], FakeNetwork]


def put_all(leader: Leader, first: int, last: int) -> None:
    """Appends puts at these positions, each of a key of its own."""
    for seq in range(first, last + 1):
        record = leader.append(Operation.PUT, f"k{seq}", f"v{seq}", None)
        assert record.entry.seq == seq


# --- batches ----------------------------------------------------------------------------------


def make_record(seq: int, value: str = "") -> LogRecord:
    """Returns a record as the leader makes it."""
    entry = Entry(1, seq, int(Operation.PUT), "k", value, None)
    return LogRecord(entry, encode(entry), 0, DelayModel(), 1)


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=60), max_size=40),
    max_entries=st.integers(min_value=1, max_value=6),
    max_bytes=st.integers(min_value=1, max_value=150),
)
def test_batches_hold_all_records_in_order_within_their_limits(
    sizes: list[int], max_entries: int, max_bytes: int
) -> None:
    """A batch is over its size only for a single larger entry, and none could join its follower."""
    records = [make_record(seq, "x" * size) for seq, size in enumerate(sizes, start=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "MAX_BATCH_ENTRIES", max_entries)
        patch.setattr(channel, "MAX_BATCH_BYTES", max_bytes)
        frames = encode_batches(records)
    batches = [msgspec.msgpack.decode(frame, type=LeaderMessage).entries for frame in frames]
    assert [entry for batch in batches for entry in batch] == [r.entry for r in records]
    lengths = [[len(encode(entry)) for entry in batch] for batch in batches]
    for batch in lengths:
        assert 1 <= len(batch) <= max_entries
        assert sum(batch) <= max_bytes or len(batch) == 1
    for batch, following in pairwise(lengths):
        assert len(batch) == max_entries or sum(batch) + following[0] > max_bytes


def test_batch_limits_leave_room_for_the_largest_frame() -> None:
    """Real limits hold for real numbers: many small entries are cut by number."""
    frames = encode_batches(make_record(seq) for seq in range(1, MAX_BATCH_ENTRIES + 2))
    assert [len(msgspec.msgpack.decode(frame, type=Entries).entries) for frame in frames] == [
        MAX_BATCH_ENTRIES,
        1,
    ]
    large = encode_batches([make_record(1, "x" * MAX_BATCH_BYTES), make_record(2)])
    assert len(large) == 2


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
        assert hello == Hello(PROTOCOL_VERSION, hello.cluster_id, 1, "leader", "http://me:1", 0)
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
    leader = network.make_leader(write_quorum=0)
    leader.start()
    await until(lambda: network[1].clients and network[1].client.frames)
    if not silent:
        await until(lambda: leader.links[0].is_connected)
        leader.set_write_quorum(1)
        put_all(leader, 1, 3)
        await network[1].client.has_sent(3)
    client = network[1].client
    if isinstance(say, bytes):
        client.say_bytes(say)
    else:
        client.say(say)
    assert client.close_code == code
    await until(lambda: part in leader.links[0].detail)
    assert leader.links[0].held.max_seq == 0
    assert leader.stable_seq == 0
    network[1].is_silent = False
    await until(lambda: leader.links[0].is_connected and network[1].client is not client)
    await leader.stop()


WELCOME = Welcome("f1", "s", "", 0, 0, [])


@pytest.mark.parametrize(
    ("say", "part"),
    [
        (Ack([SeqRange(1, 4)]), "acknowledged 1 to 4 of 3"),
        (Ack([SeqRange(4, 4)]), "acknowledged 4 to 4 of 3"),
        (Ack([SeqRange(0, 1)]), "acknowledged 0 to 1 of 3"),
        (Ack([SeqRange(2, 1)]), "acknowledged 2 to 1 of 3"),
        (Ack([SeqRange(1, 2**62)]), "acknowledged 1 to"),
        (CaughtUp(4), "acknowledged 1 to 4 of 3"),
        (WELCOME, "a second welcome"),
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
        (Refusal("not you"), CLOSE_REFUSED, "the follower refused: not you"),
        (Welcome("f1", "s", "", 0, 0, [SeqRange(2, 2)]), CLOSE_REFUSED, "earlier leader"),
        (Welcome("f1", "s", "other", 1, 5, []), CLOSE_REFUSED, "earlier leader"),
    ],
)
def test_follower_that_does_not_follow_is_dropped_with_its_reason(
    say: Any, code: int, part: str, make_network: MakeNetwork
) -> None:
    """Before it was welcome nothing counts, and the detail tells why."""
    run(lambda: check_broken(make_network, say, code, part, silent=True))


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
        network[1].cluster_id = first.frames[0].cluster_id
        network[1].contiguous, network[1].above = contiguous, above
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
        network[2].client.close(1000, "restarts empty")
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
        assert [link.counts for link in leader.links] == [True, True]
        assert leader.stable_seq == 4
        await leader.stop()

    run(check)


def test_learner_alone_is_not_enough_for_a_write(make_network: MakeNetwork) -> None:
    """It is connected, but it does not count before it has caught up."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 2)
        network[1].client.close(1000, "restarts empty")
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        assert "0 of 1 followers count" in leader.readiness().reason
        await leader.stop()

    run(check)


def test_learner_stays_one_when_its_channel_breaks_half_way(make_network: MakeNetwork) -> None:
    """Some of what it had missed is not all: a new channel of the same start changes nothing."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        put_all(leader, 1, 3)
        network[1].start_id = "second"
        network[1].client.close(1000, "restarts empty")
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        half_way = network[1].client
        network[1].cluster_id = half_way.frames[0].cluster_id
        network[1].contiguous, network[1].above = 0, [SeqRange(2, 3)]
        half_way.close(1000, "cut")
        await until(lambda: network[1].client is not half_way and leader.links[0].is_connected)
        assert leader.links[0].is_learner
        assert leader.stable_seq == 0
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        assert [link.is_learner for link in leader.links] == [False]
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
        network[1].cluster_id = first.frames[0].cluster_id
        network[1].contiguous, network[1].above = 2, [SeqRange(4, 4)]
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
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log has dropped comes as a snapshot of committed versions, in parts."""
    monkeypatch.setattr(channel, "SNAPSHOT_KEYS_PER_CHUNK", 2)

    async def check() -> None:
        network = make_network(2)
        network[2].is_reachable = False
        leader = await network.start_leader(write_quorum=0, log_entries=2)
        await until(lambda: leader.links[1].detail == "nobody listens there")
        network[1].is_reachable = False
        network[1].client.close(1000, "gone")
        await until(lambda: not leader.links[0].is_connected)
        leader.set_write_quorum(0)
        # Enough have said that they are empty only once both were heard.
        network[2].is_reachable = True
        await until(lambda: leader.links[1].is_connected)
        put_all(leader, 1, 5)
        leader.set_write_quorum(1)
        put_all(leader, 6, 6)
        network[1].is_reachable = True
        await until(lambda: network[1].client.entries)
        client = network[1].client
        await until(lambda: any(isinstance(frame, SnapshotEnd) for frame in client.frames))
        chunks = [frame.versions for frame in client.frames if isinstance(frame, SnapshotChunk)]
        assert [len(chunk) for chunk in chunks] == [2, 2, 1]
        merged = {key: version.value for chunk in chunks for key, version in chunk.items()}
        assert merged == {f"k{seq}": f"v{seq}" for seq in range(1, 6)}
        assert [f for f in client.frames if isinstance(f, SnapshotEnd)] == [SnapshotEnd(5, 5)]
        assert client.seqs == [6]
        assert leader.links[0].is_learner
        client.acknowledge(6)
        client.say(CaughtUp(5))
        assert leader.links[0].counts
        assert leader.stable_seq == 6
        await leader.stop()

    run(check)


def test_snapshot_waits_for_a_follower_that_reads_slowly(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is never buffered as a whole."""
    monkeypatch.setattr(channel, "SNAPSHOT_KEYS_PER_CHUNK", 1)

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=0, log_entries=1)
        put_all(leader, 1, 4)
        network[1].client.close(1000, "restarts empty")
        await until(lambda: leader.links[0].is_learner and leader.links[0].is_connected)
        client = network[1].client
        client.is_congested = True
        for turns in (1, 2, 3):
            await until(lambda: any(isinstance(f, SnapshotChunk) for f in client.frames))
            for _ in range(5):
                await asyncio.sleep(0)
            chunks = [f for f in client.frames if isinstance(f, SnapshotChunk)]
            assert len(chunks) == turns
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
        network[1].client.close(1000, "restarts empty")
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


class HastyTimer:
    """A timer that always fires too early, as an event loop's may by a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.Handle | None = None

    def arm(self, due_ns: int) -> None:
        """Fires in the loop's next turn."""
        del due_ns
        self.close()
        self._handle = self._loop.call_soon(self._on_due)

    def close(self) -> None:
        """Ends the timer."""
        if self._handle is not None:
            self._handle.cancel()


@pytest.mark.parametrize("timer", ["own", "hasty"])
@pytest.mark.parametrize("kind", list(DelayKind))
def test_entries_with_delays_are_sent_when_due_and_never_before(
    kind: DelayKind, timer: str, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry waits its own delay, drawn for its follower; a fifo link keeps the order too."""
    if timer == "hasty":
        monkeypatch.setattr(channel, "make_timer", HastyTimer)

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(
            write_quorum=1, min_delay_ms=1.0, max_delay_ms=20.0, delay_seed=5, delay_kind=kind
        )
        records = []
        for seq in range(1, 31):
            put_all(leader, seq, seq)
            records.append(leader.log.get(seq))
            if seq % 5 == 0:
                await asyncio.sleep(0)
        model = leader.delays
        leader.set_delays(0.0, 0.0)
        put_all(leader, 31, 31)
        for follower in (network[1], network[2]):
            client = follower.client
            await until(lambda client=client: len(client.seqs) == 31)  # type: ignore[misc]
            due_ns = [
                record.appended_ns + model.draw_ns(follower.node_id, 1, record.entry.seq)
                for record in records
                if record is not None
            ]
            assert len(due_ns) == 30
            assert all(client.sent_ns[seq] >= due for seq, due in enumerate(due_ns, start=1))
            if kind is DelayKind.FIFO:
                assert client.seqs == list(range(1, 32))
            else:
                assert sorted(client.seqs) == list(range(1, 32))
        await leader.stop()

    run(check)


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
        await until(lambda: len(leader.links[0]._schedule) == 2)
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
        await until(lambda: len(link._schedule) == 3)
        for _ in range(3):
            last = network[1].client
            last.close(1000, "cut")
            await until(lambda last=last: network[1].client is not last and link.is_connected)
            assert len(link._schedule) == 3
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
