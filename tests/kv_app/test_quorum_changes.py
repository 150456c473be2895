"""A write quorum that changes while writes go on: when k and the floor come into force."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.errors import NotAttemptedError, OutcomeUnknownError
from kv_app.leader import Leader
from kv_app.messages import Operation
from kv_app.meta import BaseRecord, Config, Member, Promise, Role
from kv_app.settings import Settings
from tests.kv_app.disks import Syncs, opened
from tests.kv_app.fakes import run, until
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kv_app.quorum_changes import QuorumChanges
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]

TIMEOUT_S = 0.02


async def change_in_vain(changes: QuorumChanges, write_quorum: int) -> OutcomeUnknownError:
    """Asks for a change of k whose outcome must be unknown."""
    with pytest.raises(OutcomeUnknownError, match=r"^The change .* /admin/quorum") as unknown:
        await changes.change(write_quorum)
    return unknown.value


def test_floor_waits_for_a_hole_below_the_record_of_the_raise(make_network: MakeNetwork) -> None:
    """A promotion with n - f + 1 followers would rely on what fills it being on all of them."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        changes = leader.quorum_changes
        early = leader.append(Operation.PUT, "k", "v", None).entry.seq
        record = changes.begin(2)
        assert record is not None
        raised = record.entry.seq
        assert raised == early + 1
        for number in (1, 2):
            await network[number].client.has_sent(raised)
        network[1].client.acknowledge(early, raised)
        network[2].client.acknowledge(raised)
        assert record.committed
        assert (changes.now.write_quorum, changes.now.floor) == (2, 1)
        network[2].client.acknowledge(early)
        assert (changes.now.write_quorum, changes.now.floor) == (2, 2)
        await leader.stop()

    run(check)


