"""What a node answers another one that wants to lead, and what becomes of who led it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kv_app.errors import ProtocolViolationError
from kv_app.failover.calls import Denied, Fetch, Seal, Sealed
from kv_app.messages import CLOSE_REFUSED, Ack, Refusal, SeqRange
from kv_app.meta import Promise, Role
from kv_app.node import Node
from kv_app.settings import Settings
from tests.kv_app.fake_leader import Channel, entries, hello, put, run

if TYPE_CHECKING:
    from kv_app.follower import Follower


def follower_of(node: Node) -> Follower:
    """Returns a node's follower side."""
    assert node.follower is not None
    return node.follower


async def led_node() -> tuple[Node, Channel]:
    """Returns a voter of epoch 1, and the channel on which it is led."""
    node = Node(Settings(role=Role.FOLLOWER, node_id="f1", start_id="s1"))
    node.start()
    channel = Channel(follower_of(node))
    await channel.give_base(await channel.ask(hello()))
    return node, channel


def test_follower_that_is_sealed_ends_the_channel_of_its_leader_and_says_what_it_promised() -> None:
    """The old leader hears of it at once, and nothing that it sends is taken any more."""

    async def check() -> None:
        node, channel = await led_node()
        assert await channel.ask(entries(put(1))) == Ack([SeqRange(1, 1)])
        sealed = await node.respondent.seal(Seal("c1", Promise(4, "n2", "attempt")))
        channel.say(entries(put(2)))
        assert isinstance(sealed, Sealed)
        assert sealed.contiguous == 1
        refusal = await channel.heard()
        assert isinstance(refusal, Refusal)
        assert refusal.promised == 4
        assert await channel.ended() == CLOSE_REFUSED
        assert follower_of(node).held.max_seq == 1
        await node.stop()

    run(check)


@pytest.mark.parametrize("epoch", [1, 0])
def test_seal_that_is_denied_leaves_the_leader_of_a_follower_alone(epoch: int) -> None:
    """An attempt that comes too late disturbs nobody."""

    async def check() -> None:
        node, channel = await led_node()
        denied = await node.respondent.seal(Seal("c1", Promise(epoch, "n2", "attempt")))
        assert isinstance(denied, Denied)
        assert await channel.ask(entries(put(1))) == Ack([SeqRange(1, 1)])
        await channel.leave()
        await node.stop()

    run(check)


@pytest.mark.parametrize(
    "ranges",
    [
        [SeqRange(2, 3), SeqRange(1, 1)],
        [SeqRange(1, 2), SeqRange(2, 3)],
        [SeqRange(3, 2)],
        [SeqRange(0, 1)],
    ],
    ids=["descending", "overlapping", "reversed", "before the first"],
)
def test_entries_are_asked_for_in_order_and_once(ranges: list[SeqRange]) -> None:
    """Else an answer would have some twice, and who merges them would take it for a whole."""

    async def check() -> None:
        node, channel = await led_node()
        assert await channel.ask(entries(put(1), put(2), put(3))) == Ack([SeqRange(1, 3)])
        promise, incarnation = node.replica.meta.promise, node.replica.meta.incarnation
        assert promise is not None

        async def fetch(*some: SeqRange) -> Any:
            return await node.respondent.answer(Fetch(promise, incarnation, list(some)))

        fetched = await fetch(SeqRange(1, 1), SeqRange(3, 3))
        assert [entry.seq for entry in fetched.entries] == [1, 3]
        with pytest.raises(ProtocolViolationError):
            await fetch(*ranges)
        await channel.leave()
        await node.stop()

    run(check)
