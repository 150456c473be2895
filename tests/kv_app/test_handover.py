"""The log's way from a replica to its leader, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kv_app.formation import Standing
from kv_app.messages import Operation, Version
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kv_app.fakes import FakeNetwork


def test_node_that_leads_no_more_holds_all_it_took_as_a_follower_does(
    make_network: Callable[[int], FakeNetwork],
) -> None:
    """What was not committed is there, can be asked for, and can be taken back."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        leader.append(Operation.PUT, "k", "committed", None)
        await until(lambda: network[1].client.seqs == [1])
        network[1].client.acknowledge(1)
        leader.append(Operation.PUT, "k", "not", None)
        leader.append(Operation.PUT, "other", "not", None)
        leader.abdicate(2)
        assert leader.decision.standing is Standing.SUPERSEDED
        replica = leader._replica
        assert [entry.seq for entry in replica.log.above(0)] == [1, 2, 3]
        assert (replica.settled_seq, replica.held.contiguous) == (1, 3)
        assert replica.state.read("k") == Version("not", 1, 2)
        assert replica.state.values() == {"k": "not", "other": "not"}
        replica.state.revert()
        assert replica.state.values() == {"k": "committed"}

    run(check)