def test_lowering_waits_for_the_leaders_own_disk(
    make_network: MakeNetwork, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that comes back without its record would rely on the old floor."""

    async def check() -> None:
        with opened(folder, Role.LEADER, "leader") as storage:
            syncs = Syncs(storage, monkeypatch)
            network = make_network(2)
            leader = await network.start_leader(storage, write_quorum=2)
            changes = leader.quorum_changes
            syncs.hold()
            lowering = asyncio.create_task(changes.change(1))
            await until(lambda: changes.now.lowering is not None)
            assert changes.now.lowering is not None
            seq = changes.now.lowering.seq
            for number in (1, 2):
                await network[number].client.has_sent(seq)
                network[number].client.acknowledge(seq)
            record = leader.log.get(seq)
            assert record is not None
            assert record.ack_count == 2
            assert (leader.write_quorum, changes.now.floor) == (2, 2)
            syncs.release()
            await until(lambda: changes.now.lowering is None)
            assert (leader.write_quorum, changes.now.floor) == (1, 1)
            await lowering
            await leader.stop()

    run(check)


# --- a change that is asked for again -----------------------------------------------------------


def test_raise_that_is_asked_for_again_waits_for_the_record_of_the_first(
    make_network: MakeNetwork,
) -> None:
    """200 says that the record is committed, however often one asks; it is not appended again."""

    async def check() -> None:
        network = make_network(3)
        network[3].is_reachable = False
        for number in (1, 2):
            network[number].acknowledges = True
        leader = await network.start_leader(write_quorum=2, request_timeout_s=TIMEOUT_S)
        changes = leader.quorum_changes
        for _ in range(2):
            assert (await change_in_vain(changes, 3)).details["seq"] == 1
        assert (leader.write_quorum, leader.log.last_seq) == (3, 1)
        network[3].acknowledges = network[3].is_reachable = True
        await until(lambda: leader.stable_seq >= 1)
        await changes.change(3)
        await leader.stop()

    run(check)


def test_raise_that_is_asked_for_again_once_its_record_left_the_log_is_done(
    make_network: MakeNetwork,
) -> None:
    """The log drops only what is committed."""

    async def check() -> None:
        network = make_network(2)
        for number in (1, 2):
            network[number].acknowledges = True
        leader = await network.start_leader(write_quorum=1, log_entries=3)
        changes = leader.quorum_changes
        await changes.change(2)
        for _ in range(5):
            await leader.wait_committed(leader.append(Operation.PUT, "k", "v", None))
        assert leader.log.first_seq > 1
        for number in (1, 2):
            network[number].acknowledges = False
        await asyncio.wait_for(changes.change(2), timeout=1)
        await leader.stop()

    run(check)


def test_k_that_came_back_by_itself_is_waited_for_as_if_it_were_asked_for(
    make_network: MakeNetwork,
) -> None:
    """Who asks for what is wanted already must not be told so before it is recorded."""

    async def check() -> None:
        network = make_network(3)
        leader = await start_promoted(network, Config((), 1, 1, 2))
        changes = leader.quorum_changes
        await until(lambda: leader.write_quorum == 2)
        resumed = leader.log.last_seq
        assert (await change_in_vain(changes, 2)).details["seq"] == resumed
        for number in (1, 2, 3):
            await network[number].client.has_sent(resumed)
            network[number].client.acknowledge(1, resumed)
        await changes.change(2)
        await leader.stop()

    run(check)


def test_k_with_which_an_epoch_began_is_in_force_without_any_record(
    make_network: MakeNetwork,
) -> None:
    """Its base is on a majority; no follower has acknowledged what came since."""

    async def check() -> None:
        leader = await start_promoted(make_network(3), Config((), 2, 2, 2))
        await asyncio.wait_for(leader.quorum_changes.change(2), timeout=1)
        assert leader.uncommitted == 1  # what the epoch began by saying
        await leader.stop()

    run(check)


async def start_promoted(network: FakeNetwork, config: Config) -> Leader:
    """Returns the open leader of epoch 2, whose followers are voters and acknowledge nothing."""
    settings = Settings(node_id="leader", request_timeout_s=TIMEOUT_S, reconnect_max_s=0.01)
    own = Member("leader", settings.advertise_url)
    members = (own, *(Member(one.node_id, url) for url, one in network.followers.items()))
    replica = make_replica(settings)
    replica.save(cluster_id="c1")
    config = Config(members, config.write_quorum, config.floor, config.wanted)
    for one in network.followers.values():
        one.base_epoch = 2
    leader = Leader(
        replica,
        Promise(2, "leader", "second"),
        base=BaseRecord(2, "leader", replica.meta.incarnation, config, 0),
    )
    leader.start()
    await until(lambda: leader.is_open and all(link.counts for link in leader.links))
    return leader


# --- a node that stops --------------------------------------------------------------------------


@pytest.mark.parametrize("write_quorum", [1, 3])
def test_change_that_waits_when_the_node_stops_is_unknown(
    make_network: MakeNetwork, write_quorum: int
) -> None:
    """A lowering and a raise alike: their records are in the log."""

    async def check() -> None:
        leader = await make_network(3).start_leader(write_quorum=2)
        waiting: asyncio.Task[Any] = asyncio.create_task(
            change_in_vain(leader.quorum_changes, write_quorum)
        )
        await until(lambda: leader.log.last_seq == 1)
        await asyncio.sleep(0)
        leader.drain()
        leader.end_waits()
        error = await asyncio.wait_for(waiting, timeout=1)
        assert "the leader stopped" in error.message
        assert error.details["seq"] == 1
        await leader.stop()

    run(check)


def test_change_that_comes_while_the_node_stops_is_not_attempted(
    make_network: MakeNetwork,
) -> None:
    """It leaves no record, and the old k stays."""

    async def check() -> None:
        leader = await make_network(2).start_leader(write_quorum=1)
        leader.drain()
        for write_quorum in (1, 2):
            with pytest.raises(NotAttemptedError, match="stopping"):
                await leader.quorum_changes.change(write_quorum)
        assert (leader.write_quorum, leader.log.last_seq) == (1, 0)
        await leader.stop()

    run(check)
