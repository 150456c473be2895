"""Attempts to lead, step by step: what is promised, what is answered, and who leads meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kv_app.candidacy import Promoted
from kv_app.errors import NotLeaderError, NotReadyError
from kv_app.failover.calls import Denied, Probe, Question, Seal, Sealed
from kv_app.meta import Promise, Role
from tests.simulation.network import SimulatedPeers
from tests.simulation.scripted import Script, play

if TYPE_CHECKING:
    from kv_app.failover.calls import Answer


def seal_of(one: Script, epoch: int, attempt: str = "attempt") -> Seal:
    """Returns what an attempt at an epoch asks of others."""
    return Seal(one.node(0).replica.meta.cluster_id, Promise(epoch, "another", attempt))


def test_promise_outlives_the_process_that_gave_it() -> None:
    """Else one node could be in two majorities."""

    async def script(one: Script) -> None:
        seal = seal_of(one, 5)
        assert isinstance(await one.node(2).respondent.seal(seal), Sealed)
        disk = one.host(2).disk
        assert disk is not None
        disk.unsynced = []
        one.host(2).crash(wiped=False)
        one.host(2).start()
        assert one.node(2).replica.meta.promise == seal.promise
        assert isinstance(await one.node(2).respondent.seal(seal_of(one, 5, "other")), Denied)

    play(script, followers=3, write_quorum=2)


def test_what_a_seal_names_outlives_the_process_that_answered() -> None:
    """The attempt relies on it: nobody else need hold it."""

    async def script(one: Script) -> None:
        syncs, disk, commits = one.host(2)._syncs, one.host(2).disk, one.node(2).replica.commits
        assert syncs is not None
        assert disk is not None
        assert commits is not None
        syncs._mean_s = 5.0
        for value in "12":
            record = one.append(one.node(0), "a", value)
            await one.until(lambda seq=record.entry.seq: one.node(2).replica.held.holds(seq))  # type: ignore[misc]
        assert commits._entries  # the second one is not even written while the first one is synced
        seq = record.entry.seq
        entry = one.node(2).replica.log.get(seq)
        seal = seal_of(one, 5)
        one.host(0).crash(wiped=False)
        sealed = await one.node(2).respondent.seal(seal)
        assert isinstance(sealed, Sealed)
        assert sealed.contiguous >= seq
        disk.unsynced = []
        one.host(2).crash(wiped=False)
        one.host(2).start()
        assert one.node(2).replica.log.get(seq) == entry

    play(script, followers=3, write_quorum=2)


def test_node_whose_epoch_did_not_open_yet_is_no_leader() -> None:
    """It takes no write and answers no read as one: the epoch may never begin."""

    async def script(one: Script) -> None:
        one.host(0).crash(wiped=False)
        one.cluster.network.closed = {host.url for host in one.hosts}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(1).candidate is not None)
        node = one.node(1)
        with pytest.raises(NotLeaderError):
            node.require_leader()
        with pytest.raises(NotReadyError):
            node.check_ready()
        assert node.role is Role.FOLLOWER
        one.cluster.network.closed = set()
        assert isinstance(await attempt, Promoted)
        assert node.require_leader() is one.leader

    play(script, followers=3, write_quorum=2)


def test_second_promotion_of_a_node_joins_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a node would outbid itself."""
    probed: list[str] = []
    call = SimulatedPeers.call

    async def noted(self: SimulatedPeers, url: str, question: Question, timeout_s: float) -> Answer:
        if isinstance(question, Probe):
            probed.append(url)
        return await call(self, url, question, timeout_s)

    monkeypatch.setattr(SimulatedPeers, "call", noted)

    async def script(one: Script) -> None:
        first, second = await asyncio.gather(one.promote(1), one.promote(1))
        assert isinstance(first, Promoted)
        assert second == first
        assert first.epoch == one.leader.epoch == 2
        assert sorted(probed) == sorted(one.hosts[number].url for number in (0, 2, 3))

    play(script, followers=3, write_quorum=2)


def test_retry_of_a_write_that_an_epoch_began_without_is_a_new_write() -> None:
    """Who held the first one, dropped it and leads later must not take it for done."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "settled")
        one.part(0, 1)
        lost = one.append(one.node(0), "a", "again", "i1").entry
        await one.until(lambda: one.node(1).replica.held.holds(lost.seq))
        assert isinstance(await one.promote(2), Promoted)
        await one.put(one.node(2), "b", "in between")
        one.mend()
        await one.ready()
        assert isinstance(await one.promote(1), Promoted)
        again = await one.put(one.node(1), "a", "again", "i1")
        assert again.entry.epoch == 3
        assert one.node(1).state.values() == {"a": "again", "b": "in between"}

    play(script, followers=3, write_quorum=2)


@pytest.mark.parametrize("is_durable", [True, False])
def test_promoted_node_that_loses_its_data_is_called_back_to_lead(*, is_durable: bool) -> None:
    """It has nobody's URL, and the others would wait for it."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        assert isinstance(await one.promote(2), Promoted)
        await one.ready()
        await one.put(one.node(2), "b", "2")
        one.host(2).crash(wiped=True)
        one.host(2).start()
        await one.ready()
        assert one.node(2).leader is not None
        assert one.node(2).state.values() == {"a": "1", "b": "2"}

    play(script, followers=2, write_quorum=1, is_durable=is_durable)
