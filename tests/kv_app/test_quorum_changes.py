"""A write quorum that changes while writes go on: when k and the floor come into force."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kv_app.messages import Operation
from kv_app.meta import Role
from tests.kv_app.disks import Syncs, opened
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]


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
