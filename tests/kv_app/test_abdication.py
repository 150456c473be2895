"""How a leadership ends: whoever waits for something of it is answered at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kv_app.errors import NotConfirmedError, OutcomeUnknownError
from kv_app.messages import Operation
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.leader import Leader
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]


async def end(leader: Leader, waiting: asyncio.Task[object]) -> None:
    """Ends a leadership, and gives what waits for it a few turns of the loop."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    leader.abdicate(2)
    for _ in range(3):
        await asyncio.sleep(0)
    assert waiting.done()


def test_write_that_waits_has_an_unknown_outcome_at_the_end_of_its_leader(
    make_network: MakeNetwork,
) -> None:
    """The new epoch may have it; to wait longer tells nobody anything."""

    async def check() -> None:
        leader = await make_network(2).start_leader(write_quorum=2)
        record = leader.append(Operation.PUT, "k", "v", None)
        waiting: asyncio.Task[object] = asyncio.create_task(leader.wait_committed(record))
        await end(leader, waiting)
        with pytest.raises(OutcomeUnknownError, match="epoch 1 is over"):
            await waiting

    run(check)


def test_change_of_k_that_waits_has_an_unknown_outcome_at_the_end_of_its_leader(
    make_network: MakeNetwork,
) -> None:
    """Its record is in the log, and the new epoch may have that."""

    async def check() -> None:
        leader = await make_network(2).start_leader(write_quorum=2)
        waiting: asyncio.Task[object] = asyncio.create_task(leader.quorum_changes.change(1))
        await end(leader, waiting)
        with pytest.raises(OutcomeUnknownError, match="epoch 1 is over"):
            await waiting

    run(check)


def test_reads_that_wait_are_refused_at_the_end_of_their_leader(make_network: MakeNetwork) -> None:
    """Those that wait for a confirmation, which may not come, and those for a position."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=2)
        network[1].confirms = network[2].confirms = False
        asked = len(network[1].client.frames)
        confirming: asyncio.Task[object] = asyncio.create_task(leader.voters.confirm())
        reading = asyncio.create_task(leader.reads.wait("k", 1, 1))
        await until(lambda: len(network[1].client.frames) > asked)
        await end(leader, confirming)
        with pytest.raises(NotConfirmedError):
            await confirming
        assert await asyncio.wait_for(reading, 0.1) is False

    run(check)


# --- the node stops -----------------------------------------------------------------------------


def test_all_that_waits_for_followers_is_answered_when_the_node_stops(
    make_network: MakeNetwork,
) -> None:
    """A write as unknown, a read as not confirmed, a promotion that only waits for k as done."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=2)
        network[1].confirms = network[2].confirms = False
        leader.counted.clear()
        record = leader.append(Operation.PUT, "k", "v", None)
        waiting: list[asyncio.Task[object]] = [
            asyncio.create_task(leader.wait_committed(record)),
            asyncio.create_task(leader.voters.confirm()),
            asyncio.create_task(leader.counted.wait()),
        ]
        await until(lambda: leader.waiting_writes and leader.voters._confirmations._waits)
        leader.drain()
        leader.end_waits()
        write, read, promotion = await asyncio.wait_for(
            asyncio.gather(*waiting, return_exceptions=True), timeout=1
        )
        assert isinstance(write, OutcomeUnknownError)
        assert isinstance(read, NotConfirmedError)
        assert promotion is True
        with pytest.raises(OutcomeUnknownError, match="the leader stopped"):
            await asyncio.wait_for(leader.wait_committed(record), timeout=1)  # a late retry
        await leader.stop()

    run(check)
