"""A follower behind its channel: what it follows, takes, acknowledges and refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import follower as follower_module
from kv_app.follower import Follower
from kv_app.formation import Standing
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    PROTOCOL_VERSION,
    Ack,
    CaughtUp,
    Entries,
    Entry,
    FollowerMessage,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    Refusal,
    Role,
    SeqRange,
    SnapshotChunk,
    SnapshotEnd,
    Version,
    Welcome,
)
from kv_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT_LIMIT_S = 5.0
LEADER_URL = "http://leader:8000"
encode = msgspec.msgpack.Encoder().encode


def make_follower(heartbeat_timeout_s: float = 10.0) -> Follower:
    """Returns a follower that holds nothing."""
    return Follower(
        Settings(
            role=Role.FOLLOWER,
            node_id="f1",
            start_id="s1",
            heartbeat_timeout_s=heartbeat_timeout_s,
        )
    )


class Channel:
    """A leader's end of a channel, without a socket: what an ASGI server would hand over."""

    def __init__(self, follower: Follower) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.is_congested = False
        self.was_blocked = asyncio.Event()
        self.close_code: int | None = None
        self.served = asyncio.create_task(follower.serve(self._events.get, self._send))

    async def _send(self, event: Any) -> None:
        if self.is_congested:
            self.was_blocked.set()
            await asyncio.Event().wait()
        if event["type"] == "websocket.close":
            self.close_code = event["code"]
        else:
            assert event["type"] == "websocket.send"
            answer = msgspec.msgpack.decode(event["bytes"], type=FollowerMessage)
            self._answers.put_nowait(answer)

    def say(self, message: Any) -> None:
        """Sends a message to the follower."""
        self.say_bytes(encode(message))

    def say_bytes(self, payload: bytes) -> None:
        """Sends anything to the follower."""
        self._events.put_nowait({"type": "websocket.receive", "bytes": payload})

    def say_text(self, text: str) -> None:
        """Sends a text frame, which no leader does."""
        self._events.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        """Ends the channel."""
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def heard(self) -> Any:
        """Waits for the follower's next message; fails at once if it serves no more."""
        answer = asyncio.create_task(self._answers.get())
        await asyncio.wait(
            [answer, self.served], timeout=WAIT_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not answer.done():
            answer.cancel()
            pytest.fail(f"no answer; the channel is {self.served!r}")
        return answer.result()

    async def ask(self, message: Any) -> Any:
        """Sends a message and waits for the answer."""
        self.say(message)
        return await self.heard()

    async def ended(self) -> int | None:
        """Waits until the follower serves no more, and returns the code with which it closed."""
        await asyncio.wait([self.served], timeout=WAIT_LIMIT_S)
        self.served.result()
        return self.close_code

    async def refused(self, message: Any) -> str:
        """Sends a message that must end the channel, and returns the reason."""
        answer = await self.ask(message)
        assert isinstance(answer, Refusal)
        await self.ended()
        return answer.reason


def hello(cluster_id: str = "c1", epoch: int = 1, last_seq: int = 0) -> Hello:
    """Returns a leader's hello."""
    return Hello(PROTOCOL_VERSION, cluster_id, epoch, "leader", LEADER_URL, last_seq)


def put(seq: int, value: str = "v", epoch: int = 1) -> Entry:
    """Returns a put of a key of its own."""
    return Entry(epoch, seq, int(Operation.PUT), f"k{seq}", value, None)


async def following(follower: Follower, cluster_id: str = "c1") -> Channel:
    """Returns a channel whose leader the follower has welcomed."""
    channel = Channel(follower)
    assert isinstance(await channel.ask(hello(cluster_id)), Welcome)
    return channel


def run(check: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's coroutine function in an event loop, and ends what it left."""

    async def main() -> None:
        await check()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())


# --- hello and welcome ------------------------------------------------------------------------


def test_hello_to_an_empty_follower_is_welcome() -> None:
    """It says who it is and that it holds nothing, and then follows."""

    async def check() -> None:
        follower = make_follower()
        assert follower.readiness().standing is Standing.NO_LEADER
        channel = Channel(follower)
        assert await channel.ask(hello()) == Welcome("f1", "s1", "", 0, 0, [])
        await channel.ask(Heartbeat(0, 0))
        assert (follower.cluster_id, follower.epoch) == ("c1", 1)
        assert follower.leader_url == LEADER_URL
        assert follower.readiness().standing is Standing.OPEN
        channel.hang_up()
        assert await channel.ended() is None
        assert follower.readiness().standing is Standing.NO_LEADER

    run(check)


def test_hello_of_the_same_leader_again_is_told_what_is_held() -> None:
    """After a break the leader learns position by position what it need not send again."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(Entries([put(1), put(2), put(5)]))
        channel.hang_up()
        await channel.ended()
        again = Channel(follower)
        assert await again.ask(hello()) == Welcome("f1", "s1", "c1", 1, 2, [SeqRange(5, 5)])

    run(check)


def test_hello_of_another_cluster_is_refused_and_the_data_kept() -> None:
    """What it holds of a lost leader may be all that is left: it says so, and keeps it."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(Entries([put(1)]))
        channel.hang_up()
        await channel.ended()
        stranger = Channel(follower)
        welcome = await stranger.ask(hello("c2"))
        assert (welcome.cluster_id, welcome.contiguous) == ("c1", 1)
        refusal = await stranger.heard()
        assert "another cluster" in refusal.reason
        assert await stranger.ended() == CLOSE_REFUSED
        assert follower.cluster_id == "c1"
        assert follower.state.values() == {"k1": "v"}

    run(check)


def test_hello_of_another_cluster_while_one_is_followed_is_refused() -> None:
    """A second leader gets no place beside the first, whose channel goes on."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        stranger = Channel(follower)
        assert LEADER_URL in await stranger.refused(hello("c2"))
        assert stranger.close_code == CLOSE_REFUSED
        assert await channel.ask(Entries([put(1)])) == Ack([SeqRange(1, 1)])

    run(check)


def test_second_channel_of_the_same_leader_replaces_the_first() -> None:
    """A leader that lost its channel unnoticed is not locked out by it."""

    async def check() -> None:
        follower = make_follower()
        first = await following(follower)
        second = await following(follower)
        assert await first.ended() == CLOSE_REPLACED
        assert await second.ask(Entries([put(1)])) == Ack([SeqRange(1, 1)])
        assert follower.readiness().standing is Standing.OPEN

    run(check)


def test_channel_replaced_before_its_welcome_was_sent_ends_like_any_other() -> None:
    """A leader that does not read is replaced too; nothing is raised into the server."""

    async def check() -> None:
        follower = make_follower()
        first = Channel(follower)
        first.is_congested = True
        first.say(hello())
        await first.was_blocked.wait()
        first.is_congested = False
        await following(follower)
        assert await first.ended() == CLOSE_REPLACED

    run(check)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (Hello(PROTOCOL_VERSION + 1, "c1", 1, "leader", LEADER_URL, 0), "version 1"),
        (hello(epoch=4), "epoch 4 is over"),
    ],
)
def test_hello_that_cannot_be_followed_is_refused_with_the_reason(
    message: Hello, part: str
) -> None:
    """Another protocol and an epoch that is over are told apart."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello(epoch=5))
        channel.hang_up()
        await channel.ended()
        late = Channel(follower)
        assert part in await late.refused(message)
        assert late.close_code == CLOSE_REFUSED
        assert follower.epoch == 5

    run(check)


@pytest.mark.parametrize(
    "message", [Heartbeat(0, 0), Entries([put(1)]), SnapshotChunk({}), SnapshotEnd(0, 0)]
)
def test_channel_without_a_hello_is_closed(message: Any) -> None:
    """Nothing is taken from who has not said who he is."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        assert "begins with a hello" in await channel.refused(message)
        assert channel.close_code == CLOSE_PROTOCOL
        assert follower.is_empty

    run(check)


def test_channel_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open connection alone holds no place for ever."""
    monkeypatch.setattr(follower_module, "HELLO_TIMEOUT_S", 0.01)

    async def check() -> None:
        channel = Channel(make_follower())
        assert (await channel.heard()).reason == "no hello in time"
        assert await channel.ended() == CLOSE_PROTOCOL

    run(check)


def test_channel_closed_before_the_hello_is_no_fault_of_the_server() -> None:
    """A peer that connects and leaves ends its channel and nothing else."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        channel.hang_up()
        await channel.ended()
        assert follower.is_empty

    run(check)


def test_second_hello_on_a_channel_is_refused() -> None:
    """A channel has one leader and one epoch."""

    async def check() -> None:
        channel = await following(make_follower())
        assert "second hello" in await channel.refused(hello())
        assert channel.close_code == CLOSE_PROTOCOL

    run(check)


# --- entries and heartbeats -------------------------------------------------------------------


def test_entries_in_any_order_are_applied_and_acknowledged_as_ranges() -> None:
    """Links are not FIFO: the acknowledgment names exactly what came, duplicates included."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        assert await channel.ask(Entries([put(2), put(3), put(7)])) == Ack(
            [SeqRange(2, 3), SeqRange(7, 7)]
        )
        assert await channel.ask(Entries([put(2), put(1)])) == Ack([SeqRange(2, 2), SeqRange(1, 1)])
        assert (follower.held.contiguous, follower.held.max_seq, follower.held.holes) == (3, 7, 3)
        assert set(follower.state.values()) == {"k1", "k2", "k3", "k7"}

    run(check)


