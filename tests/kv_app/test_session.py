"""One channel on the follower's side: its hello, its messages, its answers and its end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import session
from kv_app.formation import Standing
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    Ack,
    Base,
    Heartbeat,
    LeaderMessage,
    Refusal,
    SeqRange,
    SnapshotBegin,
    SnapshotEnd,
)
from tests.kv_app.disks import Syncs, opened
from tests.kv_app.fake_leader import (
    Channel,
    base,
    entries,
    following,
    hello,
    make_follower,
    put,
    run,
)
from tests.kv_app.fakes import encode, until

if TYPE_CHECKING:
    from pathlib import Path

# --- the beginning and the end ----------------------------------------------------------------


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
    "message",
    [Heartbeat(0, 0), entries(put(1)), SnapshotBegin(0, 0), SnapshotEnd(b""), Base(base(), "life")],
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
    monkeypatch.setattr(session, "HELLO_TIMEOUT_S", 0.01)

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


@pytest.mark.parametrize("message", [hello(), Heartbeat(0, 0)])
def test_channel_whose_close_came_before_its_answer_ends_quietly(message: LeaderMessage) -> None:
    """The server refuses to send then, by an error of its own, before the close was read."""

    async def check() -> None:
        said = [encode(message)]

        async def receive() -> dict[str, Any]:
            if said:
                return {"type": "websocket.receive", "bytes": said.pop()}
            return {"type": "websocket.disconnect", "code": 1006}

        async def send(message: Any) -> None:
            raise RuntimeError(f"{message['type']} after websocket.close")

        follower = make_follower()
        await follower.serve(receive, send)
        assert not said
        assert follower.readiness().standing is Standing.NO_LEADER

    run(check)


@pytest.mark.parametrize("epoch", [0, -1, 2**62 + 1])
def test_hello_of_an_epoch_that_cannot_be_is_refused(epoch: int) -> None:
    """It would be promised for good."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        reason = await channel.refused(hello(epoch=epoch))
        assert "is none" in reason or "cannot be read" in reason
        assert follower.epoch == 0

    run(check)


def test_second_hello_on_a_channel_is_refused() -> None:
    """A channel has one leader and one epoch."""

    async def check() -> None:
        channel = await following(make_follower())
        assert "second hello" in await channel.refused(hello())
        assert channel.close_code == CLOSE_PROTOCOL

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


def test_follower_that_stood_still_reads_before_it_takes_its_leader_for_silent() -> None:
    """What the leader sent meanwhile waits to be read."""

    async def check() -> None:
        follower = make_follower(heartbeat_timeout_s=0.4)
        channel = await following(follower)
        time.sleep(1.0)  # noqa: ASYNC251  the whole node stands still, its loop too
        await asyncio.sleep(0.01)  # its timers have run
        assert await channel.ask(Heartbeat(0, 0)) == Ack([])
        assert channel.close_code is None
        await channel.leave()

    run(check)


def test_follower_that_waits_for_its_disk_does_not_take_its_leader_for_silent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is itself that reads nothing."""
    monkeypatch.setattr("kv_app.follower.MAX_UNSYNCED_BYTES", 0)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            syncs = Syncs(storage, monkeypatch)
            follower = make_follower(storage, heartbeat_timeout_s=0.02)
            channel = await following(follower)
            syncs.hold()
            channel.say(entries(put(1)))
            channel.say(Heartbeat(1, 0))
            await until(lambda: follower.is_behind)
            await asyncio.sleep(0.1)  # several time-outs
            assert channel.close_code is None
            syncs.release()
            assert await channel.heard() == Ack([SeqRange(1, 1)])
            assert await channel.heard() == Ack([])
            await channel.leave()
            await follower.stop()

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
        await channel.ask(entries(put(1)))
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
    st.integers(min_value=0, max_value=10),
    st.lists(plain_values, max_size=7),
)
cut_messages = st.builds(
    lambda payload, at, other: payload[: at % len(payload)] + other,
    st.sampled_from([encode(hello()), encode(entries(put(2))), encode(SnapshotEnd(b"digest"))]),
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
        b"\x93\x02\xdd\xff\xff\xff\xff",
        b"\x95\x05\x00\xc3\xdf\xff\xff\xff\xff",
    ],
    ids=["empty", "deep", "long", "deep field", "no UTF-8", "huge", "huge batch", "huge chunk"],
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