def test_entry_at_a_position_that_is_held_changes_nothing() -> None:
    """One value per position: the first stays, and it is acknowledged again."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(Entries([put(1, "first")]))
        assert await channel.ask(Entries([put(1, "second")])) == Ack([SeqRange(1, 1)])
        assert follower.state.values() == {"k1": "first"}

    run(check)


@pytest.mark.parametrize(
    "bad",
    [put(2, epoch=2), put(2, epoch=0), put(0), put(-1), Entry(1, 2, 9, "k", "v", None)],
    ids=["later epoch", "earlier epoch", "no position", "negative", "unknown operation"],
)
def test_entries_with_one_that_cannot_be_taken_are_refused_as_a_whole(bad: Entry) -> None:
    """None of the batch is applied, whatever stands before the bad one."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        assert "cannot be taken" in await channel.refused(Entries([put(1), bad]))
        assert channel.close_code == CLOSE_PROTOCOL
        assert follower.is_empty
        assert follower.state.values() == {}

    run(check)


def test_heartbeat_is_answered_by_an_empty_acknowledgment() -> None:
    """Both ends know that the other one lives."""

    async def check() -> None:
        channel = await following(make_follower())
        assert await channel.ask(Heartbeat(10, 5)) == Ack([])

    run(check)


def test_leader_that_is_silent_too_long_is_dropped() -> None:
    """The place becomes free for the leader's next channel."""

    async def check() -> None:
        follower = make_follower(heartbeat_timeout_s=0.02)
        channel = await following(follower)
        assert "silent for 0.02 s" in (await channel.heard()).reason
        assert await channel.ended() == CLOSE_SILENT
        assert follower.readiness().standing is Standing.NO_LEADER

    run(check)


def test_server_that_stops_cancels_a_channel() -> None:
    """A cancellation that the follower did not ask for is passed on."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        channel.served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await channel.served
        assert follower.readiness().standing is Standing.NO_LEADER

    run(check)


def test_follower_behind_its_leader_is_not_ready_before_it_has_caught_up() -> None:
    """Ready means: it holds all that there was when the channel was opened."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello(last_seq=2))
        await channel.ask(Entries([put(2)]))
        assert follower.readiness().standing is Standing.CATCHING_UP
        assert "up to 0 of 2" in follower.readiness().reason
        await channel.ask(Entries([put(1)]))
        assert follower.readiness().standing is Standing.OPEN

    run(check)


# --- snapshots --------------------------------------------------------------------------------


def test_snapshot_brings_keys_versions_and_the_position() -> None:
    """After it the follower holds everything up to its position, newer entries untouched."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(Entries([Entry(1, 9, int(Operation.PUT), "a", "newer", None)]))
        channel.say(SnapshotChunk({"a": Version("older", 1, 3), "b": Version("b", 1, 4)}))
        channel.say(SnapshotChunk({"c": Version(None, 1, 5)}))
        assert await channel.ask(SnapshotEnd(8, 3)) == CaughtUp(8)
        assert follower.state.values() == {"a": "newer", "b": "b"}
        assert follower.state.read("c") == Version(None, 1, 5)
        assert follower.held.contiguous == 9

    run(check)


@pytest.mark.parametrize("keys", [0, 1, 3])
def test_snapshot_with_another_number_of_keys_is_refused(keys: int) -> None:
    """A part that was lost is noticed, and the position is not taken over."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        channel.say(SnapshotChunk({"a": Version("1", 1, 1), "b": Version("1", 1, 2)}))
        assert f"a snapshot of {keys} keys had 2" in await channel.refused(SnapshotEnd(2, keys))
        assert follower.held.max_seq == 0

    run(check)


def test_snapshot_cut_off_keeps_the_follower_with_its_cluster() -> None:
    """Half a snapshot is data of that cluster: another one's would be mixed with it."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        channel.say(SnapshotChunk({"a": Version("1", 1, 1)}))
        channel.hang_up()
        await channel.ended()
        stranger = Channel(follower)
        welcome = await stranger.ask(hello("c2"))
        assert (welcome.cluster_id, welcome.contiguous) == ("c1", 0)
        assert isinstance(await stranger.heard(), Refusal)
        assert await stranger.ended() == CLOSE_REFUSED
        await following(follower)
        assert follower.cluster_id == "c1"

    run(check)


# --- bytes that are no message ----------------------------------------------------------------


def is_message(payload: bytes) -> bool:
    """Tells whether a leader could have sent this."""
    try:
        msgspec.msgpack.decode(payload, type=LeaderMessage)
    except (ValueError, RecursionError):
        return False
    return True


async def check_refused(payload: bytes, *, is_following: bool) -> None:
    """Sends bytes that are no message, and holds the follower to its promise."""
    follower = make_follower()
    if is_following:
        channel = await following(follower)
        await channel.ask(Entries([put(1)]))
    else:
        channel = Channel(follower)
    before = (follower.state.values(), follower.held.contiguous, follower.held.max_seq)
    channel.say_bytes(payload)
    assert isinstance(await channel.heard(), Refusal)
    assert await channel.ended() == CLOSE_PROTOCOL
    assert (follower.state.values(), follower.held.contiguous, follower.held.max_seq) == before


plain_values = st.recursive(
    st.none() | st.integers(min_value=-(2**63), max_value=2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
tagged = st.builds(
    lambda tag, rest: encode([tag, *rest]),
    st.integers(min_value=0, max_value=7),
    st.lists(plain_values, max_size=7),
)
cut_messages = st.builds(
    lambda payload, at, other: payload[: at % len(payload)] + other,
    st.sampled_from([encode(hello()), encode(Entries([put(2)])), encode(SnapshotEnd(1, 0))]),
    st.integers(min_value=0, max_value=200),
    st.binary(max_size=3),
)


@given(
    payload=st.one_of(st.binary(max_size=60), tagged, cut_messages).filter(
        lambda payload: not is_message(payload)
    ),
    is_following=st.booleans(),
)
def test_bytes_that_are_no_message_end_the_channel_and_change_nothing(
    payload: bytes, *, is_following: bool
) -> None:
    """Garbage of any kind is answered by a refusal; nothing is raised, nothing is applied."""
    asyncio.run(check_refused(payload, is_following=is_following))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x91" * 100_000,
        b"\x93\x03\x01\x02" + b"\x91" * 100_000,
        b"\x94\x03\x01\x02" + b"\x91" * 100_000 + b"\x90",
        b"\x92\x04\x81\xa2\xff\xfe\x93\xc0\x01\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\x92\x02\xdd\xff\xff\xff\xff",
    ],
    ids=["empty", "deep", "long", "deep field", "no UTF-8", "huge", "huge batch"],
)
def test_bytes_made_to_break_the_decoder_end_the_channel(payload: bytes) -> None:
    """Nesting without end, text that is no UTF-8, and lengths that are lies are refused too."""
    asyncio.run(check_refused(payload, is_following=True))


def test_text_frame_ends_the_channel() -> None:
    """The protocol is binary."""

    async def check() -> None:
        channel = await following(make_follower())
        channel.say_text("hello")
        assert isinstance(await channel.heard(), Refusal)
        assert await channel.ended() == CLOSE_PROTOCOL

    run(check)
